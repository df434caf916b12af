//! Front proxies: servers that have authenticated a user, and say in headers who it is (`--requestheader-…`). They are
//! believed for the certificate that their connection came with, and for nothing else.
//!
//! Source: `k8s.io/apiserver/pkg/authentication/request/headerrequest`.

use std::{
    collections::BTreeMap,
    fs, io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};

use arc_swap::ArcSwap;
use http::{HeaderMap, HeaderName, HeaderValue};
use percent_encoding::percent_decode_str;
use rustls::{DistinguishedName, crypto::CryptoProvider};
use rustls_pki_types::{CertificateDer, UnixTime};

use super::{
    Identity,
    front_proxy_authorities::{AuthoritiesError, TrustedAuthorities},
    options::RequestHeaderOptions,
};

/// Recognises front proxies, and reads what they say.
#[derive(Debug)]
pub struct FrontProxies {
    trusted: ArcSwap<TrustedAuthorities>,
    /// Signs for the users of the cluster.
    cluster: CertificateDer<'static>,
    provider: Arc<CryptoProvider>,
    options: RequestHeaderOptions,
    username: Vec<HeaderName>,
    groups: Vec<HeaderName>,
    uid: Vec<HeaderName>,
    /// In lower case.
    extra_prefixes: Vec<String>,
}

/// A connection that came from a front proxy: an extension of its requests. Clones share what was found out last.
#[derive(Clone, Debug, Default)]
pub struct FrontProxyConnection {
    /// The common name of its certificate.
    pub name: Arc<str>,
    /// Of its certificate: seconds since the epoch.
    pub not_after: i64,
    /// Its certificates, leaf first.
    chain: Arc<[CertificateDer<'static>]>,
    last: Arc<LastLook>,
}

/// Whether a connection was recognised when it was looked at last: its certificates are verified once for each set of
/// authorities, not for each request.
#[derive(Debug, Default)]
struct LastLook(AtomicU64);

impl LastLook {
    /// By the authorities of this generation.
    fn of(generation: u64, is_recognised: bool) -> u64 {
        generation << 1 | u64::from(is_recognised)
    }

    /// `None` where that was by other authorities.
    fn by(&self, generation: u64) -> Option<bool> {
        let last = self.0.load(Ordering::Relaxed);
        [true, false].into_iter().find(|is_recognised| last == Self::of(generation, *is_recognised))
    }
}

impl FrontProxyConnection {
    /// Of a proxy with this name that is believed until then.
    #[cfg(test)]
    pub fn of(name: &str, not_after: i64) -> Self {
        Self { name: name.into(), not_after, ..Self::default() }
    }

    /// Whose connection it is, among those of users: the proxy's, whoever sends requests through it.
    pub fn holder(&self) -> Identity {
        Identity::authenticated(format!("front-proxy:{}", self.name), Vec::new())
    }

    /// Whether the proxy is believed.
    pub fn is_good_at(&self, now: SystemTime) -> bool {
        is_until(self.not_after, now)
    }
}

/// Whether a time in seconds since the epoch has not passed.
pub(super) fn is_until(not_after: i64, now: SystemTime) -> bool {
    let seconds = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    i64::try_from(seconds).is_ok_and(|now| now <= not_after)
}

/// Whom a front proxy said that a request is from: an extension of the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxiedIdentity {
    /// The user, with the group of all users.
    pub identity: Identity,
    /// Until when the proxy is believed: seconds since the epoch.
    pub not_after: i64,
}

/// Why front proxies cannot be recognised.
#[derive(Debug, thiserror::Error)]
pub enum RequestHeaderError {
    /// The file of their authorities cannot be read.
    #[error("cannot read --requestheader-client-ca-file {path}")]
    Read {
        /// The file.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// It has no certificates, or such that verify nothing.
    #[error("--requestheader-client-ca-file {path} has no usable certificates: {why}")]
    Authorities {
        /// The file.
        path: String,
        /// What is wrong with them.
        why: AuthoritiesError,
    },
    /// A name that no header has.
    #[error("{value:?} in --{flag} cannot be the name of a header")]
    Header {
        /// Without dashes before it.
        flag: &'static str,
        /// As it was given.
        value: String,
    },
    /// A flag with an empty name.
    #[error("empty value in {0:?}")]
    Empty(&'static str),
    /// Aggregation needs the usual header for uids.
    #[error(
        "--requestheader-uid-headers is set without specifying the standard X-Remote-Uid header - API aggregation will \
         not work"
    )]
    Uid,
    /// Every client of the cluster could say that it is anybody.
    #[error(
        "--requestheader-client-ca-file and --client-ca-file contain overlapping certificates; \
         --requestheader-allowed-names must be specified to ensure regular client certificates cannot set \
         authenticating proxy headers for arbitrary users"
    )]
    Overlap,
}

