//! The algorithms: each seals a value under one key, bound to `associated`, so that it opens nowhere else and no change
//! of it goes unnoticed.
//!
//! | provider | algorithm | on the disk |
//! |---|---|---|
//! | `aesgcm`, seeds of `kms` | AES-256-GCM, a key for each value | 32 random bytes, nonce (12), text, tag (16) |
//! | `aescbc` | AES-CBC with PKCS#7, then HMAC-SHA-256 | IV (16), text, tag (32) |
//! | `secretbox` | XSalsa20-Poly1305 | nonce (24), text, tag (16) |
//!
//! Where this departs from Kubernetes it is stricter; the form on the disk is the store's own in any case:
//! - Kubernetes' `aesgcm` uses the configured key itself with random nonces of 96 bits, and so a key is worn out after
//!   some 200,000 writes. Here each value has a key of its own, derived from the configured one and 32 random bytes
//!   with HKDF-SHA-256, as Kubernetes derives those of `kms` v2 from their seed: a nonce never meets a key twice, at
//!   any number of writes, over restarts and with a copy of the machine that runs beside it.
//! - Kubernetes' `aescbc` is not authenticated, and neither `aescbc` nor `secretbox` is bound to the object's path.
//!   Here `aescbc` has a tag, checked before anything is decrypted, so that there is no padding oracle either; and
//!   `secretbox`, which takes no associated data, seals a digest of it with the value.

use aes::{Aes128, Aes192, Aes256};
use aes_gcm::{
    Aes256Gcm,
    aead::{Aead, Payload},
};
use cbc::cipher::{BlockModeDecrypt, BlockModeEncrypt, KeyIvInit, block_padding::Pkcs7};
use crypto_secretbox::{
    XSalsa20Poly1305,
    aead::{Aead as _, KeyInit as _},
};
use hkdf::Hkdf;
use hmac::{Hmac, KeyInit, Mac};
use ring::rand::{SecureRandom, SystemRandom};
use sha2::{Digest, Sha256};
use zeroize::{Zeroize, Zeroizing};

use crate::secret::Secret;

/// Seals and opens under one key.
pub trait Cipher: Send + Sync {
    /// Seals a value.
    fn seal(&self, associated: &[u8], value: &[u8]) -> Result<Vec<u8>, CipherError>;

    /// Opens a value; nothing where it, or what it is bound to, is not as it was sealed.
    fn open(&self, associated: &[u8], sealed: &[u8]) -> Option<Vec<u8>>;
}

/// A value cannot be sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CipherError {
    /// The system's random numbers are out of order.
    #[error("the system gave no random bytes")]
    Random,
    /// Beyond what the algorithm takes.
    #[error("the value is too long")]
    TooLong,
}

/// From the system: numbers of the process's own would come twice where a copy of the machine runs beside it.
pub fn random<const N: usize>() -> Result<[u8; N], CipherError> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| CipherError::Random)?;
    Ok(bytes)
}

type DerivedKey = Zeroizing<[u8; 32]>;

/// Derives the key for a purpose. Each pair of them has another one.
fn derive(source: &Hkdf<Sha256>, info: &[u8]) -> DerivedKey {
    let mut key = DerivedKey::default();
    source.expand(info, key.as_mut_slice()).expect("32 bytes are within what SHA-256 expands to");
    key
}

/// AES-256-GCM under a key of each value's own.
pub struct DerivedAesGcm {
    /// What the keys are derived from.
    source: DerivedKey,
}

/// Random bytes that a value's key is derived with.
const INFO: usize = 32;
const GCM_NONCE: usize = 12;

impl DerivedAesGcm {
    /// From a secret of any length that `aesgcm` takes.
    pub fn new(secret: &[u8]) -> Self {
        let (mut source, _) = Hkdf::<Sha256>::extract(Some(b"fairlead encryption at rest: aesgcm v1"), secret);
        let mut key = DerivedKey::default();
        key.copy_from_slice(&source);
        source.as_mut_slice().zeroize();
        Self { source: key }
    }

