//! The certificates in use: set up at the start, and renewed in the running service before they end.

use std::{fmt, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use rustls::crypto::CryptoProvider;
use rustls_pki_types::{CertificateDer, pem::PemObject};
use time::OffsetDateTime;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{
    StartError,
    tls::{self, ShownCertificate, TlsError},
};
use crate::{
    Config,
    aggregation::{Authorities, FrontProxy},
    api::node_proxy::Agents,
    auth::{
        client_certificate::ClientCertificates,
        pki::{self, Authority, Pki, ServingNames, TokenKey},
        request_headers::FrontProxies,
    },
    bootstrap::Advertised,
    metrics::Scrape,
};

/// How often the ends of the certificates are looked at; they are renewed weeks before.
const CHECK_INTERVAL: Duration = Duration::from_secs(12 * 3600);

/// What the parts of the service show and check.
pub struct Certificates {
    /// Signs for nodes, and for this service.
    pub authority: Arc<Authority>,
    /// What the listener shows; replaced when it is renewed.
    pub shown: Arc<ShownCertificate>,
    /// Opens connections to agents, with a client certificate that is renewed too.
    pub agents: Agents,
    /// What is shown to extension API servers; replaced when it is renewed.
    pub front_proxy: Arc<FrontProxy>,
    /// Whom extension API servers are to trust; told anew when an authority is replaced.
    pub authorities: watch::Sender<Authorities>,
    /// Which client certificates are trusted.
    pub clients: Arc<ClientCertificates>,
    /// Which front proxies are believed.
    pub front_proxies: Option<Arc<FrontProxies>>,
    /// File that is written anew with each renewal of the administrator's certificate.
    pub admin_kubeconfig: PathBuf,
    /// Those of the certificate that is shown.
    pub names: ServingNames,
    /// Signs the tokens of ServiceAccounts, until the issuer takes it.
    pub token_key: Option<TokenKey>,
    /// When each of them ends.
    pub expirations: Expirations,
    pki_dir: PathBuf,
    server: String,
    provider: Arc<CryptoProvider>,
}

impl Certificates {
    /// Loads or makes everything; `address` is the one bound to.
    pub fn set_up(
        config: &Config,
        address: SocketAddr,
        advertised: Option<Advertised>,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, StartError> {
        let mut names = ServingNames::new(
            &config.cluster_domain,
            host_name().as_deref(),
            config.advertise.iter().copied().chain([config.kubernetes_service_address().into(), config.bind.ip()]),
        );
        names.add(advertised.map(|a| a.address.into()));
        let pki_dir = config.data_dir.join("pki");
        let pki = Pki::load_or_create(&pki_dir, &names, OffsetDateTime::now_utc())?;
        let cluster = CertificateDer::from_pem_slice(pki.authority.certificate_pem().as_bytes());
        let cluster = cluster.map_err(TlsError::Certificate)?;
        let front_proxies =
            FrontProxies::read(&config.authentication.request_header, &cluster, provider.clone())?.map(Arc::new);
        let clients = tls::client_certificates(&pki.authority, provider.clone())?;
        let hints = front_proxies.iter().flat_map(|proxies| proxies.hints());
        let certificates = Self {
            shown: Arc::new(ShownCertificate::new(&pki.serving, &pki.authority, &provider)?),
            agents: Agents::new(&pki.authority, &pki.agent_client, provider.clone())?,
            front_proxy: Arc::new(FrontProxy::new(&pki.front_proxy_client, &provider)?),
            authorities: watch::Sender::new(authorities(&pki, front_proxies.clone())),
            clients: Arc::new(clients.asking_for(hints)),
            front_proxies,
            admin_kubeconfig: config.data_dir.join("admin.kubeconfig"),
            names,
            expirations: Expirations(Arc::new(ArcSwap::from_pointee(expirations(&pki)))),
            token_key: Some(pki.token_key),
            pki_dir,
            server: format!("https://{}", local(address)),
            provider,
            authority: Arc::new(pki.authority),
        };
        certificates.write_admin_kubeconfig(&pki.admin)?;
        Ok(certificates)
    }

    /// Renews those whose end is near, twice a day until `stop`.
    pub async fn renew_repeatedly(self: Arc<Self>, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(CHECK_INTERVAL) => {}
            }
            if let Err(e) = self.renew(OffsetDateTime::now_utc()) {
                tracing::error!(error = &e as &dyn std::error::Error, "cannot renew the certificates");
            }
        }
    }

    fn renew(&self, now: OffsetDateTime) -> Result<(), StartError> {
        let pki = Pki::load_or_create(&self.pki_dir, &self.names, now)?;
        self.shown.replace(&pki.serving, &pki.authority, &self.provider)?;
        self.agents.replace(&pki.authority, &pki.agent_client, self.provider.clone())?;
        let known = self.authorities.send_replace(authorities(&pki, self.front_proxies.clone()));
        // A certificate of an authority that extension servers are only being told of is shown from the next time on.
        // Only of a running service: after a start the new certificate is shown at once.
        if known.front_proxy == pki.front_proxy_authority.certificate_pem() {
            self.front_proxy.replace(&pki.front_proxy_client, &self.provider)?;
        }
        self.expirations.0.store(Arc::new(expirations(&pki)));
        self.write_admin_kubeconfig(&pki.admin)
    }

    fn write_admin_kubeconfig(&self, admin: &pki::Issued) -> Result<(), StartError> {
        let text = pki::admin_kubeconfig(&self.server, &self.authority, admin);
        pki::write_private(&self.admin_kubeconfig, &text).map_err(StartError::Kubeconfig)
    }
}

