//! One key service: the seed that seals now, the seeds that open, and how the service is.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Weak, mpsc},
    time::{Duration, Instant},
};

use fairlead_store::seal::{OpenedValue, SealKey, Sealed, UnsealError};
use parking_lot::Mutex;
use prost::Message;
use sha2::{Digest, Sha256};
use zeroize::{Zeroize, Zeroizing};

use super::protocol::{
    CallError, DecryptRequest, DecryptResponse, EncryptRequest, EncryptResponse, EncryptedObject, Endpoint,
    StatusRequest, StatusResponse,
};
use crate::{
    cipher::{Cipher, CipherError, DerivedAesGcm, random},
    interned::InternedKeys,
};

/// Time between two probes of a service that is well, and of one that is not. Source: `kmsv2PluginHealthz…Interval`.
const WELL: Duration = Duration::from_secs(60);
const UNWELL: Duration = Duration::from_secs(10);
/// So long after the last good probe values may still be sealed. Source: `kmsv2PluginWriteDEKSourceMaxTTL`.
const SEALS_FOR: Duration = Duration::from_secs(180);
/// A service that did not answer is not asked again to open anything for so long, and one that refused a seed not for
/// that seed: a start with ten thousand values fails in time.
const REST: Duration = Duration::from_secs(5);
/// Source: `KeyIDMaxSize`, `encryptedDEKSourceMaxSize`, `annotationsMaxSize`.
const LONGEST_KEY_ID: usize = 1024;
const LONGEST_SEED: usize = 1024;
const LONGEST_ANNOTATIONS: usize = 32 << 10;
const SEED: usize = 32;

