//! One connection's bytes with their two buffers. Both directions are safe to cancel in a
//! `select!`, and neither holds a buffer while it is idle.

use crate::aliases::Aliases;
use crate::codec::{
    Decoder, Incoming, Malformed, Outgoing, PublishView, Terms, Version, encode, encode_publish,
};
use crate::socket::{ReadEnd, Socket, WriteEnd};
use crate::status::Status;
use bytes::BytesMut;
use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf};
use tokio::time::Instant;

/// Most that one read takes.
const READ_BYTES_MAX: usize = 16 * 1024;
/// Most that is handed to a layer before it is seen off: the size of a TLS record. A slow client
/// has made progress once it has taken so much.
const LAYER_BYTES_MAX: usize = 16 * 1024;
/// An empty buffer that is larger is given back.
const IDLE_BUFFER_BYTES_MAX: usize = 512;

pub(crate) struct Inlet {
    socket: ReadEnd,
    buffer: BytesMut,
    decoder: Decoder,
    status: Arc<Status>,
}

pub(crate) struct Outlet {
    socket: WriteEnd,
    buffer: BytesMut,
    /// A layer was given bytes and may still have some.
    unflushed: bool,
    terms: Terms,
    aliases: Aliases,
    /// Since when bytes wait without any being taken.
    pub stalled_since: Option<Instant>,
    status: Arc<Status>,
}

pub(crate) fn split(
    socket: Socket,
    packet_bytes_max: usize,
    status: &Arc<Status>,
) -> (Inlet, Outlet) {
    let (read, write) = socket.split();
    let inlet = Inlet {
        socket: read,
        buffer: BytesMut::new(),
        decoder: Decoder::new(packet_bytes_max),
        status: Arc::clone(status),
    };
    let outlet = Outlet {
        socket: write,
        buffer: BytesMut::new(),
        unflushed: false,
        terms: Terms::default(),
        aliases: Aliases::default(),
        stalled_since: None,
        status: Arc::clone(status),
    };
    (inlet, outlet)
}

impl Inlet {
    /// The next whole packet that was already read.
    pub(crate) fn packet(&mut self) -> Result<Option<Incoming>, Malformed> {
        let packet = self.decoder.next(&mut self.buffer)?;
        if packet.is_none() && self.buffer.is_empty() {
            // Even empty it would keep the memory of the packets that were cut from it.
            self.buffer = BytesMut::new();
        }
        Ok(packet)
    }

    /// What the client speaks, once it said so.
    pub(crate) const fn version(&self) -> Option<Version> {
        self.decoder.version()
    }

    /// Reads some bytes; false at the end of the stream.
    pub(crate) async fn fill(&mut self) -> io::Result<bool> {
        let read = poll_fn(|cx| self.poll_fill(cx)).await?;
        self.status.bytes_in.add(read);
        Ok(read > 0)
    }

    /// Reads into the stack and copies, so that a connection that waits holds no buffer. The copy
    /// is nothing beside the read itself. Not inlined: the task's own frame stays small.
    #[inline(never)]
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut bytes = [MaybeUninit::<u8>::uninit(); READ_BYTES_MAX];
        let mut bytes = ReadBuf::uninit(&mut bytes);
        ready!(Pin::new(&mut self.socket).poll_read(cx, &mut bytes))?;
        self.buffer.extend_from_slice(bytes.filled());
        Poll::Ready(Ok(bytes.filled().len()))
    }

    /// Takes what the peer still sends, without looking, so that closing does not reset the
    /// connection under an answer that is on its way (a reset discards what was received).
    pub(crate) async fn discard(&mut self) {
        loop {
            self.buffer.clear();
            match poll_fn(|cx| self.poll_fill(cx)).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
        }
    }
}

impl Outlet {
    /// What the client takes, from its CONNECT.
    pub(crate) fn agree(&mut self, terms: Terms, topic_alias_maximum: u16) {
        self.terms = terms;
        self.aliases = Aliases::new(topic_alias_maximum);
    }

    /// Queues a packet unless it would be larger than the client takes.
    pub(crate) fn send(&mut self, packet: &Outgoing, version: Version) -> bool {
        let fits = encode(packet, version, self.terms, &mut self.buffer);
        self.status.packets_out.add(usize::from(fits));
        self.mark();
        fits
    }

