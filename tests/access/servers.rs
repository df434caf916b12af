//! Both servers with one CA and one key for tokens, kube-controller-manager beside each, and who talks to them.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
    sync::Mutex,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use fairlead_control::auth::pki::Issued;
use kube::{Client, config::AuthInfo};

use crate::{
    credentials::{Credentials, Flaw},
    exchange::{Answer, Request, exchange},
    fairlead_server::FairleadServer,
    kit::{Result, process::Process, run},
    kube_apiserver::{self, KubeApiServer},
    normalise::SERVICE_RANGE,
};

/// Both, running; they end with the value.
pub struct Servers {
    pub ours: Side,
    pub theirs: Side,
    pub credentials: Credentials,
    // These end before the servers that they use.
    managers: Vec<Process>,
    fairlead: FairleadServer,
    reference: KubeApiServer,
}

/// One of them.
pub struct Side {
    config: kube::Config,
    pub kubeconfig: PathBuf,
    clients: Mutex<BTreeMap<Actor, Client>>,
}

/// Who sends a request.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Actor {
    /// Of `system:masters`.
    Admin,
    /// By a client certificate that both trust.
    User {
        name: String,
        group: Option<String>,
    },
    /// By a certificate that nobody should trust.
    Certificate(Flaw),
    /// Whoever the token stands for.
    Token(String),
    Anonymous,
}

impl Actor {
    pub fn user(name: &str) -> Self {
        Self::User { name: name.to_owned(), group: None }
    }

    pub fn node(name: &str) -> Self {
        Self::User { name: format!("system:node:{name}"), group: Some("system:nodes".into()) }
    }
}

/// The programs of the reference.
pub const PARTS: [&str; 4] = ["etcd", "kube-apiserver", "kube-controller-manager", "kubectl"];
/// Whom fairlead's tokens are from.
const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

impl Servers {
    /// Starts everything and waits until it answers.
    pub async fn start(peers: &Path, dir: &Path) -> Result<Self> {
        if let Some(missing) = kube_apiserver::missing(peers, &PARTS) {
            return Err(missing.into());
        }
        let flags = ["--api-only", "--service-cidr", SERVICE_RANGE];
        let limits =
            ["--enable-priority-and-fairness=false", "--max-requests-inflight=0", "--max-mutating-requests-inflight=0"];
        let fairlead = FairleadServer::start(dir, &[&flags[..], &limits].concat()).await?;
        let pki = dir.join("fairlead/pki");
        let file = |name: &str| pki.join(name).display().to_string();
        // kube-apiserver reads public keys from no PKCS #8.
        let public = dir.join("sa.pub").display().to_string();
        run(Command::new("openssl").args(["pkey", "-in", &file("sa.key"), "-pubout", "-out", &public]))?;
        let reference = KubeApiServer::start(
            peers,
            dir,
            &[
                &format!("--service-cluster-ip-range={SERVICE_RANGE}"),
                "--authorization-mode=Node,RBAC",
                "--enable-admission-plugins=NodeRestriction",
                &format!("--client-ca-file={}", file("ca.crt")),
                &format!("--service-account-key-file={public}"),
                &format!("--service-account-signing-key-file={}", file("sa.key")),
                &format!("--service-account-issuer={ISSUER}"),
                "--max-requests-inflight=3000",
                "--max-mutating-requests-inflight=3000",
                "--enable-priority-and-fairness=false",
            ],
        )
        .await?;
        let credentials = Credentials::load(&pki)?;
        let admin = credentials.certificate("kubernetes-admin", Some("system:masters"), Flaw::None)?;
        let side = |name: &str, of: &kube::Config| -> Result<Side> {
            let mut config = kube::Config::new(of.cluster_url.clone());
            config.accept_invalid_certs = true;
            // What a server answers counts, not what it would answer later.
            config.default_retry = false;
            let kubeconfig = dir.join(format!("{name}.kubeconfig"));
            std::fs::write(&kubeconfig, kubeconfig_text(&of.cluster_url, &admin))?;
            Ok(Side { config, kubeconfig, clients: Mutex::default() })
        };
        let (ours, theirs) = (side("ours", &fairlead.config)?, side("theirs", &reference.config)?);
        let mut managers = Vec::new();
        for (name, side) in [("manager-ours", &ours), ("manager-theirs", &theirs)] {
            let mut command = Command::new(peers.join("kube-controller-manager"));
            command.arg(format!("--kubeconfig={}", side.kubeconfig.display()));
            command.arg(format!("--service-account-private-key-file={}", file("sa.key")));
            command.args(["--leader-elect=false", "--secure-port=0", "--kube-api-qps=1000", "--kube-api-burst=2000"]);
            command.arg("--controllers=clusterrole-aggregation-controller,serviceaccount-token-controller");
            managers.push(Process::start(name, command, dir)?);
        }
        Ok(Self { ours, theirs, credentials, managers, fairlead, reference })
    }

