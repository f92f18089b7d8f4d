//! How the catalog's entries stand in sled: as they are, or, in a log with keys, such that neither
//! their names nor their values can be read.
//!
//! ```text
//!            key                                       value
//! as it is   kind, length name, rest                   value
//! sealed     kind, token of (kind, length name),       nonce (24), sealed: u32 LE length of the
//!            token of all of the key                   key as it is, the key, the value; tag (16)
//! ```
//!
//! A token is 16 bytes of a keyed hash. The first one keeps a bucket together, so that it can be
//! scanned; the order of its entries is lost. What is sealed opens under its own key only.

use crate::cipher::{Cipher, TOKEN_BYTES};
use bytes::Bytes;
use std::borrow::Cow;
use std::sync::Arc;

#[derive(Debug)]
pub(crate) struct Form(pub(crate) Option<Arc<Cipher>>);

impl Form {
    /// The key in sled of what is called `key`.
    pub(crate) fn place<'k>(&self, key: &'k [u8]) -> Cow<'k, [u8]> {
        match &self.0 {
            None => key.into(),
            Some(cipher) => [&self.shelf(key), &cipher.token(key)[..]].concat().into(),
        }
    }

    /// What the keys in sled begin with of everything whose key begins with `prefix`; of more than
    /// that in a sealed catalog.
    pub(crate) fn shelf<'k>(&self, prefix: &'k [u8]) -> Cow<'k, [u8]> {
        let Some(cipher) = &self.0 else {
            return prefix.into();
        };
        let name = &prefix[..2 + usize::from(prefix[1])];
        [&prefix[..1], &cipher.token(name)].concat().into()
    }

    /// What is to stand at `place`.
    pub(crate) fn wrap<'v>(&self, place: &[u8], key: &[u8], value: &'v [u8]) -> Cow<'v, [u8]> {
        let Some(cipher) = &self.0 else {
            return value.into();
        };
        let length = u32::try_from(key.len()).expect("a key is small");
        let entry = [&length.to_le_bytes(), key, value].concat();
        cipher.seal_entry(place, entry).into()
    }

    /// Key and value of what stands at `place`; `None` if nobody can have put it there.
    pub(crate) fn unwrap(&self, place: &[u8], stored: Bytes) -> Option<(Bytes, Bytes)> {
        let Some(cipher) = &self.0 else {
            return Some((Bytes::copy_from_slice(place), stored));
        };
        let mut value = Bytes::from(cipher.open_entry(place, &stored)?);
        let (length, _) = value.split_first_chunk()?;
        let length = u32::from_le_bytes(*length) as usize;
        let key = value.split_to(4 + length).slice(4..);
        Some((key, value))
    }
}

const _: () = assert!(TOKEN_BYTES == 16, "as the documentation says");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Keys;

    #[test]
    fn a_sealed_entry_tells_nothing_and_opens_in_its_place() {
        let cipher = Cipher::new(&Keys::new([1; 32], [])).expect("random bytes");
        let form = Form(Some(Arc::new(cipher)));
        let key = b"e\x06bucketplant/pump";
        let place = form.place(key);
        assert!(place.starts_with(&form.shelf(b"e\x06bucket")));
        assert_eq!(form.shelf(b"e\x06bucket"), form.shelf(key));
        assert_ne!(form.shelf(b"e\x06bucked"), form.shelf(key));
        let stored = Bytes::from(form.wrap(&place, key, b"value").into_owned());
        for hidden in [&b"bucket"[..], b"pump", b"value"] {
            let found = |bytes: &[u8]| bytes.windows(hidden.len()).any(|part| part == hidden);
            assert!(!found(&place) && !found(&stored));
        }
        let opened = form.unwrap(&place, stored.clone()).expect("opens");
        assert_eq!((&opened.0[..], &opened.1[..]), (&key[..], &b"value"[..]));
        let elsewhere = form.place(b"e\x06bucketplant/pumq");
        assert_eq!(form.unwrap(&elsewhere, stored), None);
    }

    #[test]
    fn without_keys_an_entry_stands_as_it_is() {
        let form = Form(None);
        let key = b"e\x01bk";
        assert_eq!((&*form.place(key), &*form.shelf(key)), (&key[..], &key[..]));
        assert_eq!(&*form.wrap(key, key, b"value"), b"value");
        let opened = form.unwrap(key, Bytes::from_static(b"value"));
        let expected = (Bytes::from_static(key), Bytes::from_static(b"value"));
        assert_eq!(opened, Some(expected));
    }
}
