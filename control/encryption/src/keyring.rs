//! Which providers a resource has, and which of their keys seals and opens a value.
//!
//! As in Kubernetes: the entry of the resource itself counts before that of its group (`*.apps`), and that before
//! `*.*`; a resource in two entries has the providers of both, in their order; one without an entry is not encrypted.
//! The first key of the first provider writes. All keys with the label of a value are tried to read it.

use std::{collections::HashMap, sync::Arc, time::Duration};

use fairlead_store::seal::SealKey;

use crate::{
    cipher::{AesCbc, Cipher, DerivedAesGcm, Secretbox},
    config::{ConfigError, FileConfiguration},
    entries::{Key, ProviderConfiguration},
    interned::InternedKeys,
    kms::{Endpoint, KmsProvider},
    resource::{ANY, GroupResource, UNSERVED},
    validation::decode,
};

/// Providers by resource.
#[derive(Default)]
pub struct Keyring {
    /// `secrets`, `deployments.apps`
    exact: HashMap<String, Vec<Provider>>,
    /// By group; the core group is empty.
    groups: HashMap<String, Vec<Provider>>,
    any: Option<Vec<Provider>>,
}

/// Seals and opens the values of some resources.
#[derive(Clone)]
pub enum Provider {
    /// Leaves values as they are.
    Identity,
    /// Has keys of its own.
    Keys(Vec<NamedKey>),
    /// A key service.
    Kms(Arc<KmsProvider>),
}

/// What seals values.
pub enum Writer<'a> {
    Key(&'a NamedKey),
    Kms(&'a KmsProvider),
}

impl Writer<'_> {
    pub fn key(&self) -> SealKey {
        match self {
            Self::Key(key) => key.key,
            Self::Kms(provider) => provider.key(),
        }
    }
}

/// A key as values name it.
#[derive(Clone)]
pub struct NamedKey {
    pub key: SealKey,
    /// `aesgcm:v1:key1`
    pub label: Arc<str>,
    pub cipher: Arc<dyn Cipher>,
}

impl Keyring {
    /// Of a valid configuration.
    pub fn new(config: &FileConfiguration, interned: &Arc<InternedKeys>) -> Result<Self, ConfigError> {
        let mut keyring = Self::default();
        for entry in &config.resources {
            let providers: Vec<Provider> =
                entry.providers.iter().map(|provider| Provider::new(provider, interned)).collect::<Result<_, _>>()?;
            for name in &entry.resources {
                let resource = GroupResource::parse(name);
                // As in Kubernetes, `*.apps` hides another `*.apps`, too.
                let masked_by = match (keyring.groups.contains_key(&resource.group), &keyring.any) {
                    (true, _) => Some(resource.any_of_group()),
                    (false, Some(_)) => Some(GroupResource::any()),
                    (false, None) => None,
                };
                if let Some(rule) = masked_by {
                    return Err(ConfigError::Masked { resource: resource.to_string(), rule: rule.to_string() });
                }
                match (resource.group.as_str(), resource.resource.as_str()) {
                    (ANY, ANY) => keyring.any.get_or_insert_default().extend(providers.iter().cloned()),
                    (group, ANY) => {
                        keyring.groups.entry(group.to_owned()).or_default().extend(providers.iter().cloned());
                    }
                    _ => {
                        keyring.exact.entry(resource.to_string()).or_default().extend(providers.iter().cloned());
                    }
                }
            }
        }
        Ok(keyring)
    }

    /// The providers of a resource; nothing where it is not encrypted.
    fn of(&self, resource: &str) -> Option<&[Provider]> {
        if UNSERVED.contains(&resource) {
            return None;
        }
        let group = resource.split_once('.').map_or("", |(_, group)| group);
        let found = self.exact.get(resource).or_else(|| self.groups.get(group)).or(self.any.as_ref());
        found.map(Vec::as_slice)
    }

