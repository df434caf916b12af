//! The keys and certificates of one control service, as files under `data_dir/pki`.
//!
//! Decides which exist, when one is issued anew, and what each says. A file holds a certificate and its key together,
//! so that the two can never be of different times; only the CA has them apart (`ca.crt` is handed around, `ca.key`
//! never).

mod authority;
mod files;
pub mod identity;
mod kubeconfig;
mod requested_subject;
mod serving;
mod token_key;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use time::OffsetDateTime;

pub use authority::{Authority, AuthorityError, CertificateSubject, Issued, Usage, certificate_hash, not_after};
pub use files::{PkiFileError, private_dir, write_private};
use files::{read_private, remove, rename};
pub use kubeconfig::admin_kubeconfig;
pub use serving::ServingNames;
pub use token_key::{TokenKey, TokenKeyError};

/// A leaf is good for a year…
const LEAF_LIFETIME: Duration = Duration::from_secs(365 * 24 * 3600);
/// … and issued anew when less than this is left.
const RENEW_BEFORE: Duration = Duration::from_secs(60 * 24 * 3600);

/// Common name of the certificate by which extension API servers recognise this one. What they trust of it is the word
/// about who sends a request.
pub const FRONT_PROXY_CLIENT: &str = "front-proxy-client";

/// What the control service has to identify itself and others.
pub struct Pki {
    /// The cluster's CA.
    pub authority: Authority,
    /// What the API's listener shows. The chain it sends has the CA added: a joiner pins that.
    pub serving: Issued,
    /// The user `kubernetes-admin` of group `system:masters`.
    pub admin: Issued,
    /// What the API shows to agents.
    pub agent_client: Issued,
    /// Signs [`Pki::front_proxy_client`] and nothing else: whoever shows a certificate of this authority to an
    /// extension API server may speak for any user, so it must not be the one that signs for users and nodes.
    pub front_proxy_authority: Authority,
    /// What the API shows to extension API servers.
    pub front_proxy_client: Issued,
    /// Signs the tokens of ServiceAccounts.
    pub token_key: TokenKey,
}

/// The files of an authority.
struct AuthorityFiles {
    /// Of `NAME.crt` and `NAME.key`.
    stem: &'static str,
    common_name: &'static str,
    /// What removing both means.
    consequence: &'static str,
    /// How long before its end another one is made; without it, that is for an administrator to do.
    replaced_before: Option<Duration>,
}

const CLUSTER: AuthorityFiles = AuthorityFiles {
    stem: "ca",
    common_name: "fairlead-ca",
    consequence: "a new CA, which needs both ca.crt and ca.key removed, makes every node join again",
    replaced_before: None,
};
const FRONT_PROXY: AuthorityFiles = AuthorityFiles {
    stem: "front-proxy-ca",
    common_name: "fairlead-front-proxy-ca",
    consequence: "a new one, which needs both front-proxy-ca.crt and front-proxy-ca.key removed, is trusted by extension \
                  API servers once they have read it",
    replaced_before: Some(LEAF_LIFETIME),
};

/// Why the keys and certificates could not be loaded or made.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] PkiFileError),
    /// A file holds no usable key or certificate.
    #[error("{} is corrupt; restore it, or remove it to have another one made ({consequence})", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What removing it means for the cluster.
        consequence: &'static str,
        /// What is wrong with it.
        source: AuthorityError,
    },
    /// The key that signs tokens cannot be used, or none could be made.
    #[error("{} cannot be used; restore it, or remove it to have another one made (tokens signed by it are then refused)", path.display())]
    TokenKey {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: TokenKeyError,
    },
    /// Of a certificate and its key one is lost.
    #[error("{} is there but {} is missing; restore it", present.display(), missing.display())]
    Half {
        /// The file that is there.
        present: PathBuf,
        /// The file that is not.
        missing: PathBuf,
    },
    /// The authority could not sign.
    #[error("cannot issue the certificate {}", path.display())]
    Issue {
        /// File of the certificate to be made.
        path: PathBuf,
        /// Why not.
        source: AuthorityError,
    },
}

