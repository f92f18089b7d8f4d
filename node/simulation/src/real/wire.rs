//! Frames on a socket, and a client that asks one thing at a time.

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::{ApiKey, RequestHeader, ResponseHeader};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};
use std::fmt;
use std::io;
use std::str::FromStr;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Larger frames are taken for something that is not Kafka: brokers refuse requests beyond
/// 100 MiB (`socket.request.max.bytes`) and answer a consumer with 50 MiB (`fetch.max.bytes`).
const FRAME_BYTES_MAX: usize = 128 * 1024 * 1024;
/// A frame is its length and then so many bytes.
pub(super) const LENGTH_BYTES: usize = 4;

pub(super) const CONNECT_MAX: Duration = Duration::from_secs(10);
/// Longer than the fetches below wait on purpose.
const ANSWER_MAX: Duration = Duration::from_secs(20);

/// A broker as clients are told to reach it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Endpoint {
    pub(super) host: String,
    pub(super) port: u16,
}

impl Endpoint {
    /// None where an answer names no broker: an error comes with an empty host and port -1.
    pub(super) fn named(host: &str, port: i32) -> Option<Self> {
        let port = u16::try_from(port).ok().filter(|port| *port != 0)?;
        (!host.is_empty()).then(|| Self {
            host: host.to_owned(),
            port,
        })
    }

    pub(super) async fn connect(&self) -> io::Result<TcpStream> {
        let connecting = TcpStream::connect((self.host.as_str(), self.port));
        let stream = timeout(CONNECT_MAX, connecting).await??;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

impl FromStr for Endpoint {
    type Err = io::Error;

    fn from_str(text: &str) -> io::Result<Self> {
        let parts = text.trim().rsplit_once(':');
        let host = |host: &str| {
            host.trim_start_matches('[')
                .trim_end_matches(']')
                .to_owned()
        };
        let endpoint = parts.and_then(|(name, port)| Self::named(&host(name), port.parse().ok()?));
        endpoint.ok_or_else(|| {
            let message = format!("{text:?} is not HOST:PORT, such as kafka.example.com:9092");
            io::Error::new(io::ErrorKind::InvalidInput, message)
        })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// The next frame, its length included; none at the end of the stream.
pub(super) async fn read_frame(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Bytes>> {
    let mut length = [0; LENGTH_BYTES];
    if from.read(&mut length[..1]).await? == 0 {
        return Ok(None);
    }
    from.read_exact(&mut length[1..]).await?;
    let bytes = usize::try_from(i32::from_be_bytes(length)).unwrap_or(usize::MAX);
    if bytes > FRAME_BYTES_MAX {
        return Err(invalid("what arrives is not made of Kafka's frames"));
    }
    // Memory is taken as the bytes arrive: a stranger's length alone costs nothing.
    let mut frame = BytesMut::new();
    frame.put_slice(&length);
    let mut rest = from.take(bytes as u64);
    while frame.len() < LENGTH_BYTES + bytes {
        if rest.read_buf(&mut frame).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(Some(frame.freeze()))
}

/// A whole frame of a header and a body.
pub(super) fn frame(
    header: &impl Encodable,
    header_version: i16,
    body: &impl Encodable,
    version: i16,
) -> io::Result<Bytes> {
    let mut frame = BytesMut::zeroed(LENGTH_BYTES);
    header.encode(&mut frame, header_version).map_err(invalid)?;
    body.encode(&mut frame, version).map_err(invalid)?;
    let length = i32::try_from(frame.len() - LENGTH_BYTES).map_err(invalid)?;
    frame[..LENGTH_BYTES].copy_from_slice(&length.to_be_bytes());
    Ok(frame.freeze())
}

pub(super) fn invalid(problem: impl fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, problem.to_string())
}

/// A connection of our own to a broker.
pub(super) struct Peer {
    endpoint: Endpoint,
    stream: TcpStream,
    asked: i32,
}

impl Peer {
    pub(super) async fn connect(endpoint: &Endpoint) -> io::Result<Self> {
        let stream = endpoint.connect().await.map_err(|error| {
            let message = format!(
                "{endpoint} cannot be reached ({error}): start Kafka there, or correct the address"
            );
            io::Error::new(error.kind(), message)
        })?;
        Ok(Self {
            endpoint: endpoint.clone(),
            stream,
            asked: 0,
        })
    }

    /// Sends a request and waits for its answer.
    pub(super) async fn call<R: Request>(
        &mut self,
        version: i16,
        request: &R,
    ) -> io::Result<R::Response> {
        let answered = timeout(ANSWER_MAX, self.exchange(version, request)).await;
        answered
            .map_err(io::Error::from)
            .flatten()
            .map_err(|error| {
                let api =
                    ApiKey::try_from(R::KEY).map_or_else(|()| R::KEY.to_string(), super::name);
                let message = format!("{} did not answer {api}: {error}", self.endpoint);
                io::Error::new(error.kind(), message)
            })
    }

    async fn exchange<R: Request>(&mut self, version: i16, request: &R) -> io::Result<R::Response> {
        self.asked += 1;
        let header = RequestHeader::default()
            .with_request_api_key(R::KEY)
            .with_request_api_version(version)
            .with_correlation_id(self.asked)
            .with_client_id(Some(StrBytes::from_static_str("skerry-demo-audit")));
        let asked = frame(&header, R::header_version(version), request, version)?;
        self.stream.write_all(&asked).await?;
        let answer = read_frame(&mut self.stream).await?;
        let mut answer = answer
            .ok_or(io::ErrorKind::UnexpectedEof)?
            .slice(LENGTH_BYTES..);
        let version_of_header = R::Response::header_version(version);
        let header = ResponseHeader::decode(&mut answer, version_of_header).map_err(invalid)?;
        if header.correlation_id != self.asked {
            return Err(invalid("the answer belongs to no request"));
        }
        R::Response::decode(&mut answer, version).map_err(invalid)
    }
}
