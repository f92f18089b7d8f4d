//! Why a connection ends, and what follows from it.

use crate::codec::{Malformed, reason};
use std::io;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// DISCONNECT; true where it asks for the will nevertheless (5.0, reason 0x04).
    Bye {
        with_will: bool,
    },
    PeerClosed,
    /// What carries MQTT was misused: a WebSocket text frame, a record that is not TLS.
    Transport,
    Malformed(Malformed),
    /// One and a half times the keep-alive without a packet.
    Silent,
    /// The client does not take what it is sent.
    WriteStalled,
    TakenOver,
    /// The log refused a publish of a 3.1.1 client, which cannot be told.
    LogRefuses,
    /// The client's user is gone, or has another password now.
    Revoked,
    Stopping,
}

impl End {
    pub(crate) fn of_read(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::InvalidData => Self::Transport,
            _ => Self::PeerClosed,
        }
    }

    /// The word it is counted under.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Bye { .. } => "disconnect",
            Self::PeerClosed => "peer_closed",
            Self::Transport => "transport",
            Self::Malformed(_) => "malformed",
            Self::Silent => "keep_alive",
            Self::WriteStalled => "write_timeout",
            Self::TakenOver => "taken_over",
            Self::LogRefuses => "log_refuses",
            Self::Revoked => "revoked",
            Self::Stopping => "stopping",
        }
    }

    /// The reason code of the DISCONNECT that a version 5 client gets.
    pub(crate) const fn reason(self) -> Option<u8> {
        match self {
            Self::Bye { .. } | Self::PeerClosed | Self::Transport | Self::WriteStalled => None,
            Self::Malformed(malformed) => Some(malformed.reason()),
            Self::Silent => Some(reason::KEEP_ALIVE_TIMEOUT),
            Self::TakenOver => Some(reason::TAKEN_OVER),
            Self::LogRefuses => Some(reason::QUOTA_EXCEEDED),
            Self::Revoked => Some(reason::ADMINISTRATIVE_ACTION),
            Self::Stopping => Some(reason::SHUTTING_DOWN),
        }
    }

    /// More than the reason code says.
    pub(crate) fn why(self) -> Option<String> {
        match self {
            Self::Malformed(malformed) => Some(malformed.to_string()),
            _ => None,
        }
    }

    /// A will says "the device is gone". A node that stops does not know that, and would say it
    /// of every device at once.
    pub(crate) const fn publishes_will(self) -> bool {
        !matches!(self, Self::Bye { with_will: false } | Self::Stopping)
    }

    /// Whether the client may still read what is written to it.
    pub(crate) const fn peer_listens(self) -> bool {
        !matches!(self, Self::WriteStalled)
    }
}
