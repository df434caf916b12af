//! Sealed values of the file that cannot be opened, since a key is missing or is another one of the same name, or since
//! a key service is away.
//!
//! kube-apiserver fails each read of such an object, and each list with it. Here all objects are read by the start, and
//! controllers that did not see some would delete what belongs to them. So the start fails, changes nothing of them and
//! says which key it lacks: with the key, all are back. Who wants to go on without them says so
//! (`--quarantine-damaged-objects`); they are kept aside then (`quarantine.rs`), sealed as they are, and come back with
//! the key. What a key service did not decrypt is never kept aside: it is not lost, and the service will be back. Where
//! its key is lost for good, a configuration without the service says so.
//!
//! A row whose checksum is wrong is no matter of keys. It makes nothing else unavailable: it is kept aside as any
//! damaged row is.

use std::{collections::BTreeMap, fmt};

use crate::seal::UnsealError;

/// What cannot be read for want of keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SealDamage {
    /// By resource and reason.
    failed: BTreeMap<(Box<str>, Reason), Failed>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Failed {
    count: u64,
    /// The name of one of them: where there is no other, it is worth a look.
    first: Box<str>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Reason {
    NoKey { label: Box<str> },
    WrongKey { label: Box<str> },
    Service { label: Box<str>, message: Box<str> },
    Malformed,
    Plain,
}

impl SealDamage {
    /// The value of the object with this key cannot be opened.
    pub fn note(&mut self, key: &str, error: &UnsealError) {
        let reason = match error {
            UnsealError::NoKey { label } => Reason::NoKey { label: label.as_str().into() },
            UnsealError::DoesNotOpen { label } => Reason::WrongKey { label: label.as_str().into() },
            UnsealError::Service { label, source } => {
                Reason::Service { label: label.as_str().into(), message: source.to_string().into() }
            }
            UnsealError::Malformed => Reason::Malformed,
            UnsealError::Plain => Reason::Plain,
        };
        let (resource, name) = key.split_once('/').unwrap_or((key, ""));
        let failed = self.failed.entry((resource.into(), reason));
        let failed = failed.or_insert_with(|| Failed { count: 0, first: name.into() });
        failed.count = failed.count.saturating_add(1);
    }

    /// Nothing is missing.
    pub fn is_empty(&self) -> bool {
        self.failed.is_empty()
    }

    /// What key services did not decrypt.
    pub fn of_services(&self) -> Self {
        let of_services = self.failed.iter().filter(|((_, reason), _)| matches!(reason, Reason::Service { .. }));
        Self { failed: of_services.map(|(what, failed)| (what.clone(), failed.clone())).collect() }
    }
}

/// `3 of secrets (no key aesgcm:v1:key1 is configured; a/b is one), 1 of configmaps (…)`
impl fmt::Display for SealDamage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, ((resource, reason), Failed { count, first })) in self.failed.iter().enumerate() {
            let comma = if at == 0 { "" } else { ", " };
            write!(f, "{comma}{count} of {resource} (")?;
            match reason {
                Reason::NoKey { label } => write!(f, "no key {label} is configured")?,
                Reason::WrongKey { label } => write!(f, "the key {label} is not the one that encrypted them")?,
                Reason::Service { label, message } => write!(f, "the service with the key {label} failed: {message}")?,
                Reason::Malformed => f.write_str("they have no encrypted form that is known")?,
                Reason::Plain => f.write_str("stored without encryption, and no provider identity is configured")?,
            }
            write!(f, "; {first} is one)")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn what_cannot_be_opened_is_counted_by_resource_and_reason_and_one_is_named() {
        let mut damage = SealDamage::default();
        assert!(damage.is_empty());
        damage.note("secrets/a/b", &UnsealError::DoesNotOpen { label: "aesgcm:v1:key1".into() });
        damage.note("configmaps/a/b", &UnsealError::NoKey { label: "aescbc:v1:old".into() });
        damage.note("configmaps/a/c", &UnsealError::NoKey { label: "aescbc:v1:old".into() });
        let told = "2 of configmaps (no key aescbc:v1:old is configured; a/b is one), \
                    1 of secrets (the key aesgcm:v1:key1 is not the one that encrypted them; a/b is one)";
        assert_eq!(damage.to_string(), told);
        assert!(damage.of_services().is_empty());
        let source = Arc::new(std::io::Error::other("it is away"));
        damage.note("secrets/a/c", &UnsealError::Service { label: "kms:v2:vault".into(), source });
        let told = "1 of secrets (the service with the key kms:v2:vault failed: it is away; a/c is one)";
        assert_eq!(damage.of_services().to_string(), told);
    }
}
