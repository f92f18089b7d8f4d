//! The TCP connection under a secure channel: dialled by us, at the configured host and port,
//! with time-outs, and with an eye on the first bytes the other side sends.

use super::chain::Unchained;
use super::keys::KeyPair;
use super::vendor::{
    Connector, DecodingOptions, EndpointDescription, RequestRecv, SecureChannelState,
    StreamConnection, StreamConnector, StreamTransport, TcpCodec, TransportConfiguration,
    VendorError,
};
use crate::opcua::address::EndpointUrl;
use crate::opcua::error::Error;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio_util::codec::FramedRead;

/// A PLC that does not accept within this is not there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// One dialled connection, handed to the vendor's channel exactly once.
pub(super) struct Dialer {
    url: String,
    stream: Mutex<Option<TcpStream>>,
    /// Ours, where the channel is to be secured.
    keys: Option<Arc<KeyPair>>,
    /// What was wrong with the first bytes, if anything.
    complaint: Arc<OnceLock<String>>,
    /// Set once the hello was answered as OPC-UA answers it.
    greeted: OnceLock<()>,
}

impl Dialer {
    /// Tries the host's addresses in turn.
    pub(super) async fn dial(url: &EndpointUrl, keys: Option<Arc<KeyPair>>) -> Result<Self, Error> {
        let address = format!("{}:{}", url.host(), url.port());
        let connect = TcpStream::connect((url.host(), url.port()));
        let stream = tokio::time::timeout(CONNECT_TIMEOUT, connect)
            .await
            .map_err(|_| Error::Silent {
                address: address.clone(),
                step: "the TCP connection",
                after: CONNECT_TIMEOUT,
            })?
            .map_err(|source| Error::Unreachable { address, source })?;
        Ok(Self::on(stream, url, keys))
    }

    /// On a connection that the server made.
    pub(super) fn on(stream: TcpStream, url: &EndpointUrl, keys: Option<Arc<KeyPair>>) -> Self {
        // Requests are small and answered at once: waiting to fill a segment only adds delay.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY was refused");
        }
        Self {
            url: url.as_str().to_owned(),
            stream: Mutex::new(Some(stream)),
            keys,
            complaint: Arc::default(),
            greeted: OnceLock::new(),
        }
    }

    /// Why the other side is not an OPC-UA server, if it did not answer the hello as one.
    pub(super) fn not_opcua(&self) -> Option<String> {
        if let Some(complaint) = self.complaint.get() {
            return Some(complaint.clone());
        }
        self.greeted
            .get()
            .is_none()
            .then(|| "it closed the connection at our hello".to_owned())
    }

    pub(super) fn greeted(&self) -> bool {
        self.greeted.get().is_some()
    }
}

impl Connector for Dialer {
    type Transport = StreamTransport<Unchained<Wary>, OwnedWriteHalf>;

    async fn connect(
        &self,
        channel: Arc<SecureChannelState>,
        outgoing: RequestRecv,
        config: TransportConfiguration,
    ) -> Result<Self::Transport, VendorError> {
        let open = |url: String, options: DecodingOptions| {
            let stream = self
                .stream
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take();
            let complaint = Arc::clone(&self.complaint);
            let keys = self.keys.clone();
            async move {
                let stream = stream.ok_or_else(|| {
                    VendorError::decoding("the connection was handed out already")
                })?;
                let (read, write) = stream.into_split();
                let read = Wary {
                    read,
                    first: Vec::new(),
                    complaint,
                };
                Ok(StreamConnection::new(
                    FramedRead::new(Unchained::new(read, keys), TcpCodec::new(options)),
                    write,
                    url,
                ))
            }
        };
        let transport = StreamConnector::new(open, self.url.clone())
            .connect(channel, outgoing, config)
            .await?;
        // A second connect of one dialer fails above, so this is the first.
        self.greeted.get_or_init(|| ());
        Ok(transport)
    }

    fn default_endpoint(&self) -> EndpointDescription {
        EndpointDescription::from(self.url.as_str())
    }
}

/// Reads through to the socket, but refuses a peer whose first bytes are none that OPC-UA
/// starts with. Without it `HTTP` reads as the header of a message of 800 MB, and the client
/// waits for the rest of it.
pub(super) struct Wary {
    read: OwnedReadHalf,
    first: Vec<u8>,
    complaint: Arc<OnceLock<String>>,
}

/// How the answer to a hello may start (Part 6, 7.1.2.2).
const OPENINGS: [&[u8]; 2] = [b"ACK", b"ERR"];
const OPENING_LEN: usize = 3;
/// Enough of a foreign greeting to recognise it by.
const GREETING_MAX: usize = 24;

impl AsyncRead for Wary {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        std::task::ready!(Pin::new(&mut self.read).poll_read(cx, buf))?;
        if self.first.len() < OPENING_LEN {
            let fresh = &buf.filled()[before..];
            let fresh = &fresh[..fresh.len().min(GREETING_MAX)];
            self.first.extend_from_slice(fresh);
            if self.first.len() >= OPENING_LEN && !OPENINGS.contains(&&self.first[..OPENING_LEN]) {
                let complaint = complaint(&self.first);
                self.complaint.get_or_init(|| complaint.clone());
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, complaint)));
            }
        }
        Poll::Ready(Ok(()))
    }
}

fn complaint(first: &[u8]) -> String {
    if first.starts_with(b"HTTP") {
        "it answers as a web server".to_owned()
    } else {
        format!("it answers with `{}`", first.escape_ascii())
    }
}
