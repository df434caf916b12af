//! Sealed values of the file that cannot be opened, since a key is missing or is another one of the same name.
//!
//! kube-apiserver fails each read of such an object, and each list with it. Here all objects are read by the start, and
//! controllers that did not see some would delete what belongs to them. So the start fails, changes nothing of them and
//! says which key it lacks: with the key, all are back. Who wants to go on without them says so
//! (`--quarantine-damaged-objects`); they are kept aside then (`quarantine.rs`), sealed as they are, and come back with
//! the key.
//!
//! One value alone that does not open under a key that opens others was damaged or moved. It makes nothing else
//! unavailable: it is kept aside as a damaged row is.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use crate::seal::{SealKey, UnsealError};

/// What cannot be read for want of keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SealDamage {
    /// By resource and reason.
    failed: BTreeMap<(Box<str>, Reason), u64>,
    /// Keys that opened something.
    opened: BTreeSet<SealKey>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Reason {
    NoKey { label: Box<str> },
    WrongKey { label: Box<str>, key: SealKey },
    Service { label: Box<str>, message: Box<str> },
    Plain,
}

impl SealDamage {
    /// A value was opened under this key.
    pub fn opened(&mut self, key: SealKey) {
        self.opened.insert(key);
    }

    /// The value of the object with this key cannot be opened.
    pub fn note(&mut self, key: &str, error: &UnsealError) {
        let reason = match error {
            UnsealError::NoKey { label } => Reason::NoKey { label: label.as_str().into() },
            UnsealError::DoesNotOpen { label, key } => Reason::WrongKey { label: label.as_str().into(), key: *key },
            UnsealError::Service { label, source } => {
                Reason::Service { label: label.as_str().into(), message: source.to_string().into() }
            }
            UnsealError::Plain => Reason::Plain,
            // Whatever the keys are.
            UnsealError::Cut => return,
        };
        let resource = key.split_once('/').map_or(key, |(resource, _)| resource);
        let count = self.failed.entry((resource.into(), reason)).or_default();
        *count = count.saturating_add(1);
    }

    /// What is left once those are taken out that are damaged themselves.
    pub fn of_keys(mut self) -> Self {
        let opened = std::mem::take(&mut self.opened);
        self.failed.retain(|(_, reason), _| match reason {
            Reason::WrongKey { key, .. } => !opened.contains(key),
            Reason::NoKey { .. } | Reason::Service { .. } | Reason::Plain => true,
        });
        self
    }

    /// Nothing is missing.
    pub fn is_empty(&self) -> bool {
        self.failed.is_empty()
    }
}

/// `3 of secrets (no key aesgcm:v1:key1 is configured), 1 of configmaps (…)`
impl fmt::Display for SealDamage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, ((resource, reason), count)) in self.failed.iter().enumerate() {
            let comma = if at == 0 { "" } else { ", " };
            write!(f, "{comma}{count} of {resource} (")?;
            match reason {
                Reason::NoKey { label } => write!(f, "no key {label} is configured)")?,
                Reason::WrongKey { label, .. } => write!(f, "the key {label} is not the one that encrypted them)")?,
                Reason::Service { label, message } => write!(f, "the service with the key {label} failed: {message})")?,
                Reason::Plain => f.write_str("stored without encryption, and no provider identity is configured)")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_that_does_not_open_counts_against_its_key_unless_that_opened_others() {
        let wrong = |number| UnsealError::DoesNotOpen { label: "aesgcm:v1:key1".into(), key: SealKey::new(number) };
        let mut damage = SealDamage::default();
        damage.note("secrets/a/b", &wrong(1));
        damage.note("secrets/a/c", &UnsealError::Cut);
        let all = damage.clone().of_keys();
        assert_eq!(all.to_string(), "1 of secrets (the key aesgcm:v1:key1 is not the one that encrypted them)");
        damage.opened(SealKey::new(2));
        assert!(!damage.clone().of_keys().is_empty());
        damage.opened(SealKey::new(1));
        assert!(damage.clone().of_keys().is_empty());
        damage.note("configmaps/a/b", &UnsealError::NoKey { label: "aescbc:v1:old".into() });
        damage.note("configmaps/a/c", &UnsealError::NoKey { label: "aescbc:v1:old".into() });
        assert_eq!(damage.of_keys().to_string(), "2 of configmaps (no key aescbc:v1:old is configured)");
    }
}
