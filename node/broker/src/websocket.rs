//! MQTT in WebSocket frames (MQTT 5.0 and 3.1.1, section 6; RFC 6455): the upgrade, then a stream
//! of bytes whose frames mean nothing.

use crate::listener::WebSocket;
use crate::socket::{Boxed, Unopened};
use bytes::{Buf, Bytes};
use futures_util::{Sink, Stream};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::handshake::machine::TryParse;
use tokio_tungstenite::tungstenite::handshake::server::{Request, create_response, write_response};
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};

/// The subprotocol of every MQTT version.
const SUBPROTOCOL: &str = "mqtt";
const SUBPROTOCOLS: &str = "Sec-WebSocket-Protocol";
/// Largest request head: browsers send cookies along, which nobody here reads.
const HEAD_BYTES_MAX: usize = 8 * 1024;
const READ_BUFFER_BYTES: usize = 4 * 1024;
/// A frame may hold several packets, so small limits on packets do not bind it.
const FRAME_BYTES_MIN: usize = 64 * 1024;

/// Answers the upgrade and turns the connection into the bytes inside of its frames. A frame is
/// held until it is whole, so it may not be much larger than a packet.
pub(crate) async fn accept(
    mut socket: Boxed,
    settings: &WebSocket,
    packet_bytes_max: usize,
) -> Result<Boxed, Unopened> {
    let mut head = Vec::new();
    let (request, used) = match read_request(&mut socket, &mut head).await {
        Ok(request) => request,
        Err(refusal) => return Err(refuse(socket, refusal).await),
    };
    let answer = match answer(&request, settings) {
        Ok(answer) => answer,
        Err(refusal) => return Err(refuse(socket, refusal).await),
    };
    socket.write_all(&answer).await.map_err(closed)?;
    socket.flush().await.map_err(closed)?;
    let frame_bytes_max = Some(packet_bytes_max.max(FRAME_BYTES_MIN));
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(0)
        .max_message_size(frame_bytes_max)
        .max_frame_size(frame_bytes_max);
    let early = head.split_off(used);
    let frames =
        WebSocketStream::from_partially_read(socket, early, Role::Server, Some(config)).await;
    Ok(Box::new(Frames {
        frames,
        payload: Bytes::new(),
        over: false,
    }))
}

/// Why there is no upgrade.
enum Refusal {
    /// Nobody to answer.
    Closed(io::Error),
    /// The bytes are no HTTP, so HTTP is no answer.
    Foreign(&'static str, &'static str),
    Http {
        reason: &'static str,
        status: &'static str,
        /// A line that the status asks for.
        header: &'static str,
        sentence: String,
    },
}

impl Refusal {
    const fn bad_request(reason: &'static str, sentence: String) -> Self {
        Self::Http {
            reason,
            status: "400 Bad Request",
            header: "",
            sentence,
        }
    }
}

/// The request and how many bytes of `head` it takes.
async fn read_request(socket: &mut Boxed, head: &mut Vec<u8>) -> Result<(Request, usize), Refusal> {
    loop {
        match socket.read_buf(head).await {
            Ok(0) => return Err(Refusal::Closed(io::ErrorKind::UnexpectedEof.into())),
            Ok(_) => {}
            Err(error) => return Err(Refusal::Closed(error)),
        }
        match head[0] {
            0x10 => {
                let detail =
                    "the client speaks MQTT without WebSocket; is it set to the wrong port?";
                return Err(Refusal::Foreign("mqtt_on_websocket_port", detail));
            }
            0x16 => {
                let detail = "the client speaks TLS, and this listener does not";
                return Err(Refusal::Foreign("tls_on_plain_port", detail));
            }
            _ => {}
        }
        match Request::try_parse(head) {
            Ok(Some((used, request))) => return Ok((request, used)),
            Ok(None) if head.len() < HEAD_BYTES_MAX => {}
            Ok(None) => {
                let sentence = format!("The request is larger than {HEAD_BYTES_MAX} bytes.");
                return Err(Refusal::bad_request("http_too_large", sentence));
            }
            Err(error) => {
                let sentence = format!("MQTT over WebSocket is spoken here: {error}.");
                return Err(Refusal::bad_request("not_websocket", sentence));
            }
        }
    }
}

/// The accepting answer.
fn answer(request: &Request, settings: &WebSocket) -> Result<Vec<u8>, Refusal> {
    let path = request.uri().path();
    if settings.path.as_ref().is_some_and(|only| only != path) {
        return Err(Refusal::Http {
            reason: "websocket_path",
            status: "404 Not Found",
            header: "",
            sentence: "MQTT over WebSocket is spoken here, on another path.".to_owned(),
        });
    }
    let mut response = create_response(request).map_err(|error| not_an_upgrade(&error))?;
    let offers = request.headers().get_all(SUBPROTOCOLS);
    let mut offers = offers.iter().filter_map(|offer| offer.to_str().ok());
    if !offers.any(|line| line.split(',').any(|offer| offer.trim() == SUBPROTOCOL)) {
        let sentence = format!("The client must offer the subprotocol \"{SUBPROTOCOL}\".");
        return Err(Refusal::bad_request("websocket_subprotocol", sentence));
    }
    let chosen = HeaderValue::from_static(SUBPROTOCOL);
    response.headers_mut().insert(SUBPROTOCOLS, chosen);
    let mut answer = Vec::new();
    write_response(&mut answer, &response)
        .map_err(|error| Refusal::bad_request("not_websocket", error.to_string()))?;
    Ok(answer)
}