    /// The key that seals values of a resource; nothing where they are stored as they are.
    pub fn writer(&self, resource: &str) -> Option<Writer<'_>> {
        match self.of(resource)?.first()? {
            Provider::Identity => None,
            Provider::Keys(keys) => keys.first().map(Writer::Key),
            Provider::Kms(provider) => Some(Writer::Kms(provider)),
        }
    }

    /// The key service that may have sealed a value with this label.
    pub fn service(&self, resource: &str, label: &str) -> Option<&KmsProvider> {
        self.of(resource)?.iter().find_map(|provider| match provider {
            Provider::Kms(provider) if provider.label() == label => Some(&**provider),
            Provider::Identity | Provider::Keys(_) | Provider::Kms(_) => None,
        })
    }

    /// All key services; one that several resources have is there several times.
    pub fn services(&self) -> impl Iterator<Item = &KmsProvider> {
        let all = self.exact.values().chain(self.groups.values()).chain(&self.any).flatten();
        all.filter_map(|provider| match provider {
            Provider::Kms(provider) => Some(&**provider),
            Provider::Identity | Provider::Keys(_) => None,
        })
    }

    /// The keys that may have sealed a value with this label.
    pub fn with_label<'a>(&'a self, resource: &str, label: &'a str) -> impl Iterator<Item = &'a NamedKey> {
        self.keys(resource).filter(move |key| &*key.label == label)
    }

    /// Whether values of a resource may stand as they are.
    pub fn reads_plain(&self, resource: &str) -> bool {
        let Some(providers) = self.of(resource) else { return true };
        providers.iter().any(|provider| matches!(provider, Provider::Identity))
    }

    /// Whether a value of a resource that was sealed under a key can be opened. A key service is taken to know all keys
    /// that it had.
    pub fn reads(&self, resource: &str, key: SealKey, label: &str) -> bool {
        match key {
            SealKey::PLAIN => self.reads_plain(resource),
            key => self.keys(resource).any(|known| known.key == key) || self.service(resource, label).is_some(),
        }
    }

    fn keys(&self, resource: &str) -> impl Iterator<Item = &NamedKey> {
        self.of(resource).unwrap_or_default().iter().flat_map(|provider| match provider {
            Provider::Identity | Provider::Kms(_) => &[][..],
            Provider::Keys(keys) => keys,
        })
    }
}

impl Provider {
    fn new(config: &ProviderConfiguration, interned: &Arc<InternedKeys>) -> Result<Self, ConfigError> {
        let keys = |keys: &[Key], provider: &str, make: fn(&[u8]) -> Option<Arc<dyn Cipher>>| {
            let named = keys.iter().filter_map(|key| {
                let secret = decode(key.secret.as_ref()?.expose())?;
                let label: Arc<str> = format!("{provider}:v1:{}", key.name).into();
                Some(NamedKey { key: interned.key(&label, &secret), cipher: make(&secret)?, label })
            });
            Ok(Self::Keys(named.collect()))
        };
        match config {
            ProviderConfiguration { aesgcm: Some(given), .. } => {
                keys(given, "aesgcm", |secret| Some(Arc::new(DerivedAesGcm::new(secret))))
            }
            ProviderConfiguration { aescbc: Some(given), .. } => {
                keys(given, "aescbc", |secret| Some(Arc::new(AesCbc::new(secret))))
            }
            ProviderConfiguration { secretbox: Some(given), .. } => {
                keys(given, "secretbox", |secret| Some(Arc::new(Secretbox::new(secret.first_chunk()?))))
            }
            ProviderConfiguration { kms: Some(kms), .. } if kms.api_version == "v1" => Err(ConfigError::KmsV1),
            ProviderConfiguration { kms: Some(kms), .. } => {
                let timeout = Duration::from_nanos(u64::try_from(kms.timeout_ns).unwrap_or_default());
                let endpoint = Endpoint::parse(&kms.endpoint, timeout);
                Ok(Self::Kms(KmsProvider::start(&kms.name, endpoint, interned.clone())))
            }
            ProviderConfiguration { .. } => Ok(Self::Identity),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each entry: its resources, and the names of keys of `aesgcm`; `identity` is that provider.
    fn keyring(entries: &[(&[&str], &[&str])]) -> Result<Keyring, ConfigError> {
        let provider = |name: &&str| match *name {
            "identity" => "{\"identity\": {}}".to_owned(),
            name => {
                let secret = "c2VjcmV0IGlzIHNlY3VyZQ==";
                format!("{{\"aesgcm\": {{\"keys\": [{{\"name\": \"{name}\", \"secret\": \"{secret}\"}}]}}}}")
            }
        };
        let entries: Vec<String> = entries
            .iter()
            .map(|(resources, keys)| {
                let keys: Vec<String> = keys.iter().map(provider).collect();
                format!("{{\"resources\": {resources:?}, \"providers\": [{}]}}", keys.join(","))
            })
            .collect();
        let head = "\"apiVersion\": \"apiserver.config.k8s.io/v1\", \"kind\": \"EncryptionConfiguration\"";
        let text = format!("{{{head}, \"resources\": [{}]}}", entries.join(","));
        Keyring::new(&FileConfiguration::parse(text.as_bytes(), false)?, &Arc::default())
    }

    fn writer<'a>(keyring: &'a Keyring, resource: &str) -> Option<&'a str> {
        keyring.writer(resource).map(|writer| match writer {
            Writer::Key(key) => &*key.label,
            Writer::Kms(provider) => provider.label(),
        })
    }

