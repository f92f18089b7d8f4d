//! The only file that names postcard: the plain form of states, rows and messages.

use serde::Serialize;
use serde::de::DeserializeOwned;

pub(crate) fn write(value: &impl Serialize) -> Vec<u8> {
    postcard::to_stdvec(value).expect("states, rows, records and messages have a plain form")
}

/// Appends the plain form to `buffer`.
pub(crate) fn extend(buffer: Vec<u8>, value: &impl Serialize) -> Vec<u8> {
    postcard::to_extend(value, buffer).expect("messages have a plain form")
}

/// `None` if these bytes are the form of something else.
pub(crate) fn read<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    postcard::from_bytes(bytes).ok()
}
