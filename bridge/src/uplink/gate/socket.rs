//! Options of the sockets that face the link. The only file that names `socket2`.
//!
//! - A far side that acknowledges nothing for `dead_after` is gone (`TCP_USER_TIMEOUT`); while
//!   nothing is under way, probes ask (keep-alive). Without them a link that swallows everything
//!   would be noticed after a quarter of an hour, or never.
//! - Little waits in the kernel unsent (`TCP_NOTSENT_LOWAT`), so that what is urgent does not
//!   stand behind it where the link is slower than the cap, or there is none.

use socket2::{SockRef, TcpKeepalive};
use std::io;
use std::time::Duration;
use tokio::net::TcpStream;

/// Unsent bytes at which a socket takes more: some segments, so that the link does not run dry
/// while we are not looking, and 0.2 s of a 256 kbit/s link.
const UNSENT_BYTES: u32 = 8 * 1024;

/// Prepares a connection to a broker or a proxy.
pub(super) fn prepare(stream: &TcpStream, dead_after: Duration) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    let between = (dead_after / 6).max(Duration::from_secs(1));
    let probes = TcpKeepalive::new()
        .with_time(probe_after(dead_after))
        .with_interval(between);
    socket.set_tcp_keepalive(&probes)?;
    socket.set_tcp_user_timeout(Some(dead_after))?;
    socket.set_tcp_notsent_lowat(UNSENT_BYTES)
}

/// How long a connection is silent before a probe asks whether the far side is there: early
/// enough for the answer to be missed in time.
pub(super) fn probe_after(dead_after: Duration) -> Duration {
    (dead_after / 2).max(Duration::from_secs(1))
}

/// The payload of a full segment on this connection.
pub(super) fn segment_bytes(stream: &TcpStream) -> Option<u64> {
    SockRef::from(stream).tcp_mss().ok().map(u64::from)
}

/// Closing `stream` tells the other end that something went wrong, instead of "that was all".
pub(super) fn reset_on_close(stream: &TcpStream) {
    if let Err(error) = stream.set_zero_linger() {
        tracing::debug!(%error, "a connection on loopback ends as if all was well");
    }
}