    #[test]
    fn the_narrowest_entry_counts_and_the_first_key_writes() {
        let keyring = keyring(&[
            (&["events"], &["identity"]),
            (&["secrets", "configmaps"], &["a", "b", "identity"]),
            (&["deployments.apps"], &["d"]),
            (&["*.apps"], &["c"]),
            (&["*."], &["core"]),
            (&["*.*"], &["all"]),
        ])
        .unwrap();
        for (resource, key) in [
            ("events", None),
            ("secrets", Some("aesgcm:v1:a")),
            ("deployments.apps", Some("aesgcm:v1:d")),
            ("replicasets.apps", Some("aesgcm:v1:c")),
            ("pods", Some("aesgcm:v1:core")),
            ("pandas.awesome.bears.example", Some("aesgcm:v1:all")),
        ] {
            assert_eq!(writer(&keyring, resource), key, "{resource}");
        }
        assert_eq!(writer(&keyring, UNSERVED[0]), None, "nobody could write it again");
        assert_eq!(keyring.with_label("secrets", "aesgcm:v1:b").count(), 1);
        assert_eq!(keyring.with_label("pods", "aesgcm:v1:b").count(), 0);
        assert!(keyring.reads_plain("secrets") && keyring.reads_plain("events") && !keyring.reads_plain("pods"));
    }

    #[test]
    fn what_has_no_entry_is_not_encrypted() {
        let keyring = keyring(&[(&["secrets"], &["a"])]).unwrap();
        assert_eq!(writer(&keyring, "pods"), None);
        assert!(keyring.reads_plain("pods") && keyring.reads("pods", SealKey::PLAIN, ""));
        assert!(!keyring.reads("pods", keyring.writer("secrets").unwrap().key(), "aesgcm:v1:a"));
    }

    #[test]
    fn a_resource_in_two_entries_has_the_providers_of_both() {
        let keyring = keyring(&[(&["secrets"], &["a"]), (&["secrets"], &["b", "identity"])]).unwrap();
        assert_eq!(writer(&keyring, "secrets"), Some("aesgcm:v1:a"));
        assert_eq!(keyring.with_label("secrets", "aesgcm:v1:b").count(), 1);
        assert!(keyring.reads_plain("secrets"));
    }

    #[test]
    fn a_later_entry_that_is_masked_is_refused() {
        for (entries, error) in [
            (
                &[(&["*."][..], &["a"][..]), (&["secrets"], &["b"])][..],
                "resource \"secrets\" is masked by earlier rule \"*.\"",
            ),
            (&[(&["*.*"], &["a"]), (&["*.apps"], &["b"])], "resource \"*.apps\" is masked by earlier rule \"*.*\""),
            (
                &[(&["*.apps"], &["a"]), (&["x.apps"], &["b"])],
                "resource \"x.apps\" is masked by earlier rule \"*.apps\"",
            ),
        ] {
            let refused = keyring(entries).err().expect(error).to_string();
            assert_eq!(refused, format!("error while building transformers: {error}"));
        }
    }
}