    /// What a program that has ended said last.
    pub fn ended(&mut self) -> Option<String> {
        let manager = self.managers.iter_mut().find_map(|one| (!one.is_running()).then(|| one.tail()));
        self.fairlead.ended().or_else(|| self.reference.ended()).or(manager)
    }

    /// The answers of both to one request of one actor.
    pub async fn both(&self, actor: &Actor, request: &Request) -> Result<(Answer, Answer)> {
        tokio::try_join!(
            self.ours.send(&self.credentials, actor, request),
            self.theirs.send(&self.credentials, actor, request)
        )
    }
}

impl Side {
    /// What it answers to a request of `actor`.
    pub async fn send(&self, credentials: &Credentials, actor: &Actor, request: &Request) -> Result<Answer> {
        let client = self.client(credentials, actor)?;
        let answered = exchange(&client, request).await;
        answered.map_err(|error| format!("{actor:?} {} {}: {error}", request.method, request.path).into())
    }

    /// The client of an actor; made once for those whose credential stays.
    pub fn client(&self, credentials: &Credentials, actor: &Actor) -> Result<Client> {
        if let Some(client) = self.clients.lock().expect("no holder panics").get(actor) {
            return Ok(client.clone());
        }
        let issue = |name: &str, group: Option<&str>, flaw| -> Result<AuthInfo> {
            let issued = credentials.certificate(name, group, flaw)?;
            Ok(AuthInfo {
                client_certificate_data: Some(BASE64_STANDARD.encode(&issued.certificate_pem)),
                client_key_data: Some(BASE64_STANDARD.encode(&issued.key_pem).into()),
                ..AuthInfo::default()
            })
        };
        let mut config = self.config.clone();
        config.auth_info = match actor {
            Actor::Admin => issue("kubernetes-admin", Some("system:masters"), Flaw::None)?,
            Actor::User { name, group } => issue(name, group.as_deref(), Flaw::None)?,
            Actor::Certificate(flaw) => issue("kubernetes-admin", Some("system:masters"), *flaw)?,
            Actor::Token(token) => AuthInfo { token: Some(token.clone().into()), ..AuthInfo::default() },
            Actor::Anonymous => AuthInfo::default(),
        };
        let client = Client::try_from(config)?;
        self.clients.lock().expect("no holder panics").insert(actor.clone(), client.clone());
        Ok(client)
    }
}

fn kubeconfig_text(url: &http::Uri, admin: &Issued) -> String {
    let (certificate, key) = (BASE64_STANDARD.encode(&admin.certificate_pem), BASE64_STANDARD.encode(&admin.key_pem));
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: c\n\
         clusters: [{{name: c, cluster: {{server: '{url}', insecure-skip-tls-verify: true}}}}]\n\
         users: [{{name: u, user: {{client-certificate-data: {certificate}, client-key-data: {key}}}}}]\n\
         contexts: [{{name: c, context: {{cluster: c, user: u}}}}]\n"
    )
}