impl FrontProxies {
    /// Reads what the flags name; nothing without `--requestheader-client-ca-file`. `cluster` signs for the users of
    /// the cluster.
    pub fn read(
        options: &RequestHeaderOptions,
        cluster: &CertificateDer<'_>,
        provider: Arc<CryptoProvider>,
    ) -> Result<Option<Self>, RequestHeaderError> {
        check(options)?;
        let Some(path) = &options.client_ca_file else { return Ok(None) };
        let text =
            fs::read(path).map_err(|source| RequestHeaderError::Read { path: path.display().to_string(), source })?;
        let (cluster, generation) = (cluster.clone().into_owned(), 0);
        let trusted = TrustedAuthorities::of(path, &text, (&cluster, options), provider.clone(), generation)?;
        Ok(Some(Self {
            trusted: ArcSwap::from_pointee(trusted),
            cluster,
            provider,
            username: names("requestheader-username-headers", &options.username_headers)?,
            groups: names("requestheader-group-headers", &options.group_headers)?,
            uid: names("requestheader-uid-headers", &options.uid_headers)?,
            extra_prefixes: options.extra_headers_prefix.iter().map(|p| p.trim().to_ascii_lowercase()).collect(),
            options: options.clone(),
        }))
    }

    /// The authorities of a changed file, which are not trusted yet.
    pub fn read_changed(&self, path: &Path, text: &[u8]) -> Result<TrustedAuthorities, RequestHeaderError> {
        let generation = self.trusted.load().generation.wrapping_add(1);
        let trust = (&self.cluster, &self.options);
        TrustedAuthorities::of(path, text, trust, self.provider.clone(), generation)
    }

    /// Trusts these authorities from now on, and no others.
    pub fn replace(&self, trusted: TrustedAuthorities) {
        self.trusted.store(Arc::new(trusted));
    }

    /// The certificates of their authorities, in PEM.
    pub fn authorities(&self) -> String {
        self.trusted.load().pem.clone()
    }

    /// The names of their authorities.
    pub fn hints(&self) -> Vec<DistinguishedName> {
        self.trusted.load().hints()
    }

    /// As the flags say.
    pub fn options(&self) -> &RequestHeaderOptions {
        &self.options
    }