    fn key(&self, info: &[u8]) -> Aes256Gcm {
        let source = Hkdf::<Sha256>::from_prk(self.source.as_slice()).expect("as long as a digest of SHA-256");
        let key = derive(&source, info);
        aes_gcm::KeyInit::new_from_slice(key.as_slice()).expect("32 bytes")
    }
}

impl Cipher for DerivedAesGcm {
    fn seal(&self, associated: &[u8], value: &[u8]) -> Result<Vec<u8>, CipherError> {
        let (info, nonce) = (random::<INFO>()?, random::<GCM_NONCE>()?);
        let payload = Payload { msg: value, aad: associated };
        let sealed = self.key(&info).encrypt(&nonce.into(), payload).map_err(|_| CipherError::TooLong)?;
        Ok([&info[..], &nonce, &sealed].concat())
    }

    fn open(&self, associated: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        let (info, rest) = sealed.split_first_chunk::<INFO>()?;
        let (nonce, text) = rest.split_first_chunk::<GCM_NONCE>()?;
        self.key(info).decrypt(&(*nonce).into(), Payload { msg: text, aad: associated }).ok()
    }
}

/// AES-CBC, authenticated.
pub struct AesCbc {
    secret: Secret<Vec<u8>>,
    tag_key: DerivedKey,
}

const IV: usize = 16;
const TAG: usize = 32;

impl AesCbc {
    /// From a secret of 16, 24 or 32 bytes.
    pub fn new(secret: &[u8]) -> Self {
        let source = Hkdf::<Sha256>::new(Some(b"fairlead encryption at rest: aescbc v1"), secret);
        Self { secret: Secret::new(secret.to_vec()), tag_key: derive(&source, b"tag") }
    }

    fn tag(&self, associated: &[u8], sealed: &[u8]) -> Hmac<Sha256> {
        let mut tag: Hmac<Sha256> =
            KeyInit::new_from_slice(self.tag_key.as_slice()).expect("a key of any length is taken");
        tag.update(&(associated.len() as u64).to_be_bytes());
        tag.update(associated);
        tag.update(sealed);
        tag
    }
}

impl Cipher for AesCbc {
    fn seal(&self, associated: &[u8], value: &[u8]) -> Result<Vec<u8>, CipherError> {
        let (iv, key) = (random::<IV>()?, self.secret.expose().as_slice());
        let text = match key.len() {
            16 => encrypt::<cbc::Encryptor<Aes128>>(key, &iv, value),
            24 => encrypt::<cbc::Encryptor<Aes192>>(key, &iv, value),
            _ => encrypt::<cbc::Encryptor<Aes256>>(key, &iv, value),
        };
        let mut sealed = [&iv[..], &text].concat();
        let tag = self.tag(associated, &sealed).finalize().into_bytes();
        sealed.extend_from_slice(&tag);
        Ok(sealed)
    }

    fn open(&self, associated: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        let (sealed, tag) = sealed.split_last_chunk::<TAG>()?;
        self.tag(associated, sealed).verify_slice(tag).ok()?;
        let (iv, text) = sealed.split_first_chunk::<IV>()?;
        let key = self.secret.expose().as_slice();
        match key.len() {
            16 => decrypt::<cbc::Decryptor<Aes128>>(key, iv, text),
            24 => decrypt::<cbc::Decryptor<Aes192>>(key, iv, text),
            _ => decrypt::<cbc::Decryptor<Aes256>>(key, iv, text),
        }
    }
}

fn encrypt<C: KeyIvInit + BlockModeEncrypt>(key: &[u8], iv: &[u8], text: &[u8]) -> Vec<u8> {
    C::new_from_slices(key, iv).expect("the lengths were matched").encrypt_padded_vec::<Pkcs7>(text)
}

fn decrypt<C: KeyIvInit + BlockModeDecrypt>(key: &[u8], iv: &[u8], text: &[u8]) -> Option<Vec<u8>> {
    C::new_from_slices(key, iv).ok()?.decrypt_padded_vec::<Pkcs7>(text).ok()
}

/// XSalsa20-Poly1305.
pub struct Secretbox {
    key: XSalsa20Poly1305,
}

