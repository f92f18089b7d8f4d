//! The ways in and out of a node that are not MQTT: [`opcua`] southbound to the PLCs,
//! [`uplink`] northbound to the cluster. Neither knows the other; both know only the log.

use std::pin::Pin;

/// What is to be polled elsewhere. Boxed, so that it is compiled once, here, and not anew by each
/// crate that polls it: a whole client hangs on it.
pub type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

#[cfg(feature = "opcua")]
pub mod opcua;
#[cfg(feature = "uplink")]
pub mod uplink;
