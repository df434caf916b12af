//! Keys by number, for as long as the process runs: an object in memory knows the number of the key that its value was
//! sealed under. A key is told by its label and a digest of its secret, so that another secret under the same name is
//! another key.

use parking_lot::Mutex;
use sha2::{Digest, Sha256};

use fairlead_store::seal::SealKey;

/// Keys that were ever configured.
#[derive(Default)]
pub struct InternedKeys(Mutex<Vec<Known>>);

struct Known {
    label: String,
    digest: [u8; 32],
}

/// The number that all keys share for which no other is left.
const BEYOND: u16 = u16::MAX;

impl InternedKeys {
    /// The number of a key.
    pub fn key(&self, label: &str, secret: &[u8]) -> SealKey {
        let digest: [u8; 32] = Sha256::digest(secret).into();
        let mut known = self.0.lock();
        let is_same = |key: &Known| key.digest == digest && key.label == label;
        let at = match known.iter().position(is_same) {
            Some(at) => at,
            None if known.len().saturating_add(1) >= usize::from(BEYOND) => return SealKey::new(BEYOND),
            None => {
                known.push(Known { label: label.to_owned(), digest });
                known.len().saturating_sub(1)
            }
        };
        SealKey::new(u16::try_from(at.saturating_add(1)).unwrap_or(BEYOND))
    }

    /// The label of a key.
    pub fn label(&self, key: SealKey) -> Option<String> {
        let at = usize::from(key.number()).checked_sub(1)?;
        self.0.lock().get(at).map(|known| known.label.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_its_label_and_its_secret() {
        let keys = InternedKeys::default();
        let first = keys.key("aesgcm:v1:a", b"one");
        assert_ne!(first, SealKey::PLAIN);
        assert_eq!(keys.key("aesgcm:v1:a", b"one"), first);
        assert_ne!(keys.key("aesgcm:v1:a", b"two"), first);
        assert_ne!(keys.key("aesgcm:v1:b", b"one"), first);
        assert_eq!(keys.label(first).as_deref(), Some("aesgcm:v1:a"));
        assert_eq!(keys.label(SealKey::PLAIN), None);
    }
}