fn not_an_upgrade(error: &Error) -> Refusal {
    let header = match error {
        Error::Protocol(
            ProtocolError::MissingConnectionUpgradeHeader
            | ProtocolError::MissingUpgradeWebSocketHeader,
        ) => "Upgrade: websocket\r\n",
        Error::Protocol(ProtocolError::MissingSecWebSocketVersionHeader) => {
            "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        }
        _ => {
            let sentence = format!("This is no WebSocket request: {error}.");
            return Refusal::bad_request("not_websocket", sentence);
        }
    };
    Refusal::Http {
        reason: "not_websocket",
        status: "426 Upgrade Required",
        header,
        sentence: format!("MQTT over WebSocket, version 13, is spoken here: {error}."),
    }
}

/// Tells the client, as far as it can be told.
async fn refuse(mut socket: Boxed, refusal: Refusal) -> Unopened {
    let (reason, status, header, sentence) = match refusal {
        Refusal::Closed(error) => return closed(error),
        Refusal::Foreign(reason, detail) => {
            let detail = detail.to_owned();
            return Unopened { reason, detail };
        }
        Refusal::Http {
            reason,
            status,
            header,
            sentence,
        } => (reason, status, header, sentence),
    };
    let answer = format!(
        "HTTP/1.1 {status}\r\n{header}Connection: close\r\nContent-Type: text/plain\r\n\
         Content-Length: {}\r\n\r\n{sentence}\n",
        sentence.len() + 1
    );
    // Whoever does not take it is gone.
    if socket.write_all(answer.as_bytes()).await.is_ok() {
        let _ = socket.shutdown().await;
    }
    Unopened {
        reason,
        detail: sentence,
    }
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn closed(error: io::Error) -> Unopened {
    Unopened {
        reason: "closed_in_handshake",
        detail: error.to_string(),
    }
}

/// The bytes in binary frames, whose borders mean nothing (MQTT 5.0, 6.0.0-1 and -2).
struct Frames {
    frames: WebSocketStream<Boxed>,
    /// What of a frame was not read yet.
    payload: Bytes,
    /// What comes now is no frame any more, and nobody's business.
    over: bool,
}

impl Frames {
    /// Tells the client why, and ends the stream with an error.
    fn violated(&mut self, code: CloseCode, why: String) -> io::Error {
        let reason = Message::Close(Some(CloseFrame {
            code,
            reason: why.as_str().into(),
        }));
        // A peer that cannot be told sees the connection close.
        let _ = Pin::new(&mut self.frames).start_send(reason);
        self.over = true;
        io::Error::new(io::ErrorKind::InvalidData, why)
    }

    /// Lets bytes pass until the peer closes: closing before would reset the connection under the
    /// reason why.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut bytes = [0; 1024];
            let mut bytes = ReadBuf::new(&mut bytes);
            ready!(Pin::new(self.frames.get_mut()).poll_read(cx, &mut bytes))?;
            if bytes.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl AsyncRead for Frames {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.over {
            return this.poll_end(cx);
        }
        while this.payload.is_empty() {
            let Some(message) = ready!(Pin::new(&mut this.frames).poll_next(cx)) else {
                return Poll::Ready(Ok(()));
            };
            match message {
                Ok(Message::Binary(payload)) => this.payload = payload,
                // Tungstenite answers them.
                Ok(Message::Ping(_) | Message::Pong(_) | Message::Close(_) | Message::Frame(_)) => {
                }
                Ok(Message::Text(_)) => {
                    let why = "MQTT takes binary frames only".to_owned();
                    return Poll::Ready(Err(this.violated(CloseCode::Unsupported, why)));
                }
                Err(Error::Io(error)) => return Poll::Ready(Err(error)),
                // Gone without a word.
                Err(Error::Protocol(ProtocolError::ResetWithoutClosingHandshake)) => {
                    return Poll::Ready(Ok(()));
                }
                Err(error @ Error::Capacity(_)) => {
                    let error = this.violated(CloseCode::Size, error.to_string());
                    return Poll::Ready(Err(error));
                }
                Err(error) => {
                    let error = this.violated(CloseCode::Protocol, error.to_string());
                    return Poll::Ready(Err(error));
                }
            }
        }
        let some = this.payload.len().min(buffer.remaining());
        buffer.put_slice(&this.payload[..some]);
        this.payload.advance(some);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Frames {
    /// Takes all of `bytes` as one frame, once the frame before has left.
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut frames = Pin::new(&mut self.get_mut().frames);
        ready!(frames.as_mut().poll_ready(cx)).map_err(broken)?;
        let frame = Message::Binary(Bytes::copy_from_slice(bytes));
        frames.start_send(frame).map_err(broken)?;
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let frames = Pin::new(&mut self.get_mut().frames);
        frames.poll_flush(cx).map_err(broken)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let frames = Pin::new(&mut self.get_mut().frames);
        frames.poll_close(cx).map_err(broken)
    }
}

fn broken(error: Error) -> io::Error {
    match error {
        Error::Io(error) => error,
        error => io::Error::new(io::ErrorKind::BrokenPipe, error),
    }
}