/// Why a service is not healthy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unhealthy {
    /// It was not asked yet.
    #[error("it was not asked yet")]
    NotAsked,
    /// A call failed.
    #[error(transparent)]
    Call(#[from] CallError),
    /// It says so.
    #[error("got unexpected healthz status: {0}")]
    Status(String),
    /// It speaks another version.
    #[error("expected KMSv2 API version v2, got {0}")]
    Version(String),
    /// Status and encryption name different keys, as for a moment while the key changes.
    #[error("the key id of the status is not that of the encryption")]
    KeyIds,
    /// An answer breaks the rules of the protocol.
    #[error("{0}")]
    Answer(&'static str),
    /// No random bytes.
    #[error(transparent)]
    Cipher(#[from] CipherError),
    /// Nothing may be sealed any more.
    #[error("the last good answer of the key service is too old")]
    Expired,
}

/// What seals.
struct WriteSeed {
    cipher: Arc<dyn Cipher>,
    key: SealKey,
    /// What values say of it: everything but the data.
    object: EncryptedObject,
    /// Of that.
    digest: SeedDigest,
}

struct State {
    seed: Option<Arc<WriteSeed>>,
    expires: Instant,
    health: Result<(), Unhealthy>,
}

/// Of what values say of their seed.
type SeedDigest = [u8; 32];

/// Seeds that open.
#[derive(Default)]
struct ReadSeeds {
    known: HashMap<SeedDigest, Arc<dyn Cipher>>,
    refused: HashMap<SeedDigest, Failure>,
    /// The service does not answer.
    silent: Option<Failure>,
}

/// A call that failed, and when.
struct Failure {
    at: Instant,
    error: CallError,
}

/// A key service.
pub struct KmsProvider {
    name: String,
    label: Arc<str>,
    endpoint: Endpoint,
    interned: Arc<InternedKeys>,
    state: Mutex<State>,
    seeds: Mutex<ReadSeeds>,
    /// Ends the probes when it is dropped.
    _probing: mpsc::Sender<()>,
}

impl KmsProvider {
    /// Asks the service once, and from then on in a thread of its own, until it is dropped.
    pub fn start(name: &str, endpoint: Endpoint, interned: Arc<InternedKeys>) -> Arc<Self> {
        let (probing, stop) = mpsc::channel();
        let state = State { seed: None, expires: Instant::now(), health: Err(Unhealthy::NotAsked) };
        let provider = Arc::new(Self {
            name: name.to_owned(),
            label: format!("kms:v2:{name}").into(),
            endpoint,
            interned,
            state: Mutex::new(state),
            seeds: Mutex::default(),
            _probing: probing,
        });
        provider.probe();
        let weak = Arc::downgrade(&provider);
        let probes = std::thread::Builder::new().name("kms-probe".into()).spawn(move || probe_repeatedly(&weak, &stop));
        if let Err(error) = probes {
            tracing::error!(%error, name, "a key service cannot be probed; its writes are refused after three minutes");
        }
        provider
    }

    /// `kms:v2:NAME`
    pub fn label(&self) -> &str {
        &self.label
    }

    /// How the service was when it was asked last.
    pub fn health(&self) -> Result<(), (String, Unhealthy)> {
        self.state.lock().health.clone().map_err(|why| (self.name.clone(), why))
    }

    /// The key of what is sealed next. Without a seed it is one that nothing was ever sealed under.
    pub fn key(&self) -> SealKey {
        let state = self.state.lock();
        state.seed.as_ref().map_or_else(|| self.interned.key(&self.label, b""), |seed| seed.key)
    }

    /// Seals a value. Asks nobody.
    pub fn seal(&self, associated: &[u8], value: &[u8]) -> Result<Sealed, Unhealthy> {
        let seed = {
            let state = self.state.lock();
            match &state.seed {
                Some(_) if Instant::now() > state.expires => return Err(Unhealthy::Expired),
                Some(seed) => seed.clone(),
                None => return Err(state.health.clone().err().unwrap_or(Unhealthy::NotAsked)),
            }
        };
        let mut object = seed.object.clone();
        object.encrypted_data = seed.cipher.seal(&bound_to(associated, &seed.digest), value)?;
        Ok(Sealed { key: seed.key, label: self.label.clone(), body: object.encode_to_vec() })
    }

    /// Opens a value. Asks the service for a seed that is not known.
    pub fn open(&self, associated: &[u8], body: &[u8]) -> Result<OpenedValue, UnsealError> {
        let object = EncryptedObject::decode(body).map_err(|_| UnsealError::Malformed)?;
        let digest = digest(&object);
        let cipher = self
            .reader(&object, digest)
            .map_err(|error| UnsealError::Service { label: self.label.to_string(), source: Arc::new(error) })?;
        let opened = cipher.open(&bound_to(associated, &digest), &object.encrypted_data);
        let value = opened.ok_or_else(|| UnsealError::DoesNotOpen { label: self.label.to_string() })?;
        // What the value says of its key is true, now that it opened.
        Ok(OpenedValue { key: self.interned.key(&self.label, object.key_id.as_bytes()), value })
    }

    fn reader(&self, object: &EncryptedObject, digest: SeedDigest) -> Result<Arc<dyn Cipher>, CallError> {
        // Held while the service is asked: others that need the seed wait for the one answer.
        let mut seeds = self.seeds.lock();
        if let Some(cipher) = seeds.known.get(&digest) {
            return Ok(cipher.clone());
        }
        if let Some(failure) = seeds.refused.get(&digest).or(seeds.silent.as_ref())
            && failure.at.elapsed() < REST
        {
            return Err(failure.error.clone());
        }
        let question = DecryptRequest {
            ciphertext: object.encrypted_seed.clone(),
            uid: uid(),
            key_id: object.key_id.clone(),
            annotations: object.annotations.clone(),
        };
        let answered = self.endpoint.call::<_, DecryptResponse>("Decrypt", &question);
        let answered = answered.map(|answer| Zeroizing::new(answer.plaintext));
        let seed = match answered.and_then(|seed| if seed.len() < SEED { Err(CallError::Malformed) } else { Ok(seed) })
        {
            Ok(seed) => seed,
            Err(error) => {
                let failure = Failure { at: Instant::now(), error: error.clone() };
                match error {
                    // It may know others.
                    CallError::Refused { .. } | CallError::Malformed => drop(seeds.refused.insert(digest, failure)),
                    CallError::Connect(_) | CallError::Transport(_) | CallError::Late(_) | CallError::NotMade => {
                        seeds.silent = Some(failure);
                    }
                }
                return Err(error);
            }
        };
        seeds.refused.remove(&digest);
        let cipher: Arc<dyn Cipher> = Arc::new(DerivedAesGcm::new(&seed));
        seeds.known.insert(digest, cipher.clone());
        Ok(cipher)
    }

    /// Asks the service how it is, and makes a new seed where its key has changed.
    pub(super) fn probe(&self) {
        let health = self.check();
        if let Err(error) = &health {
            tracing::warn!(error = error as &dyn std::error::Error, name = self.name, "a key service is not healthy");
        }
        self.state.lock().health = health;
    }

    fn check(&self) -> Result<(), Unhealthy> {
        let asked = Instant::now();
        let status: StatusResponse = self.endpoint.call("Status", &StatusRequest {})?;
        if status.healthz != "ok" {
            return Err(Unhealthy::Status(status.healthz));
        }
        if !matches!(status.version.as_str(), "v2" | "v2beta1") {
            return Err(Unhealthy::Version(status.version));
        }
        check_key_id(&status.key_id)?;
        let expires = asked.checked_add(SEALS_FOR).unwrap_or(asked);
        {
            let mut state = self.state.lock();
            if state.seed.as_ref().is_some_and(|seed| seed.object.key_id == status.key_id) {
                state.expires = expires;
                return Ok(());
            }
        }
        let seed = Arc::new(self.new_seed(&status.key_id)?);
        let mut state = self.state.lock();
        (state.seed, state.expires) = (Some(seed), expires);
        Ok(())
    }

    fn new_seed(&self, key_id: &str) -> Result<WriteSeed, Unhealthy> {
        let seed = Zeroizing::new(random::<SEED>()?);
        let mut question = EncryptRequest { plaintext: seed.to_vec(), uid: uid() };
        let answer = self.endpoint.call::<_, EncryptResponse>("Encrypt", &question);
        question.plaintext.zeroize();
        let EncryptResponse { ciphertext, key_id: encrypted_under, annotations } = answer?;
        check_key_id(&encrypted_under)?;
        if ciphertext.is_empty() || ciphertext.len() > LONGEST_SEED {
            return Err(Unhealthy::Answer("the encrypted seed is empty or longer than 1 kB"));
        }
        let sizes = annotations.iter().map(|(name, value)| name.len().saturating_add(value.len()));
        if sizes.fold(0_usize, usize::saturating_add) > LONGEST_ANNOTATIONS {
            return Err(Unhealthy::Answer("the annotations are longer than 32 kB"));
        }
        if !annotations.keys().all(|name| is_qualified_domain_name(name)) {
            return Err(Unhealthy::Answer("an annotation's name is no fully qualified domain name"));
        }
        // The one before stays until both agree.
        if encrypted_under != key_id {
            return Err(Unhealthy::KeyIds);
        }
        let cipher: Arc<dyn Cipher> = Arc::new(DerivedAesGcm::new(seed.as_slice()));
        let object = EncryptedObject {
            encrypted_data: Vec::new(),
            key_id: encrypted_under,
            encrypted_seed: ciphertext,
            annotations,
        };
        let digest = digest(&object);
        self.seeds.lock().known.insert(digest, cipher.clone());
        Ok(WriteSeed { cipher, key: self.interned.key(&self.label, key_id.as_bytes()), object, digest })
    }
}

impl fmt::Debug for KmsProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("KmsProvider").field(&self.name).finish()
    }
}

