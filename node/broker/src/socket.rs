//! The bytes below MQTT, whatever carries them.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

/// Both directions of any transport.
pub(crate) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Duplex for S {}

pub(crate) type Boxed = Box<dyn Duplex>;

/// Plain TCP pays for no other transport: its halves need no lock and no virtual call.
pub(crate) enum Socket {
    Tcp(TcpStream),
    Layered(Boxed),
}

pub(crate) enum ReadEnd {
    Tcp(OwnedReadHalf),
    Layered(ReadHalf<Boxed>),
}

pub(crate) enum WriteEnd {
    Tcp(OwnedWriteHalf),
    Layered(WriteHalf<Boxed>),
}

/// Why a connection did not come as far as MQTT.
#[derive(Debug)]
pub(crate) struct Unopened {
    /// The word it is counted under.
    pub reason: &'static str,
    pub detail: String,
}

impl Socket {
    pub(crate) fn split(self) -> (ReadEnd, WriteEnd) {
        match self {
            Self::Tcp(socket) => {
                let (read, write) = socket.into_split();
                (ReadEnd::Tcp(read), WriteEnd::Tcp(write))
            }
            Self::Layered(socket) => {
                let (read, write) = tokio::io::split(socket);
                (ReadEnd::Layered(read), WriteEnd::Layered(write))
            }
        }
    }
}

impl WriteEnd {
    /// Whether what was written may still wait in a buffer of a layer.
    pub(crate) const fn is_buffered(&self) -> bool {
        matches!(self, Self::Layered(_))
    }
}

impl AsyncRead for ReadEnd {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(socket) => Pin::new(socket).poll_read(cx, buffer),
            Self::Layered(socket) => Pin::new(socket).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for WriteEnd {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(socket) => Pin::new(socket).poll_write(cx, bytes),
            Self::Layered(socket) => Pin::new(socket).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(socket) => Pin::new(socket).poll_flush(cx),
            Self::Layered(socket) => Pin::new(socket).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(socket) => Pin::new(socket).poll_shutdown(cx),
            Self::Layered(socket) => Pin::new(socket).poll_shutdown(cx),
        }
    }
}
