//! How values become bytes: postcard's wire format 1.0, behind these functions.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// The value that `bytes` hold; `None` when they hold something else.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    postcard::from_bytes(bytes).ok()
}

/// The value that `bytes` begin with, and what is behind it.
#[cfg(test)]
pub(crate) fn decode_front<T: DeserializeOwned>(bytes: &[u8]) -> Option<(T, &[u8])> {
    postcard::take_from_bytes(bytes).ok()
}

pub(crate) fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    append(value, Vec::new())
}

/// Adds the value's bytes to `bytes`.
pub(crate) fn append<T: Serialize>(value: &T, bytes: Vec<u8>) -> Vec<u8> {
    postcard::to_extend(value, bytes).expect("everything in a log has a known length")
}
