//! Sealing what goes to disk, with XChaCha20-Poly1305: the crate that does it is named here alone.
//!
//! No key of the key file seals anything itself: each use has a key of its own, derived from it,
//! so that what is done for one use says nothing about another.

use crate::Error;
use crate::digest;
use crate::directory;
use crate::keys::{Key, KeyId, Keys};
use chacha20poly1305::{AeadInOut, KeyInit, XChaCha20Poly1305};
use std::sync::atomic::{AtomicU64, Ordering};
use zeroize::Zeroizing;

pub(crate) const TAG_BYTES: usize = 16;
pub(crate) const NONCE_BYTES: usize = 24;
pub(crate) const SALT_BYTES: usize = 6;
pub(crate) const TOKEN_BYTES: usize = 16;

/// What keys are derived for.
const FRAMES: &str = "skerry log format 1: frames";
const ENTRIES: &str = "skerry log format 1: catalog entries";
const NAMES: &str = "skerry log format 1: catalog names";

pub(crate) type Salt = [u8; SALT_BYTES];
pub(crate) type Nonce = [u8; NONCE_BYTES];

/// Seals with the first of some keys, and opens with all of them.
pub(crate) struct Cipher {
    frames: Vec<(KeyId, XChaCha20Poly1305)>,
    entries: XChaCha20Poly1305,
    names: Key,
    /// Random for each opening of a log. A sequence number may be used again after a crash, and
    /// in each copy of a disk: that must not make a nonce that was used before.
    salt: Salt,
    entry_salt: [u8; 16],
    entries_sealed: AtomicU64,
}

impl Cipher {
    pub(crate) fn new(keys: &Keys) -> Result<Self, Error> {
        let frames = keys.iter();
        let frames = frames.map(|key| (KeyId::of(key), derived(FRAMES, key)));
        Ok(Self {
            frames: frames.collect(),
            entries: derived(ENTRIES, keys.first()),
            names: Zeroizing::new(digest::derive(NAMES, &**keys.first())),
            salt: directory::random()?,
            entry_salt: directory::random()?,
            entries_sealed: AtomicU64::new(0),
        })
    }

    /// The key that seals.
    pub(crate) fn id(&self) -> KeyId {
        self.frames[0].0
    }

    pub(crate) fn ids(&self) -> Vec<KeyId> {
        self.frames.iter().map(|(id, _)| *id).collect()
    }

    pub(crate) const fn salt(&self) -> Salt {
        self.salt
    }

    /// Seals a frame's payload, and puts the tag behind it.
    pub(crate) fn seal_frame(&self, nonce: &Nonce, associated: &[u8], payload: &mut Vec<u8>) {
        seal(&self.frames[0].1, nonce, associated, payload);
    }

    /// The payload as it was; `None` if no key opens it, or it is not what was sealed.
    pub(crate) fn open_frame(
        &self,
        nonce: &Nonce,
        associated: &[u8],
        payload: &[u8],
    ) -> Option<Vec<u8>> {
        let mut ciphers = self.frames.iter();
        ciphers.find_map(|(_, cipher)| open(cipher, nonce, associated, payload))
    }

    /// Seals an entry of the catalog, to be kept under `place`.
    pub(crate) fn seal_entry(&self, place: &[u8], mut entry: Vec<u8>) -> Vec<u8> {
        let count = self.entries_sealed.fetch_add(1, Ordering::Relaxed);
        let mut nonce = [0; NONCE_BYTES];
        nonce[..16].copy_from_slice(&self.entry_salt);
        nonce[16..].copy_from_slice(&count.to_le_bytes());
        seal(&self.entries, &nonce, place, &mut entry);
        [&nonce[..], &entry].concat()
    }

    pub(crate) fn open_entry(&self, place: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, sealed) = sealed.split_first_chunk()?;
        open(&self.entries, nonce, place, sealed)
    }

    /// Stands for a name that is not to be read.
    pub(crate) fn token(&self, name: &[u8]) -> [u8; TOKEN_BYTES] {
        let hash = digest::keyed(&self.names, name);
        *hash.first_chunk().expect("a hash is longer")
    }
}

impl std::fmt::Debug for Cipher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Cipher").field(&self.ids()).finish()
    }
}

fn derived(context: &str, key: &Key) -> XChaCha20Poly1305 {
    let key = Zeroizing::new(digest::derive(context, &**key));
    XChaCha20Poly1305::new((&*key).into())
}

fn seal(cipher: &XChaCha20Poly1305, nonce: &Nonce, associated: &[u8], bytes: &mut Vec<u8>) {
    cipher
        .encrypt_in_place(nonce.into(), associated, bytes)
        .expect("what is sealed is far below 256 GiB");
}

fn open(
    cipher: &XChaCha20Poly1305,
    nonce: &Nonce,
    associated: &[u8],
    sealed: &[u8],
) -> Option<Vec<u8>> {
    let mut bytes = sealed.to_vec();
    let opened = cipher.decrypt_in_place(nonce.into(), associated, &mut bytes);
    opened.is_ok().then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_key_seals_and_all_open() {
        let [old, new] = [[1; 32], [2; 32]];
        let before = Cipher::new(&Keys::new(old, [])).expect("random bytes");
        let mut sealed = b"payload".to_vec();
        before.seal_frame(&[7; 24], b"header", &mut sealed);
        assert_eq!(sealed.len(), 7 + TAG_BYTES);
        let rotated = Cipher::new(&Keys::new(new, [old])).expect("random bytes");
        let opened = rotated.open_frame(&[7; 24], b"header", &sealed);
        assert_eq!(opened.as_deref(), Some(&b"payload"[..]));
        assert_eq!(rotated.open_frame(&[7; 24], b"other", &sealed), None);
        assert_eq!(rotated.open_frame(&[8; 24], b"header", &sealed), None);
        rotated.seal_frame(&[7; 24], b"header", &mut sealed);
        assert_eq!(before.open_frame(&[7; 24], b"header", &sealed), None);
        assert_ne!(before.id(), rotated.id());
        assert_ne!(before.salt(), rotated.salt());
    }

    #[test]
    fn an_entry_opens_in_its_place_only_and_never_looks_the_same_twice() {
        let cipher = Cipher::new(&Keys::new([1; 32], [])).expect("random bytes");
        let [first, second] = [(); 2].map(|()| cipher.seal_entry(b"place", b"entry".to_vec()));
        assert_ne!(first[..NONCE_BYTES], second[..NONCE_BYTES]);
        let opened = cipher.open_entry(b"place", &first);
        assert_eq!(opened.as_deref(), Some(&b"entry"[..]));
        assert_eq!(cipher.open_entry(b"elsewhere", &first), None);
        assert_eq!(cipher.open_entry(b"place", &first[..20]), None);
        let other = Cipher::new(&Keys::new([2; 32], [])).expect("random bytes");
        assert_eq!(other.open_entry(b"place", &first), None);
        assert_ne!(cipher.token(b"name"), other.token(b"name"));
        assert_eq!(cipher.token(b"name"), cipher.token(b"name"));
    }
}
