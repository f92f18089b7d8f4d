//! What kinds of servers take, as far as it is known before they are asked.
//!
//! A server's own word (`OperationLimits`, revised intervals, refusals) goes before all of this;
//! a profile keeps the first requests small enough for a PLC that has other things to do, and
//! lets `skerry check` warn before anything is installed.

use std::str::FromStr;
use std::time::Duration;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Profile {
    /// Nothing is known: PCs, gateways, large controllers.
    #[default]
    Generic,
    /// SIMATIC S7-1200 with firmware 4.4 or later.
    S71200,
    /// SIMATIC S7-1500 and ET 200SP CPUs. The figures are those of the smaller ones (1511 to
    /// 1513); a 1518 takes ten times as much.
    S71500,
}

/// What a server of a kind takes, all clients together where it says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capacity {
    /// Sessions of all clients.
    pub sessions: usize,
    /// Subscriptions of one session.
    pub subscriptions: usize,
    /// Monitored items of all clients, at the manufacturer's recommendation.
    pub items: usize,
    /// Shortest sampling and publishing intervals; shorter ones are made longer by the server.
    pub sampling_min: Duration,
    pub publishing_min: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("profile `{0}` is not known: use generic, s7-1200 or s7-1500")]
pub struct ProfileError(String);

impl Profile {
    /// From the manufacturer's technical data, section "OPC UA" of the CPU's data sheet; `None`
    /// where there is no such thing.
    ///
    /// - S7-1200: data sheet of CPU 1214C (6ES7214-1AG40-0XB0), firmware 4.4 and later.
    /// - S7-1500: data sheet of CPU 1511-1 PN (6ES7511-1AK02-0AB0), firmware 2.8 and later; the
    ///   limits over firmware versions are in Siemens' FAQ 109755846.
    ///
    /// The project in TIA Portal may allow less: its minimum intervals and number of monitored
    /// items are set under "OPC UA > Server > Options", by default 1,000 ms for sampling, 500 ms
    /// for publishing and 1,000 items.
    #[must_use]
    pub const fn capacity(self) -> Option<Capacity> {
        match self {
            Self::Generic => None,
            Self::S71200 => Some(Capacity {
                sessions: 10,
                subscriptions: 5,
                items: 1_000,
                sampling_min: Duration::from_millis(100),
                publishing_min: Duration::from_millis(200),
            }),
            Self::S71500 => Some(Capacity {
                sessions: 32,
                subscriptions: 20,
                items: 1_000,
                sampling_min: Duration::from_millis(100),
                publishing_min: Duration::from_millis(200),
            }),
        }
    }

    /// Operations in one request, at most; the server's own limit may be lower. A small PLC
    /// answers a request as a whole, and its program waits meanwhile.
    pub(crate) const fn operations_max(self) -> usize {
        match self {
            Self::Generic | Self::S71500 => 500,
            Self::S71200 => 100,
        }
    }

    /// Publish requests waiting at the server: enough that a notification never waits for a round
    /// trip to a distant PLC, few enough for a small one.
    pub(crate) const fn publishes(self) -> usize {
        match self {
            Self::Generic | Self::S71500 => 4,
            Self::S71200 => 2,
        }
    }

    /// The word used in configurations.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Generic => "generic",
            Self::S71200 => "s7-1200",
            Self::S71500 => "s7-1500",
        }
    }
}

impl FromStr for Profile {
    type Err = ProfileError;

    fn from_str(word: &str) -> Result<Self, ProfileError> {
        [Self::Generic, Self::S71200, Self::S71500]
            .into_iter()
            .find(|profile| profile.word() == word)
            .ok_or_else(|| ProfileError(word.to_owned()))
    }
}