impl Pki {
    /// Loads what is in `dir` and issues what is missing, changed or near its end.
    pub fn load_or_create(dir: &Path, names: &ServingNames, now: OffsetDateTime) -> Result<Self, PkiError> {
        private_dir(dir)?;
        let authority = authority_in(dir, &CLUSTER, now)?;
        let front_proxy_authority = authority_in(dir, &FRONT_PROXY, now)?;
        let leaf =
            |file: &str, subject: CertificateSubject, usage| leaf_in(&authority, dir.join(file), &subject, usage, now);
        let masters = |user: &str| CertificateSubject {
            common_name: user.into(),
            organization: Some("system:masters".into()),
            ..CertificateSubject::default()
        };
        let serving = leaf("serving.pem", names.subject(), Usage::Server)?;
        let admin = leaf("admin.pem", masters("kubernetes-admin"), Usage::Client)?;
        let agent_client = leaf("kube-apiserver-kubelet-client.pem", masters("system:kube-apiserver"), Usage::Client)?;
        let front_proxy =
            CertificateSubject { common_name: FRONT_PROXY_CLIENT.into(), ..CertificateSubject::default() };
        let path = dir.join("front-proxy-client.pem");
        let front_proxy_client = leaf_in(&front_proxy_authority, path, &front_proxy, Usage::Client, now)?;
        let token_key = token_key_in(dir.join("sa.key"))?;
        Ok(Self { serving, admin, agent_client, authority, front_proxy_authority, front_proxy_client, token_key })
    }
}

fn token_key_in(path: PathBuf) -> Result<TokenKey, PkiError> {
    let failed = |source| PkiError::TokenKey { path: path.clone(), source };
    if let Some(text) = read_private(&path)? {
        return TokenKey::load(&text).map_err(failed);
    }
    let (key, text) = TokenKey::create().map_err(failed)?;
    write_private(&path, &text)?;
    Ok(key)
}

fn authority_in(dir: &Path, files: &AuthorityFiles, now: OffsetDateTime) -> Result<Authority, PkiError> {
    let path = |extension: &str| dir.join(format!("{}.{extension}", files.stem));
    let (certificate_path, key_path) = (path("crt"), path("key"));
    let (certificate, key) = (read_private(&certificate_path)?, read_private(&key_path)?);
    let replaced_at = files.replaced_before.map(|before| now.saturating_add(authority::signed(before)));
    if let (Some(text), Some(_), Some(at)) = (&certificate, &key, replaced_at)
        && authority::ends_before(text, at)
    {
        match replaced(files, (&certificate_path, &key_path), now) {
            Ok(authority) => return Ok(authority),
            // The old one is good for a while, and this is tried again twice a day.
            Err(error) if certificate_path.exists() => {
                tracing::error!(error = &error as &dyn std::error::Error, "cannot replace an authority near its end");
            }
            Err(error) => return Err(error),
        }
    }
    match (certificate, key) {
        (Some(certificate), Some(key)) => Authority::load(&certificate, &key).map_err(|source| PkiError::Corrupt {
            path: if matches!(source, AuthorityError::Certificate(_)) { certificate_path } else { key_path },
            consequence: files.consequence,
            source,
        }),
        (Some(_), None) => Err(PkiError::Half { present: certificate_path, missing: key_path }),
        // The key is written first: without a certificate it never signed anything.
        (None, _) => {
            let (authority, key) = Authority::create_named(files.common_name, now)
                .map_err(|source| PkiError::Issue { path: certificate_path.clone(), source })?;
            write_private(&key_path, &key)?;
            write_private(&certificate_path, authority.certificate_pem())?;
            Ok(authority)
        }
    }
}