const BOX_NONCE: usize = 24;

impl Secretbox {
    /// From a secret of 32 bytes.
    pub fn new(secret: &[u8; 32]) -> Self {
        Self { key: XSalsa20Poly1305::new(secret.into()) }
    }
}

impl Cipher for Secretbox {
    fn seal(&self, associated: &[u8], value: &[u8]) -> Result<Vec<u8>, CipherError> {
        let nonce = random::<BOX_NONCE>()?;
        let bound = Zeroizing::new([Sha256::digest(associated).as_slice(), value].concat());
        let sealed = self.key.encrypt(&nonce.into(), bound.as_slice()).map_err(|_| CipherError::TooLong)?;
        Ok([&nonce[..], &sealed].concat())
    }

    fn open(&self, associated: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, sealed) = sealed.split_first_chunk::<BOX_NONCE>()?;
        let bound = Zeroizing::new(self.key.decrypt(&(*nonce).into(), sealed).ok()?);
        bound.strip_prefix(Sha256::digest(associated).as_slice()).map(<[u8]>::to_vec)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type MakeCipher = fn(&[u8]) -> Box<dyn Cipher>;
    /// A name, the cipher, and the same one with another key.
    type NamedPair = (&'static str, Box<dyn Cipher>, Box<dyn Cipher>);

    fn all() -> Vec<NamedPair> {
        let pair = |name, make: MakeCipher, len: usize| {
            let (one, other): (Vec<u8>, Vec<u8>) = ((0..len as u8).collect(), (1..=len as u8).collect());
            (name, make(&one), make(&other))
        };
        let gcm: MakeCipher = |secret| Box::new(DerivedAesGcm::new(secret));
        let cbc: MakeCipher = |secret| Box::new(AesCbc::new(secret));
        let secretbox: MakeCipher = |secret| Box::new(Secretbox::new(secret.first_chunk().expect("32 bytes")));
        vec![
            pair("aesgcm with 16 bytes", gcm, 16),
            pair("aesgcm with 24 bytes", gcm, 24),
            pair("aesgcm with 32 bytes", gcm, 32),
            pair("aescbc with 16 bytes", cbc, 16),
            pair("aescbc with 24 bytes", cbc, 24),
            pair("aescbc with 32 bytes", cbc, 32),
            pair("secretbox", secretbox, 32),
        ]
    }

    #[test]
    fn a_value_opens_with_its_key_and_in_its_place_alone() {
        for (name, cipher, other) in all() {
            let sealed = cipher.seal(b"here", b"the value").unwrap();
            assert_eq!(cipher.open(b"here", &sealed).as_deref(), Some(&b"the value"[..]), "{name}");
            assert_eq!(cipher.open(b"there", &sealed), None, "{name}");
            assert_eq!(other.open(b"here", &sealed), None, "{name}");
            assert_ne!(cipher.seal(b"here", b"the value").unwrap(), sealed, "{name}: no two are the same");
            assert!(!sealed.windows(5).any(|part| part == b"value"), "{name}");
        }
    }

    #[test]
    fn every_bit_that_is_changed_and_every_byte_that_is_cut_is_noticed() {
        for (name, cipher, _) in all() {
            let sealed = cipher.seal(b"here", b"the value").unwrap();
            for bit in 0..sealed.len() * 8 {
                let mut changed = sealed.clone();
                changed[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(cipher.open(b"here", &changed), None, "{name}: bit {bit}");
            }
            for length in 0..sealed.len() {
                assert_eq!(cipher.open(b"here", &sealed[..length]), None, "{name}: {length} bytes");
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

        #[test]
        fn any_value_is_what_it_was(value: Vec<u8>, associated: Vec<u8>, noise: Vec<u8>) {
            for (_, cipher, _) in all() {
                let sealed = cipher.seal(&associated, &value).unwrap();
                prop_assert_eq!(cipher.open(&associated, &sealed), Some(value.clone()));
                prop_assert_eq!(cipher.open(&associated, &noise), None);
            }
        }
    }
}
