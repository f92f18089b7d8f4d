//! What bytes cost on the wire, above the link layer: an estimate that is never far below.
//!
//! Counted are the headers of IP and TCP (with timestamps, as Linux sends) for each full segment
//! begun, an acknowledgement for every two segments the other way, the packets that open and
//! close a connection and keep-alive probes. Not counted: what is sent again because it was lost,
//! DNS, and the link layer's own framing.

use std::net::SocketAddr;
use tokio::net::TcpStream;

/// IP without options, TCP with timestamps.
const HEADERS_V4: u64 = 20 + 32;
const HEADERS_V6: u64 = 40 + 32;
/// A SYN has room for its options instead.
const SYN_EXTRA: u64 = 8;
/// What Ethernet carries, where the system does not say.
const SEGMENT_BYTES: u64 = 1448;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cost {
    headers: u64,
    segment: u64,
}

impl Cost {
    /// By what the system knows of the connection.
    pub(super) fn of(stream: &TcpStream) -> Self {
        let v6 = matches!(stream.peer_addr(), Ok(SocketAddr::V6(peer)) if peer.ip().to_ipv4_mapped().is_none());
        let segment = super::socket::segment_bytes(stream).unwrap_or(SEGMENT_BYTES);
        Self {
            headers: if v6 { HEADERS_V6 } else { HEADERS_V4 },
            segment: segment.max(1),
        }
    }

    /// A payload and its headers.
    pub(super) fn carrying(&self, payload: usize) -> u64 {
        let payload = payload as u64;
        payload + self.headers * payload.div_ceil(self.segment)
    }

    /// What the receiver of a payload answers.
    pub(super) fn acknowledging(&self, payload: usize) -> u64 {
        self.headers * (payload as u64).div_ceil(self.segment).div_ceil(2)
    }

    /// A packet without a payload: a FIN, an acknowledgement, a probe.
    pub(super) fn bare(&self) -> u64 {
        self.headers
    }

    /// What a dial sends and, where somebody answers, receives.
    pub(super) fn opening() -> (u64, u64) {
        (2 * HEADERS_V4 + SYN_EXTRA, HEADERS_V4 + SYN_EXTRA)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_segment_begun_has_headers_and_every_two_an_answer() {
        let cost = Cost {
            headers: HEADERS_V4,
            segment: SEGMENT_BYTES,
        };
        for (payload, carrying, acknowledging) in [
            (0, 0, 0),
            (1, 53, 52),
            (1_448, 1_500, 52),
            (1_449, 1_553, 52),
            (14_480, 15_000, 260),
        ] {
            assert_eq!(cost.carrying(payload), carrying, "{payload}");
            assert_eq!(cost.acknowledging(payload), acknowledging, "{payload}");
        }
    }
}
