//! BLAKE3 digests: what chains the segments of a stream together, and makes keys of keys.

use crate::Error;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// How much of a file is read at a time.
const WINDOW_BYTES: usize = 128 * 1024;

/// Digest of a segment; all zeros stand for "none before".
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Digest(pub(crate) [u8; 32]);

impl Digest {
    /// That of the first `length` bytes of a file.
    pub(crate) fn of_file(path: &Path, length: u64) -> Result<Self, Error> {
        let file = File::open(path).map_err(Error::storage("open", path))?;
        Hasher::of_file(&file, length)
            .map(|hasher| hasher.digest())
            .map_err(Error::storage("read", path))
    }
}

/// A key for one use, of a key that has others; `context` names the use.
pub(crate) fn derive(context: &str, key: &[u8]) -> [u8; 32] {
    blake3::derive_key(context, key)
}

/// What `bytes` amount to for whoever has the key, and nobody else can tell.
pub(crate) fn keyed(key: &[u8; 32], bytes: &[u8]) -> [u8; 32] {
    *blake3::keyed_hash(key, bytes).as_bytes()
}

/// A digest being made, of bytes as they are written.
#[derive(Debug, Clone)]
pub(crate) struct Hasher(blake3::Hasher);

impl Hasher {
    pub(crate) fn new(bytes: &[u8]) -> Self {
        let mut hasher = Self(blake3::Hasher::new());
        hasher.update(bytes);
        hasher
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub(crate) fn digest(&self) -> Digest {
        Digest(*self.0.finalize().as_bytes())
    }

    fn of_file(file: &File, length: u64) -> io::Result<Self> {
        let mut hasher = Self::new(&[]);
        let mut window = vec![0; WINDOW_BYTES];
        let mut at = 0;
        while at < length {
            let wanted = WINDOW_BYTES.min(usize::try_from(length - at).unwrap_or(WINDOW_BYTES));
            file.read_exact_at(&mut window[..wanted], at)?;
            hasher.update(&window[..wanted]);
            at += wanted as u64;
        }
        Ok(hasher)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_digests_as_what_was_written_to_it() {
        let bytes: Vec<u8> = (0..3 * WINDOW_BYTES + 5).map(|at| at as u8).collect();
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("file");
        std::fs::write(&path, &bytes).expect("written");
        let (front, back) = bytes.split_at(1000);
        let mut hasher = Hasher::new(front);
        hasher.update(back);
        let length = bytes.len() as u64;
        assert_eq!(Digest::of_file(&path, length).ok(), Some(hasher.digest()));
        let shorter = Digest::of_file(&path, length - 1).ok();
        assert_eq!(
            shorter,
            Some(Hasher::new(&bytes[..bytes.len() - 1]).digest())
        );
        assert!(Digest::of_file(&path, length + 1).is_err());
    }
}