/// Another authority in the place of one. Both of its files are on disk before the old ones are touched, and the old
/// certificate goes before its key: without a certificate, an authority is made anew.
fn replaced(
    files: &AuthorityFiles,
    (certificate_path, key_path): (&Path, &Path),
    now: OffsetDateTime,
) -> Result<Authority, PkiError> {
    let (authority, key) = Authority::create_named(files.common_name, now)
        .map_err(|source| PkiError::Issue { path: certificate_path.to_owned(), source })?;
    let next = |path: &Path| path.with_extension(format!("{}.next", path.extension().unwrap_or_default().display()));
    write_private(&next(key_path), &key)?;
    write_private(&next(certificate_path), authority.certificate_pem())?;
    remove(certificate_path)?;
    rename(&next(key_path), key_path)?;
    rename(&next(certificate_path), certificate_path)?;
    Ok(authority)
}

/// The certificate in `path` if it still says what `subject` wants, for long enough and by this authority; a new one
/// else.
fn leaf_in(
    authority: &Authority,
    path: PathBuf,
    subject: &CertificateSubject,
    usage: Usage,
    now: OffsetDateTime,
) -> Result<Issued, PkiError> {
    if let Some(text) = read_private(&path)? {
        let issued = Issued::parse(&text).map_err(|source| PkiError::Corrupt {
            path: path.clone(),
            consequence: "nothing else depends on it",
            source,
        })?;
        if serving::still_good(
            &issued,
            authority.certificate(),
            subject,
            now.saturating_add(authority::signed(RENEW_BEFORE)),
        ) {
            return Ok(issued);
        }
    }
    let issued = authority
        .issue(subject, usage, LEAF_LIFETIME, now)
        .map_err(|source| PkiError::Issue { path: path.clone(), source })?;
    write_private(&path, &format!("{}{}", issued.certificate_pem, issued.key_pem))?;
    Ok(issued)
}

impl Issued {
    /// Reads a certificate followed by its key.
    fn parse(text: &str) -> Result<Self, AuthorityError> {
        let blocks = pem::parse_many(text).map_err(|e| AuthorityError::Certificate(e.to_string()))?;
        let [certificate, key] = blocks.as_slice() else {
            return Err(AuthorityError::Certificate(format!("{} PEM blocks where two belong", blocks.len())));
        };
        let (_, x509) = x509_parser::parse_x509_certificate(certificate.contents())
            .map_err(|e| AuthorityError::Certificate(e.to_string()))?;
        let pair = rcgen::KeyPair::try_from(key.contents()).map_err(AuthorityError::Key)?;
        if x509.public_key().subject_public_key.data.as_ref() != rcgen::PublicKeyData::der_bytes(&pair) {
            return Err(AuthorityError::Mismatch);
        }
        let lines = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
        let text = |block| pem::encode_config(block, lines);
        Ok(Self { certificate_pem: text(certificate), key_pem: text(key) })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn names(extra: &str) -> ServingNames {
        ServingNames { dns_names: vec!["kubernetes".into()], addresses: vec![extra.parse().unwrap()] }
    }

    #[test]
    fn a_second_start_keeps_every_certificate() {
        let dir = tempfile::tempdir().unwrap();
        let now = OffsetDateTime::now_utc();
        let first = Pki::load_or_create(dir.path(), &names("127.0.0.1"), now).unwrap();
        let second = Pki::load_or_create(dir.path(), &names("127.0.0.1"), now).unwrap();
        assert_eq!(first.authority.hash(), second.authority.hash());
        assert_eq!(parsed(&first.serving), parsed(&second.serving));
        assert_eq!(parsed(&first.admin), parsed(&second.admin));
        assert_eq!(first.token_key.public_jwk(), second.token_key.public_jwk());
    }

    #[test]
    fn the_front_proxy_has_an_authority_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let now = OffsetDateTime::now_utc();
        let first = Pki::load_or_create(dir.path(), &names("127.0.0.1"), now).unwrap();
        let second = Pki::load_or_create(dir.path(), &names("127.0.0.1"), now).unwrap();
        assert_eq!(parsed(&first.front_proxy_client), parsed(&second.front_proxy_client));
        assert_eq!(first.front_proxy_authority.hash(), second.front_proxy_authority.hash());
        let shown = parsed(&first.front_proxy_client);
        let (_, shown) = x509_parser::parse_x509_certificate(&shown).unwrap();
        assert_eq!(shown.subject().iter_common_name().next().unwrap().as_str().unwrap(), FRONT_PROXY_CLIENT);
        let signed_by = |authority: &Authority| {
            let (_, authority) = x509_parser::parse_x509_certificate(authority.certificate()).unwrap();
            shown.verify_signature(Some(authority.public_key())).is_ok()
        };
        assert!(signed_by(&first.front_proxy_authority));
        assert!(!signed_by(&first.authority), "the cluster's authority signs for users: none may be the front proxy");
    }

