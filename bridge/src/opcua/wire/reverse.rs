//! Reverse connect (Part 6, 7.1.3): the server dials us, through a firewall that lets nobody in.
//!
//! It says who it is in a ReverseHello and waits for our hello on the same connection; from there
//! on everything is as if we had dialled. Whoever else knocks is sent away and keeps nobody out.

use crate::opcua::error::Error;
use futures_util::stream::{FuturesUnordered, StreamExt};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Servers call again every few seconds; one that is not heard of for so long is away.
const CALL_TIMEOUT: Duration = Duration::from_secs(20);
/// Between the connection and what it says.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);
/// Connections that are listened to at once; more wait in the system's queue.
const CALLERS_MAX: usize = 16;
/// After the system refused to accept: it is short of something.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

const HEADER_BYTES: usize = 8;
/// Of either text in a ReverseHello (Part 6, 7.1.2.6).
const TEXT_BYTES_MAX: usize = 4_096;
const HELLO_BYTES_MAX: usize = HEADER_BYTES + 2 * (4 + TEXT_BYTES_MAX);
/// Bad_TcpEndpointUrlInvalid.
const NOT_FOR_YOU: u32 = 0x8083_0000;

/// Where a server connects to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReverseConnect {
    pub listen: SocketAddr,
    /// The ApplicationUri that the server must name; any, where absent. Whether it is that server
    /// is proven by its certificate, where there is security.
    pub server_uri: Option<String>,
}

/// Listens for one server.
#[derive(Debug)]
pub(crate) struct Calls {
    listener: TcpListener,
    reverse: ReverseConnect,
}

impl Calls {
    /// # Errors
    /// When the address cannot be listened on.
    pub(crate) async fn listen(reverse: &ReverseConnect) -> Result<Self, Error> {
        let address = reverse.listen;
        let listener = TcpListener::bind(address).await;
        Ok(Self {
            listener: listener.map_err(|source| Error::Listen { address, source })?,
            reverse: reverse.clone(),
        })
    }

    /// The connection of a server that has said who it is, and waits for our hello.
    ///
    /// # Errors
    /// When none came for a while.
    pub(super) async fn next(&self) -> Result<TcpStream, Error> {
        let mut callers = FuturesUnordered::new();
        let mut stranger = None;
        let mut overdue = std::pin::pin!(tokio::time::sleep(CALL_TIMEOUT));
        loop {
            tokio::select! {
                accepted = self.listener.accept(), if callers.len() < CALLERS_MAX => match accepted {
                    Ok((stream, from)) => callers.push(async move {
                        let heard = tokio::time::timeout(HELLO_TIMEOUT, self.hear(stream));
                        let silent = |_| Err("it says nothing".to_owned());
                        (from, heard.await.unwrap_or_else(silent))
                    }),
                    Err(error) => {
                        tracing::warn!(listen = %self.reverse.listen, %error, "cannot accept");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
                Some((from, heard)) = callers.next() => match heard {
                    Ok(stream) => return Ok(stream),
                    // It knocks again every second, perhaps, and is told of once.
                    Err(why) if stranger.as_ref() == Some(&why) => {}
                    Err(why) => {
                        tracing::warn!(
                            listen = %self.reverse.listen, %from, why,
                            "sent away, for it is not the OPC-UA server that is waited for"
                        );
                        stranger = Some(why);
                    }
                },
                () = &mut overdue => return Err(Error::NotCalled {
                    listen: self.reverse.listen,
                    after: CALL_TIMEOUT,
                    stranger: stranger.map_or_else(String::new, |why| {
                        format!("; somebody else did, and was sent away: {why}")
                    }),
                }),
            }
        }
    }

    async fn hear(&self, mut stream: TcpStream) -> Result<TcpStream, String> {
        let mut header = [0; HEADER_BYTES];
        let broken = |error: std::io::Error| error.to_string();
        stream.read_exact(&mut header).await.map_err(broken)?;
        let (kind, size) = header.split_at(4);
        let size = u32::from_le_bytes(size.try_into().expect("four of eight bytes")) as usize;
        if kind != b"RHEF" || !(HEADER_BYTES..=HELLO_BYTES_MAX).contains(&size) {
            return Err(format!("it starts with `{}`", header.escape_ascii()));
        }
        let mut body = vec![0; size - HEADER_BYTES];
        stream.read_exact(&mut body).await.map_err(broken)?;
        let uri = text(&body).ok_or("its ReverseHello is malformed")?;
        let wanted = self.reverse.server_uri.as_deref();
        if let Some(wanted) = wanted.filter(|wanted| *wanted != uri) {
            // It may have gone already, and learns of it then.
            let _ = stream
                .write_all(&refusal("another server is waited for"))
                .await;
            return Err(format!("it calls itself `{uri}`, not `{wanted}`"));
        }
        Ok(stream)
    }
}

/// The first text of a message's body.
fn text(body: &[u8]) -> Option<String> {
    let (length, rest) = body.split_first_chunk::<4>()?;
    let length = usize::try_from(i32::from_le_bytes(*length)).ok()?;
    let text = rest.get(..length).filter(|_| length <= TEXT_BYTES_MAX)?;
    String::from_utf8(text.to_vec()).ok()
}

/// An Error message (Part 6, 7.1.2.5).
fn refusal(reason: &str) -> Vec<u8> {
    let size = (HEADER_BYTES + 4 + 4 + reason.len()) as u32;
    let mut message = b"ERRF".to_vec();
    for number in [size, NOT_FOR_YOU, reason.len() as u32] {
        message.extend(number.to_le_bytes());
    }
    message.extend(reason.as_bytes());
    message
}
