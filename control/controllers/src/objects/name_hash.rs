//! Hashes that end the names of ReplicaSets and ControllerRevisions: letters that spell no words.

/// Letters without vowels, so that names spell no words. Source: Kubernetes' `SafeEncodeString`.
const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// Names the content `bytes`: equal contents (and collision counts) have equal names.
pub fn name_hash(mut bytes: Vec<u8>, collisions: i32) -> String {
    if collisions > 0 {
        bytes.extend_from_slice(&collisions.to_le_bytes());
    }
    let sum = fnv1a(&bytes).to_string();
    sum.bytes().map(|digit| char::from(LETTERS[usize::from(digit) % LETTERS.len()])).collect()
}

fn fnv1a(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_depends_on_the_content_and_on_the_collisions() {
        let hash = |text: &str, collisions| name_hash(text.as_bytes().to_vec(), collisions);
        assert_eq!(hash("a", 0), hash("a", 0));
        assert_ne!(hash("a", 0), hash("b", 0));
        assert_ne!(hash("a", 0), hash("a", 1));
    }
}