    #[test]
    fn the_authority_of_the_front_proxy_is_replaced_a_year_before_its_end_and_that_of_the_cluster_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let now = OffsetDateTime::now_utc();
        let load = |years: f64| {
            let at = now + time::Duration::seconds_f64(years * 365.0 * 24.0 * 3600.0);
            Pki::load_or_create(dir.path(), &names("127.0.0.1"), at).unwrap()
        };
        let first = load(0.0);
        assert_eq!(load(8.9).front_proxy_authority.hash(), first.front_proxy_authority.hash());
        let second = load(9.1);
        assert_ne!(second.front_proxy_authority.hash(), first.front_proxy_authority.hash());
        assert_eq!(second.authority.hash(), first.authority.hash());
        assert_eq!(load(9.2).front_proxy_authority.hash(), second.front_proxy_authority.hash(), "it is kept");
    }

    #[test]
    fn other_addresses_reissue_only_the_serving_certificate() {
        let dir = tempfile::tempdir().unwrap();
        let now = OffsetDateTime::now_utc();
        let first = Pki::load_or_create(dir.path(), &names("127.0.0.1"), now).unwrap();
        let second = Pki::load_or_create(dir.path(), &names("10.0.0.1"), now).unwrap();
        assert_eq!(first.authority.hash(), second.authority.hash());
        assert_ne!(parsed(&first.serving), parsed(&second.serving));
        assert_eq!(parsed(&first.admin), parsed(&second.admin));
    }

    #[test]
    fn a_certificate_near_its_end_is_reissued() {
        let dir = tempfile::tempdir().unwrap();
        let now = OffsetDateTime::now_utc();
        let first = Pki::load_or_create(dir.path(), &names("127.0.0.1"), now).unwrap();
        let later = now + Duration::from_secs(310 * 24 * 3600);
        let second = Pki::load_or_create(dir.path(), &names("127.0.0.1"), later).unwrap();
        assert_ne!(parsed(&first.serving), parsed(&second.serving));
        assert_eq!(first.authority.hash(), second.authority.hash());
    }

    #[test]
    fn a_corrupt_or_missing_half_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let now = OffsetDateTime::now_utc();
        Pki::load_or_create(dir.path(), &names("127.0.0.1"), now).unwrap();
        let load = || Pki::load_or_create(dir.path(), &names("127.0.0.1"), now).map(|_| ()).unwrap_err().to_string();

        files::write_private(&dir.path().join("admin.pem"), "not a certificate").unwrap();
        assert!(load().contains("admin.pem"), "{}", load());
        fs::remove_file(dir.path().join("admin.pem")).unwrap();

        fs::remove_file(dir.path().join("ca.key")).unwrap();
        assert!(load().contains("ca.key"), "{}", load());

        files::write_private(&dir.path().join("ca.key"), "nonsense").unwrap();
        assert!(load().contains("ca.key"), "{}", load());
    }

    fn parsed(issued: &Issued) -> Vec<u8> {
        pem::parse(&issued.certificate_pem).unwrap().into_contents()
    }
}
