//! What the store seals and opens with: the keyring of the configuration that counts now.

use std::{collections::BTreeMap, fmt, path::Path, sync::Arc};

use arc_swap::ArcSwap;
use fairlead_store::{
    Snapshot, StoredStates,
    seal::{OpenedValue, PLAIN_LABEL, QuarantinedKeys, Seal, SealError, SealKey, Sealed, UnsealError},
};

use crate::{
    config::{ConfigError, FileConfiguration},
    interned::InternedKeys,
    keyring::{Keyring, Writer},
    kms::Unhealthy,
};

/// Encryption by a configuration that may be replaced.
pub struct Encryption {
    now: ArcSwap<Configured>,
    interned: Arc<InternedKeys>,
}

/// A configuration that can be put in the place of the present one.
pub struct Configured {
    keyring: Keyring,
    hash: String,
}

/// Objects that a configuration could not read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the new configuration lacks what stored objects need: {needed}; write them again before it is taken away")]
pub struct StillNeeded {
    needed: NeededKeys,
}

/// A key service that does not work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("kms provider {name} is not healthy")]
pub struct ServiceFailure {
    /// As it is configured.
    pub name: String,
    /// Why.
    #[source]
    source: Unhealthy,
}

/// Why a configuration cannot take the place of the present one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplaceError {
    /// It could not read what is stored.
    #[error(transparent)]
    StillNeeded(#[from] StillNeeded),
    /// A key service of it does not work.
    #[error(transparent)]
    Service(#[from] ServiceFailure),
}

/// How many objects of which resource need which key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct NeededKeys(BTreeMap<(String, String), u64>);

impl Encryption {
    /// By the configuration in a file.
    pub fn read(path: &Path, reload: bool) -> Result<Self, ConfigError> {
        Self::new(&FileConfiguration::read(path, reload)?)
    }

    /// By a configuration.
    pub fn new(config: &FileConfiguration) -> Result<Self, ConfigError> {
        let interned = Arc::<InternedKeys>::default();
        let now = Configured { keyring: Keyring::new(config, &interned)?, hash: config.hash.clone() };
        Ok(Self { now: ArcSwap::from_pointee(now), interned })
    }

    /// The digest of the file of the configuration that counts.
    pub fn hash(&self) -> String {
        self.now.load().hash.clone()
    }

    /// Makes a configuration ready for [`Self::replace`].
    pub fn prepare(&self, config: &FileConfiguration) -> Result<Configured, ConfigError> {
        Ok(Configured { keyring: Keyring::new(config, &self.interned)?, hash: config.hash.clone() })
    }

    /// Whether a configuration's key services work, and it can read what is stored.
    ///
    /// One that could not is refused, unlike by kube-apiserver, which fails each read from then on: here objects are in
    /// memory, nobody would notice, and the next start would fail.
    pub fn check(&self, new: &Configured, stored: &StoredStates<'_>) -> Result<(), ReplaceError> {
        health(&new.keyring)?;
        let mut needed = NeededKeys::default();
        for state in stored.states {
            // The states are the same but for what one batch of writes changed.
            needed = needed.max(self.needed(new, state));
        }
        self.needed_aside(new, stored.quarantined, &mut needed);
        if needed.0.is_empty() { Ok(()) } else { Err(StillNeeded { needed }.into()) }
    }

    /// Puts a configuration in the place of the present one, for all writes from now on, or refuses it as
    /// [`Self::check`] does. For a moment in which no write is under way: it could have sealed a value under a key that
    /// the new configuration lacks.
    pub fn replace(&self, new: Configured, stored: &StoredStates<'_>) -> Result<(), ReplaceError> {
        self.check(&new, stored)?;
        self.now.store(Arc::new(new));
        Ok(())
    }

    /// Whether key services are configured.
    pub fn has_services(&self) -> bool {
        self.now.load().keyring.services().next().is_some()
    }

    /// How the key services were when they were asked last.
    pub fn health(&self) -> Result<(), ServiceFailure> {
        health(&self.now.load().keyring)
    }

    fn needed(&self, new: &Configured, stored: &Snapshot) -> NeededKeys {
        let mut needed = NeededKeys::default();
        for (resource, _) in stored.resources() {
            let mut by_key: BTreeMap<SealKey, u64> = BTreeMap::new();
            for (_, object) in stored.list(resource, "", None) {
                let count = by_key.entry(object.seal_key()).or_default();
                *count = count.saturating_add(1);
            }
            for (key, count) in by_key {
                let label = self.interned.label(key).unwrap_or_else(|| PLAIN_LABEL.to_owned());
                if !new.keyring.reads(resource, key, &label) {
                    needed.add(resource, &label, count);
                }
            }
        }
        needed
    }

    /// What is kept aside comes back with its key, or with `identity`: what is configured is not taken away by mistake.
    /// A start does without.
    fn needed_aside(&self, new: &Configured, quarantined: &QuarantinedKeys, needed: &mut NeededKeys) {
        let now = self.now.load();
        for (resource, label, count) in quarantined.iter() {
            let mut keys = now.keyring.with_label(resource, label).map(|known| known.key);
            let lacks_key = keys.any(|key| !new.keyring.reads(resource, key, label));
            let had_service = now.keyring.service(resource, label).is_some();
            let was_read = label == PLAIN_LABEL && now.keyring.reads_plain(resource);
            let lacks_identity = was_read && !new.keyring.reads_plain(resource);
            if lacks_key || lacks_identity || had_service && new.keyring.service(resource, label).is_none() {
                needed.add(resource, label, count);
            }
        }
    }
}

impl NeededKeys {
    fn add(&mut self, resource: &str, label: &str, count: u64) {
        let known = self.0.entry((resource.to_owned(), label.to_owned())).or_default();
        *known = known.saturating_add(count);
    }

    /// What either needs.
    fn max(mut self, other: Self) -> Self {
        for (what, count) in other.0 {
            let known = self.0.entry(what).or_default();
            *known = count.max(*known);
        }
        self
    }
}

fn health(keyring: &Keyring) -> Result<(), ServiceFailure> {
    keyring
        .services()
        .try_for_each(|service| service.health().map_err(|(name, source)| ServiceFailure { name, source }))
}

impl fmt::Display for NeededKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, ((resource, label), count)) in self.0.iter().enumerate() {
            let comma = if at == 0 { "" } else { ", " };
            write!(f, "{comma}{label} for {count} of {resource}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Encryption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Encryption").field("hash", &self.hash()).finish_non_exhaustive()
    }
}

