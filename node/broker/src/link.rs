//! One TCP connection with its two buffers. Both directions are safe to cancel in a `select!`.

use crate::aliases::Aliases;
use crate::codec::{
    Decoder, Incoming, Malformed, Outgoing, PublishView, Terms, Version, encode, encode_publish,
};
use crate::status::Status;
use bytes::BytesMut;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::Instant;

/// A quiet connection reads into little, a busy one into much.
const READ_BYTES_MIN: usize = 2 * 1024;
const READ_BYTES_MAX: usize = 32 * 1024;

pub(crate) struct Inlet {
    socket: OwnedReadHalf,
    buffer: BytesMut,
    decoder: Decoder,
    last_read: usize,
    status: Arc<Status>,
}

pub(crate) struct Outlet {
    socket: OwnedWriteHalf,
    buffer: BytesMut,
    terms: Terms,
    aliases: Aliases,
    /// Since when bytes wait without any being taken.
    pub stalled_since: Option<Instant>,
    status: Arc<Status>,
}

pub(crate) fn split(
    socket: TcpStream,
    packet_bytes_max: usize,
    status: &Arc<Status>,
) -> (Inlet, Outlet) {
    // Acknowledgements are small and somebody waits for each; a failure costs latency only.
    let _ = socket.set_nodelay(true);
    let (read, write) = socket.into_split();
    let inlet = Inlet {
        socket: read,
        buffer: BytesMut::new(),
        decoder: Decoder::new(packet_bytes_max),
        last_read: 0,
        status: Arc::clone(status),
    };
    let outlet = Outlet {
        socket: write,
        buffer: BytesMut::new(),
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
        self.decoder.next(&mut self.buffer)
    }

    /// What the client speaks, once it said so.
    pub(crate) const fn version(&self) -> Option<Version> {
        self.decoder.version()
    }

    /// Reads some bytes; false at the end of the stream.
    pub(crate) async fn fill(&mut self) -> io::Result<bool> {
        let room = (self.last_read * 2).clamp(READ_BYTES_MIN, READ_BYTES_MAX);
        self.buffer.reserve(room);
        self.last_read = self.socket.read_buf(&mut self.buffer).await?;
        self.status.bytes_in.add(self.last_read);
        Ok(self.last_read > 0)
    }

    /// Takes what the peer still sends, without looking, so that closing does not reset the
    /// connection under an answer that is on its way (a reset discards what was received).
    pub(crate) async fn discard(&mut self) {
        loop {
            self.buffer.clear();
            self.buffer.reserve(READ_BYTES_MIN);
            match self.socket.read_buf(&mut self.buffer).await {
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

    pub(crate) fn waiting(&self) -> usize {
        self.buffer.len()
    }

    /// Writes some of what waits.
    pub(crate) async fn flush_some(&mut self) -> io::Result<()> {
        let written = self.socket.write_buf(&mut self.buffer).await?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.status.bytes_out.add(written);
        self.stalled_since = (!self.buffer.is_empty()).then(Instant::now);
        if self.buffer.is_empty() && self.buffer.capacity() > READ_BYTES_MAX {
            self.buffer = BytesMut::new();
        }
        Ok(())
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
