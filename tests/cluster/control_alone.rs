//! A control service without nodes, on loopback, and clients with every kind of credential.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, SystemTime},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use fairlead_control::auth::pki::{Authority, CertificateSubject, Issued, Usage};
use http::Request;
use kube::{
    Client, Config,
    config::{AuthInfo, KubeConfigOptions, Kubeconfig},
};
use serde_json::Value;

use crate::kit::{
    Result,
    cluster::{FAIRLEAD, PATIENCE},
    process::Process,
    run,
};

/// `fairlead server` on a free port of loopback.
pub struct ControlAlone {
    pub process: Process,
    pub data_dir: PathBuf,
    config: Config,
    logs: PathBuf,
}

impl ControlAlone {
    /// Starts it over `dir/control`; its log is in `dir`.
    pub async fn start(dir: &Path) -> Result<Self> {
        Self::start_with(dir, &dir.join("control"), Command::new(FAIRLEAD)).await
    }

    /// The same, where `command` runs the program, and `data_dir` may be anywhere.
    pub async fn start_with(logs: &Path, data_dir: &Path, mut command: Command) -> Result<Self> {
        let kubeconfig = data_dir.join("admin.kubeconfig");
        let port = match Kubeconfig::read_from(&kubeconfig) {
            Ok(earlier) => port_of(&earlier)?,
            Err(_) => std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port(),
        };
        command.args(["server", "--bind", &format!("127.0.0.1:{port}"), "--data-dir"]).arg(data_dir);
        command.env("RUST_LOG", "info");
        let mut process = Process::start("control", command, logs)?;
        let started = std::time::Instant::now();
        let config = loop {
            match Self::ready(&kubeconfig).await {
                Ok(config) => break config,
                Err(e) if !process.is_running() || started.elapsed() > PATIENCE => {
                    return Err(format!("the control service does not answer: {e}\n{}", process.tail()).into());
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        };
        Ok(Self { process, data_dir: data_dir.to_owned(), config, logs: logs.to_owned() })
    }

    async fn ready(kubeconfig: &Path) -> Result<Config> {
        let kubeconfig = Kubeconfig::read_from(kubeconfig)?;
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        let client = Client::try_from(config.clone())?;
        client.request_text(Request::get("/readyz").body(Vec::new())?).await?;
        Ok(config)
    }

    /// Ends it by SIGTERM and starts it again over the same data.
    pub async fn restart(mut self) -> Result<Self> {
        let status = self.process.terminate(PATIENCE)?;
        if !status.success() {
            return Err(format!("it ended with {status}:\n{}", self.process.tail()).into());
        }
        Self::start_with(&self.logs, &self.data_dir, Command::new(FAIRLEAD)).await
    }

    pub fn admin(&self) -> Result<Client> {
        Ok(Client::try_from(self.config.clone())?)
    }

    /// Checks the server's certificate, shows nothing itself.
    pub fn anonymous(&self) -> Result<Client> {
        self.with(AuthInfo::default())
    }

    pub fn with_token(&self, token: &str) -> Result<Client> {
        self.with(AuthInfo { token: Some(token.to_owned().into()), ..AuthInfo::default() })
    }

    pub fn with_certificate(&self, issued: &Issued) -> Result<Client> {
        Ok(Client::try_from(self.config_of(Some(issued)))?)
    }

    /// How whoever has this certificate, or none, reaches the service.
    pub fn config_of(&self, issued: Option<&Issued>) -> Config {
        let mut config = self.config.clone();
        config.auth_info = issued.map_or_else(AuthInfo::default, |issued| AuthInfo {
            client_certificate_data: Some(STANDARD.encode(&issued.certificate_pem)),
            client_key_data: Some(STANDARD.encode(&issued.key_pem).into()),
            ..AuthInfo::default()
        });
        config
    }

    /// The port that it listens on, of loopback.
    pub fn port(&self) -> Result<u16> {
        Ok(self.config.cluster_url.port_u16().ok_or("a server without a port")?)
    }

    fn with(&self, auth_info: AuthInfo) -> Result<Client> {
        let mut config = self.config.clone();
        config.auth_info = auth_info;
        Ok(Client::try_from(config)?)
    }

    /// The cluster's own authority, as its administrator on this host could use it.
    pub fn authority(&self) -> Result<Authority> {
        let read = |name: &str| std::fs::read_to_string(self.data_dir.join("pki").join(name));
        Ok(Authority::load(&read("ca.crt")?, &read("ca.key")?)?)
    }

    /// A client certificate by that authority.
    pub fn issue(&self, user: &str, group: Option<&str>) -> Result<Client> {
        self.with_certificate(&issue(&self.authority()?, user, group, SystemTime::now())?)
    }

    /// `fairlead ARGUMENTS` as the administrator.
    pub fn fairlead(&self, arguments: &[&str]) -> Result<String> {
        run(Command::new(FAIRLEAD).env("KUBECONFIG", self.data_dir.join("admin.kubeconfig")).args(arguments))
    }
}

/// A service that starts again is where it was.
fn port_of(kubeconfig: &Kubeconfig) -> Result<u16> {
    let server = kubeconfig.clusters.first().and_then(|c| c.cluster.as_ref()).and_then(|c| c.server.as_deref());
    let uri: http::Uri = server.ok_or("a kubeconfig without a server")?.parse()?;
    Ok(uri.port_u16().ok_or("a server without a port")?)
}

/// A client certificate that is good for an hour from `from`.
pub fn issue(authority: &Authority, user: &str, group: Option<&str>, from: SystemTime) -> Result<Issued> {
    let subject = CertificateSubject {
        common_name: user.into(),
        organization: group.map(Into::into),
        ..CertificateSubject::default()
    };
    Ok(authority.issue(&subject, Usage::Client, Duration::from_secs(3600), from.into())?)
}

/// The code and the body of the answer to `method uri`.
pub async fn ask(client: &Client, method: &str, uri: &str, body: Option<Value>) -> Result<(u16, Value)> {
    let bytes = body.map(|b| serde_json::to_vec(&b)).transpose()?.unwrap_or_default();
    let mut request = Request::builder().method(method).uri(uri);
    if !bytes.is_empty() {
        let patch = "application/merge-patch+json";
        request = request.header("content-type", if method == "PATCH" { patch } else { "application/json" });
    }
    let response = client.send(request.body(bytes.into())?).await?;
    let code = response.status().as_u16();
    let body = http_body_util::BodyExt::collect(response.into_body()).await?.to_bytes();
    let body = serde_json::from_slice(&body).unwrap_or_else(|_| String::from_utf8_lossy(&body).into_owned().into());
    Ok((code, body))
}

/// Sends a request; another status code than `code` is an error.
pub async fn expect(client: &Client, code: u16, method: &str, uri: &str, body: Option<Value>) -> Result<Value> {
    let (found, answer) = ask(client, method, uri, body).await.map_err(|e| format!("{method} {uri}: {e}"))?;
    if found == code { Ok(answer) } else { Err(format!("{method} {uri}: {found} instead of {code}: {answer}").into()) }
}

/// Waits until `method uri` answers with a body that `holds`.
pub async fn wait_for(client: &Client, uri: &str, what: &str, holds: impl Fn(&Value) -> bool) -> Result<Value> {
    let started = std::time::Instant::now();
    loop {
        let (code, answer) = ask(client, "GET", uri, None).await?;
        if code == 200 && holds(&answer) {
            return Ok(answer);
        }
        if started.elapsed() > PATIENCE {
            return Err(format!("{uri}: not {what}: {code} {answer}").into());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