fn probe_repeatedly(provider: &Weak<KmsProvider>, stop: &mpsc::Receiver<()>) {
    loop {
        let wait = match provider.upgrade().map(|provider| provider.health().is_ok()) {
            None => return,
            Some(true) => WELL,
            Some(false) => UNWELL,
        };
        match stop.recv_timeout(wait) {
            Err(mpsc::RecvTimeoutError::Timeout) => {}
            Ok(()) | Err(mpsc::RecvTimeoutError::Disconnected) => return,
        }
        let Some(provider) = provider.upgrade() else { return };
        provider.probe();
    }
}

/// A value is bound to what it says of its seed, too. A key id that was exchanged would have an operator believe that
/// the value is under the present key.
fn bound_to(associated: &[u8], digest: &SeedDigest) -> Vec<u8> {
    [digest, associated].concat()
}

/// What tells one seed from others.
fn digest(object: &EncryptedObject) -> SeedDigest {
    let seed = EncryptedObject { encrypted_data: Vec::new(), ..object.clone() };
    Sha256::digest(seed.encode_to_vec()).into()
}

/// Names a call in the service's log.
fn uid() -> String {
    random::<16>().map(hex::encode).unwrap_or_default()
}

fn check_key_id(key_id: &str) -> Result<(), Unhealthy> {
    match key_id.len() {
        0 => Err(Unhealthy::Answer("keyID is empty")),
        1..=LONGEST_KEY_ID => Ok(()),
        _ => Err(Unhealthy::Answer("keyID is longer than 1 kB")),
    }
}

/// `version.encryption.example`. Source: `IsFullyQualifiedDomainName`.
fn is_qualified_domain_name(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    let is_label = |label: &str| {
        let inner = label.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
        (1..=63).contains(&label.len()) && inner && !label.starts_with('-') && !label.ends_with('-')
    };
    name.len() <= 253 && name.contains('.') && name.split('.').all(is_label)
}
