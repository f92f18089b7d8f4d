//! What ends a broker. Faults of one connection end that connection and are counted instead.

use crate::listener::Address;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot listen for MQTT on {address}: {source}; is another broker running there?")]
    Bind {
        address: Address,
        source: std::io::Error,
    },
    /// Without its users and rules, the broker lets nobody in.
    #[error(transparent)]
    Access(#[from] crate::access::FileError),
    /// The log failed for good; the process has to restart into recovery.
    #[error("the log does not work any more: {0}")]
    Log(#[from] skerry_store::Error),
}
