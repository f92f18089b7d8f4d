//! The ways in and out of a node that are not MQTT: [`opcua`] southbound to the PLCs,
//! [`uplink`] northbound to the cluster. Neither knows the other; both know only the log.

#[cfg(feature = "opcua")]
pub mod opcua;
#[cfg(feature = "uplink")]
pub mod uplink;