    /// Queues a PUBLISH unless it would be larger than `bytes_max`. The topic alias is chosen here.
    pub(crate) fn publish(
        &mut self,
        publish: &PublishView<'_>,
        version: Version,
        bytes_max: usize,
    ) -> bool {
        let before = self.buffer.len();
        let alias = self.aliases.of(publish.topic);
        let publish = PublishView { alias, ..*publish };
        encode_publish(&publish, version, &mut self.buffer);
        let fits = self.buffer.len() - before <= bytes_max;
        if !fits {
            self.buffer.truncate(before);
            if let Some(alias) = alias {
                self.aliases.take_back(alias);
            }
        }
        self.mark();
        fits
    }

    fn mark(&mut self) {
        if !self.buffer.is_empty() && self.stalled_since.is_none() {
            self.stalled_since = Some(Instant::now());
        }
    }

    /// Bytes that are still to be written; a layer's own count as one.
    pub(crate) fn waiting(&self) -> usize {
        self.buffer.len() + usize::from(self.unflushed)
    }

    /// Writes some of what waits.
    pub(crate) async fn flush_some(&mut self) -> io::Result<()> {
        if self.unflushed {
            self.socket.flush().await?;
            self.unflushed = false;
        }
        if !self.buffer.is_empty() {
            let written = if self.socket.is_buffered() {
                self.write_to_layer().await?
            } else {
                self.socket.write_buf(&mut self.buffer).await?
            };
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            self.status.bytes_out.add(written);
        }
        self.stalled_since = (self.waiting() > 0).then(Instant::now);
        if self.buffer.is_empty() && self.buffer.capacity() > IDLE_BUFFER_BYTES_MAX {
            self.buffer = BytesMut::new();
        }
        Ok(())
    }

    async fn write_to_layer(&mut self) -> io::Result<usize> {
        let some = self.buffer.len().min(LAYER_BYTES_MAX);
        let written = self.socket.write(&self.buffer[..some]).await?;
        let _ = self.buffer.split_to(written);
        self.unflushed = true;
        Ok(written)
    }

    /// Writes all of it, for at most `patience`, and closes this direction.
    pub(crate) async fn finish(&mut self, patience: Duration) {
        let flush = async {
            while self.waiting() > 0 {
                self.flush_some().await?;
            }
            self.socket.shutdown().await
        };
        // The connection ends here either way.
        let _ = tokio::time::timeout(patience, flush).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{Ack, PacketId};
    use tokio::net::{TcpListener, TcpStream};

    /// What an idle connection's task holds, without what its session points to.
    #[test]
    fn the_task_of_a_connection_is_small() {
        const fn size<A, B, C, D, F>(_: fn(A, B, C, D) -> F) -> usize {
            size_of::<F>()
        }
        let bytes = size(crate::connection::serve);
        assert!(bytes <= 4 * 1024, "{bytes}");
    }

    #[tokio::test]
    async fn an_idle_link_holds_no_buffer() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let near = TcpStream::connect(address).await.expect("a connection");
        let (mut far, _) = listener.accept().await.expect("a connection");
        let status = Arc::<Status>::default();
        let (mut inlet, mut outlet) = split(Socket::Tcp(near), 1 << 20, &status);
        inlet.decoder = Decoder::of(Version::V311, 1 << 20);
        let packets = b"\xc0\x00".repeat(10_000);
        far.write_all(&packets).await.expect("written");
        let mut count = 0;
        while count < 10_000 {
            inlet.fill().await.expect("bytes");
            assert!(inlet.buffer.capacity() > 0);
            while let Some(Incoming::PingReq) = inlet.packet().expect("a packet") {
                count += 1;
                outlet.send(&Outgoing::PubRel(Ack::ok(PacketId::MIN)), Version::V311);
            }
        }
        assert_eq!(inlet.buffer.capacity(), 0);
        while outlet.waiting() > 0 {
            outlet.flush_some().await.expect("written");
        }
        assert!(outlet.buffer.capacity() <= IDLE_BUFFER_BYTES_MAX);
        assert_eq!(outlet.stalled_since, None);
    }
}