    /// Whether a connection with this certificate, leaf first, comes from a front proxy.
    pub fn recognise(&self, chain: &[CertificateDer<'_>]) -> Option<FrontProxyConnection> {
        let trusted = self.trusted.load();
        let (name, not_after) = self.verify(&trusted, chain)?;
        let chain = chain.iter().map(|certificate| certificate.clone().into_owned()).collect();
        let last = LastLook(LastLook::of(trusted.generation, true).into());
        Some(FrontProxyConnection { name, not_after, chain, last: Arc::new(last) })
    }

    /// The common name of a front proxy with this certificate, and until when it is believed.
    fn verify(&self, trusted: &TrustedAuthorities, chain: &[CertificateDer<'_>]) -> Option<(Arc<str>, i64)> {
        let (leaf, intermediates) = chain.split_first()?;
        trusted.verifier.verify_client_cert(leaf, intermediates, UnixTime::now()).ok()?;
        let (_, certificate) = x509_parser::parse_x509_certificate(leaf).ok()?;
        let name = certificate.subject().iter_common_name().next().and_then(|name| name.as_str().ok());
        let allowed = &self.options.allowed_names;
        if !allowed.is_empty() && !allowed.iter().any(|allowed| Some(&**allowed) == name) {
            tracing::warn!(name, "a front proxy's certificate has a name that is not in --requestheader-allowed-names");
            return None;
        }
        Some((name.unwrap_or_default().into(), certificate.validity().not_after.timestamp()))
    }

    /// Whether a connection that came from a front proxy still does: its authority may have been taken away. One that
    /// came when its authority was not trusted yet has to come again, unlike in Kubernetes.
    pub fn still_recognise(&self, connection: &FrontProxyConnection) -> bool {
        let trusted = self.trusted.load();
        connection.last.by(trusted.generation).unwrap_or_else(|| {
            let is_recognised = self.verify(&trusted, &connection.chain).is_some();
            connection.last.0.store(LastLook::of(trusted.generation, is_recognised), Ordering::Relaxed);
            is_recognised
        })
    }

    /// Whom the headers name, without the group of all users. They are taken out: nobody else is to read them.
    pub fn take(&self, headers: &mut HeaderMap) -> Option<Identity> {
        let first = |names: &[HeaderName]| {
            let mut values = names.iter().filter_map(|name| headers.get(name)).filter(|value| !value.is_empty());
            values.next().map(text)
        };
        let name = first(&self.username)?;
        let uid = first(&self.uid).unwrap_or_default();
        let groups = self.groups.iter().flat_map(|name| headers.get_all(name)).filter(|value| !value.is_empty());
        let groups = groups.map(text).collect();
        let mut extra = BTreeMap::<String, Vec<String>>::new();
        for prefix in &self.extra_prefixes {
            for (name, value) in headers.iter() {
                if let Some(key) = name.as_str().strip_prefix(prefix.as_str()) {
                    // What is no encoded text stands for itself.
                    let key = percent_decode_str(key).decode_utf8().map_or_else(|_| key.to_owned(), |k| k.into_owned());
                    extra.entry(key).or_default().push(text(value));
                }
            }
        }
        let is_ours = |name: &HeaderName| {
            [&self.username, &self.groups, &self.uid].into_iter().any(|names| names.contains(name))
                || self.extra_prefixes.iter().any(|prefix| name.as_str().starts_with(prefix.as_str()))
        };
        let ours: Vec<HeaderName> = headers.keys().filter(|name| is_ours(name)).cloned().collect();
        for name in ours {
            headers.remove(name);
        }
        Some(Identity { name, groups, uid, extra })
    }
}

fn text(value: &HeaderValue) -> String {
    String::from_utf8_lossy(value.as_bytes()).into_owned()
}

fn names(flag: &'static str, values: &[String]) -> Result<Vec<HeaderName>, RequestHeaderError> {
    let parse =
        |value: &String| value.trim().parse().map_err(|_| RequestHeaderError::Header { flag, value: value.clone() });
    values.iter().map(parse).collect()
}

fn check(options: &RequestHeaderOptions) -> Result<(), RequestHeaderError> {
    for (flag, values) in [
        ("requestheader-username-headers", &options.username_headers),
        ("requestheader-group-headers", &options.group_headers),
        ("requestheader-extra-headers-prefix", &options.extra_headers_prefix),
        ("requestheader-allowed-names", &options.allowed_names),
        ("requestheader-uid-headers", &options.uid_headers),
    ] {
        if values.iter().any(|value| value.trim().is_empty()) {
            return Err(RequestHeaderError::Empty(flag));
        }
    }
    let uids = &options.uid_headers;
    if !uids.is_empty() && !uids.iter().any(|name| name.eq_ignore_ascii_case("X-Remote-Uid")) {
        return Err(RequestHeaderError::Uid);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
    use rustls::crypto::ring;

    use super::*;

    fn authority() -> CertifiedIssuer<'static, KeyPair> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "proxies");
        CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
    }

    fn leaf(issuer: &CertifiedIssuer<'static, KeyPair>, name: &str) -> CertificateDer<'static> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
        params.signed_by(&KeyPair::generate().unwrap(), issuer).unwrap().der().clone()
    }

    fn options(allowed: &[&str]) -> RequestHeaderOptions {
        let list = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        RequestHeaderOptions {
            client_ca_file: None,
            allowed_names: list(allowed),
            username_headers: list(&["X-Remote-User"]),
            group_headers: list(&["X-Remote-Group"]),
            extra_headers_prefix: list(&["X-Remote-Extra-"]),
            uid_headers: list(&["X-Remote-Uid"]),
        }
    }

    #[test]
    fn a_proxy_is_believed_for_its_certificate_and_its_name() {
        let (dir, issuer, other) = (tempfile::tempdir().unwrap(), authority(), authority());
        let path = dir.path().join("ca.crt");
        fs::write(&path, issuer.pem()).unwrap();
        let read = |allowed: &[&str], cluster: &CertificateDer<'_>| {
            let options = RequestHeaderOptions { client_ca_file: Some(path.clone()), ..options(allowed) };
            FrontProxies::read(&options, cluster, Arc::new(ring::default_provider())).map(Option::unwrap)
        };
        let proxies = read(&["gateway"], other.der()).unwrap();
        let connection = proxies.recognise(&[leaf(&issuer, "gateway")]).unwrap();
        assert_eq!(&*connection.holder().name, "front-proxy:gateway");
        assert!(connection.is_good_at(SystemTime::now()));
        assert!(!FrontProxyConnection { not_after: 0, ..connection.clone() }.is_good_at(SystemTime::now()));
        assert!(proxies.recognise(&[leaf(&issuer, "jane")]).is_none());
        assert!(proxies.recognise(&[leaf(&other, "gateway")]).is_none());
        assert!(read(&[], other.der()).unwrap().recognise(&[leaf(&issuer, "jane")]).is_some());
        assert!(matches!(read(&[], issuer.der()), Err(RequestHeaderError::Overlap)));
        assert!(read(&["gateway"], issuer.der()).is_ok());

        // Another file.
        let replace = |text: &str| proxies.read_changed(&path, text.as_bytes()).map(|read| proxies.replace(read));
        assert!(replace("garbage").is_err());
        assert!(proxies.still_recognise(&connection), "the one before stays");
        replace(&format!("{}{}", issuer.pem(), other.pem())).unwrap();
        assert_eq!((proxies.hints().len(), proxies.authorities().matches("BEGIN").count()), (2, 2));
        assert!(proxies.still_recognise(&connection) && proxies.recognise(&[leaf(&other, "gateway")]).is_some());
        assert_eq!(connection.last.by(1), Some(true), "it is not verified again by the same authorities");
        replace(&other.pem()).unwrap();
        assert!(!proxies.still_recognise(&connection), "its authority is trusted no more");
        assert_eq!(connection.clone().last.by(2), Some(false), "nor is one that is not recognised");
        let all = read(&[], other.der()).unwrap();
        assert!(matches!(all.read_changed(&path, other.pem().as_bytes()), Err(RequestHeaderError::Overlap)));

        let mut headers = HeaderMap::new();
        assert_eq!(proxies.take(&mut headers), None);
        for (name, value) in [
            ("x-remote-user", "jane"),
            ("x-remote-group", "a"),
            ("x-remote-group", "b"),
            ("x-remote-uid", "7"),
            ("x-remote-extra-acme.com%2fteam", "x"),
            ("accept", "*/*"),
        ] {
            headers.append(name, HeaderValue::from_static(value));
        }
        let jane = proxies.take(&mut headers).unwrap();
        assert_eq!((&*jane.name, jane.groups, &*jane.uid), ("jane", vec!["a".to_owned(), "b".into()], "7"));
        assert_eq!(jane.extra["acme.com/team"], ["x"]);
        assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["accept"]);
    }

    #[test]
    fn flags_that_name_nothing_are_refused() {
        let refused = |change: fn(&mut RequestHeaderOptions)| {
            let mut options = options(&[]);
            change(&mut options);
            let provider = Arc::new(ring::default_provider());
            FrontProxies::read(&options, authority().der(), provider).unwrap_err().to_string()
        };
        assert_eq!(refused(|o| o.group_headers = vec![" ".into()]), "empty value in \"requestheader-group-headers\"");
        assert!(refused(|o| o.uid_headers = vec!["X-Uid".into()]).contains("X-Remote-Uid"));
    }
}