/// When the certificates end, by name, in seconds since the epoch. Clones share them.
#[derive(Clone)]
pub struct Expirations(Arc<ArcSwap<Vec<(&'static str, i64)>>>);

impl Expirations {
    /// As cert-manager and others tell it: Kubernetes has only the ends of its clients' certificates.
    pub fn tell(&self, scrape: &mut Scrape<'_>) -> fmt::Result {
        let ends = self.0.load();
        let labels: Vec<[(&str, &str); 1]> = ends.iter().map(|(name, _)| [("name", *name)]).collect();
        scrape.gauges(
            "fairlead_certificate_expiration_timestamp_seconds",
            "When a certificate of the control service ends, in Unix seconds.",
            labels.iter().zip(ends.iter()).map(|(labels, (_, end))| (&labels[..], *end as f64)),
        )
    }
}

fn expirations(pki: &Pki) -> Vec<(&'static str, i64)> {
    let certificates = [
        ("authority", pki.authority.certificate_pem()),
        ("front-proxy-authority", pki.front_proxy_authority.certificate_pem()),
        ("serving", pki.serving.certificate_pem.as_str()),
        ("admin", pki.admin.certificate_pem.as_str()),
        ("agent-client", pki.agent_client.certificate_pem.as_str()),
        ("front-proxy-client", pki.front_proxy_client.certificate_pem.as_str()),
    ];
    certificates.into_iter().filter_map(|(name, text)| Some((name, pki::not_after(text)?))).collect()
}

fn authorities(pki: &Pki, front_proxies: Option<Arc<FrontProxies>>) -> Authorities {
    Authorities {
        clients: pki.authority.certificate_pem().to_owned(),
        front_proxy: pki.front_proxy_authority.certificate_pem().to_owned(),
        others: front_proxies,
    }
}

/// How the listener is reached from this host.
fn local(address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() { SocketAddr::from(([127, 0, 0, 1], address.port())) } else { address }
}

/// The kernel's name of this host; a host without one is only reached by its addresses.
fn host_name() -> Option<String> {
    std::fs::read_to_string("/proc/sys/kernel/hostname").ok().map(|name| name.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use rustls::crypto::ring;

    use super::*;

    #[test]
    fn a_long_running_service_shows_a_new_certificate_before_the_old_one_ends() {
        let dir = tempfile::tempdir().unwrap();
        let config = Config::new(dir.path());
        let address = "0.0.0.0:6443".parse().unwrap();
        let made = Certificates::set_up(&config, address, None, Arc::new(ring::default_provider())).unwrap();
        let kubeconfig = || std::fs::read_to_string(&made.admin_kubeconfig).unwrap();
        let (shown, text) = (made.shown.leaf(), kubeconfig());
        assert!(text.contains("https://127.0.0.1:6443"));
        made.renew(OffsetDateTime::now_utc()).unwrap();
        assert_eq!((made.shown.leaf(), kubeconfig()), (shown.clone(), text.clone()));
        let ends = || made.expirations.0.load_full().iter().find(|(name, _)| *name == "serving").map(|(_, end)| *end);
        let first_end = ends().unwrap();
        assert!(first_end > OffsetDateTime::now_utc().unix_timestamp());
        made.renew(OffsetDateTime::now_utc() + Duration::from_secs(310 * 24 * 3600)).unwrap();
        assert!(ends().unwrap() > first_end);
        assert_eq!(made.expirations.0.load().len(), 6);
        assert_ne!(made.shown.leaf(), shown);
        assert_ne!(kubeconfig(), text);
    }

    #[test]
    fn extension_servers_are_told_of_another_authority_before_its_certificate_is_shown() {
        let dir = tempfile::tempdir().unwrap();
        let config = Config::new(dir.path());
        let address = "0.0.0.0:6443".parse().unwrap();
        let made = Certificates::set_up(&config, address, None, Arc::new(ring::default_provider())).unwrap();
        let told = || made.authorities.borrow().front_proxy.clone();
        let shown = || made.front_proxy.leaf();
        let (first_told, first_shown) = (told(), shown());
        let later = OffsetDateTime::now_utc() + Duration::from_secs(3330 * 24 * 3600);
        made.renew(later).unwrap();
        assert_ne!(told(), first_told);
        assert_eq!(shown(), first_shown);
        let second_told = told();
        made.renew(later + CHECK_INTERVAL).unwrap();
        assert_eq!(told(), second_told);
        assert_ne!(shown(), first_shown);
    }
}