impl Seal for Encryption {
    fn key(&self, resource: &str) -> SealKey {
        self.now.load().keyring.writer(resource).map_or(SealKey::PLAIN, |writer| writer.key())
    }

    fn reads_plain(&self, resource: &str) -> bool {
        self.now.load().keyring.reads_plain(resource)
    }

    fn seal(&self, resource: &str, associated: &[u8], value: &[u8]) -> Result<Option<Sealed>, SealError> {
        let now = self.now.load();
        let Some(writer) = now.keyring.writer(resource) else { return Ok(None) };
        let failed = |source| SealError { resource: resource.to_owned(), source };
        match writer {
            Writer::Key(writer) => {
                let body = writer.cipher.seal(associated, value).map_err(|error| failed(Arc::new(error)))?;
                Ok(Some(Sealed { key: writer.key, label: writer.label.clone(), body }))
            }
            Writer::Kms(service) => {
                let sealed = service.seal(associated, value).map_err(|error| failed(Arc::new(error)))?;
                Ok(Some(sealed))
            }
        }
    }

    fn open(&self, resource: &str, associated: &[u8], label: &str, body: &[u8]) -> Result<OpenedValue, UnsealError> {
        let now = self.now.load_full();
        if let Some(service) = now.keyring.service(resource, label) {
            return service.open(associated, body);
        }
        let mut has_key = false;
        for key in now.keyring.with_label(resource, label) {
            if let Some(value) = key.cipher.open(associated, body) {
                return Ok(OpenedValue { key: key.key, value });
            }
            has_key = true;
        }
        let label = label.to_owned();
        Err(if has_key { UnsealError::DoesNotOpen { label } } else { UnsealError::NoKey { label } })
    }
}
