//! SOCKS version 5 (RFC 1928) with a login (RFC 1929), CONNECT only: the server that our Kafka
//! client dials through, and the client for a proxy on the way out. Reads exactly what the
//! protocol has, so that not one byte of the connection behind it is swallowed.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

const VERSION: u8 = 5;
const LOGIN_VERSION: u8 = 1;
const METHOD_NONE: u8 = 0;
const METHOD_LOGIN: u8 = 2;
const NO_METHOD: u8 = 0xff;
const CONNECT: u8 = 1;
const ADDRESS_V4: u8 = 1;
const ADDRESS_NAME: u8 = 3;
const ADDRESS_V6: u8 = 4;

/// Where a connection goes. A name is resolved by whoever dials it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) host: Host,
    pub(super) port: u16,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Host {
    Name(String),
    Address(IpAddr),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Name(name) => write!(f, "{name}:{}", self.port),
            Host::Address(IpAddr::V4(address)) => write!(f, "{address}:{}", self.port),
            Host::Address(IpAddr::V6(address)) => write!(f, "[{address}]:{}", self.port),
        }
    }
}

/// The answers of a server (RFC 1928, 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reply {
    Succeeded = 0,
    Failed = 1,
    NotAllowed = 2,
    NetworkUnreachable = 3,
    HostUnreachable = 4,
    Refused = 5,
    TimedOut = 6,
    NotSupported = 7,
    AddressNotSupported = 8,
}

impl Reply {
    fn in_words(code: u8) -> String {
        let words = match code {
            1 => "it failed",
            2 => "its rules do not allow that",
            3 => "the network is unreachable",
            4 => "the host is unreachable or its name unknown there",
            5 => "the broker refused the connection",
            6 => "the broker did not answer",
            7 => "it does not know CONNECT",
            8 => "it does not know this kind of address",
            _ => return format!("answer {code}, which SOCKS5 does not have"),
        };
        words.to_owned()
    }
}

/// A conversation that came to nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("{0}")]
    Io(io::Error),
    #[error("it hung up")]
    HungUp,
    #[error("it does not speak SOCKS5: {0}")]
    NotSocks(String),
    #[error("it takes no login by user and password")]
    NoLogin,
    #[error("it wants a login; give proxy_user and proxy_password_file")]
    LoginWanted,
    #[error("it does not know the user or the password")]
    LoginRefused,
    #[error("{0}")]
    Refused(String),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::HungUp,
            _ => Self::Io(error),
        }
    }
}

/// Server: takes a login that `known` knows and the wish for one connection. Whoever breaks the
/// protocol, or is not known, is told so where it allows and gets an error.
pub(super) async fn accept<S, T>(
    stream: &mut S,
    known: impl FnOnce(&[u8], &[u8]) -> Option<T>,
) -> Result<(T, Target), Failure>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    expect(stream, VERSION, "version").await?;
    let methods = counted(stream).await?;
    if !methods.contains(&METHOD_LOGIN) {
        stream.write_all(&[VERSION, NO_METHOD]).await?;
        return Err(Failure::NoLogin);
    }
    stream.write_all(&[VERSION, METHOD_LOGIN]).await?;
    expect(stream, LOGIN_VERSION, "login version").await?;
    let user = counted(stream).await?;
    let password = counted(stream).await?;
    let Some(who) = known(&user, &password) else {
        stream.write_all(&[LOGIN_VERSION, 1]).await?;
        return Err(Failure::LoginRefused);
    };
    stream.write_all(&[LOGIN_VERSION, 0]).await?;
    expect(stream, VERSION, "version").await?;
    let command = stream.read_u8().await?;
    expect(stream, 0, "reserved byte").await?;
    let target = match read_target(stream).await {
        Err(Failure::NotSocks(why)) => {
            reply(stream, Reply::AddressNotSupported).await?;
            return Err(Failure::NotSocks(why));
        }
        target => target?,
    };
    if command != CONNECT {
        reply(stream, Reply::NotSupported).await?;
        return Err(Failure::NotSocks(format!("command {command}")));
    }
    Ok((who, target))
}

/// Server: the answer to the wish. The address we connected from is nobody's business.
pub(super) async fn reply<S>(stream: &mut S, reply: Reply) -> io::Result<()>
where
    S: AsyncWrite + Unpin,
{
    let nowhere = [0; 6];
    let mut answer = vec![VERSION, reply as u8, 0, ADDRESS_V4];
    answer.extend(nowhere);
    stream.write_all(&answer).await
}

/// Client: has the proxy at the other end of `stream` connect to `target`.
pub(super) async fn connect<S>(
    stream: &mut S,
    target: &Target,
    login: Option<(&str, &str)>,
) -> Result<(), Failure>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let methods: &[u8] = match login {
        Some(_) => &[VERSION, 2, METHOD_NONE, METHOD_LOGIN],
        None => &[VERSION, 1, METHOD_NONE],
    };
    stream.write_all(methods).await?;
    expect(stream, VERSION, "version").await?;
    match (stream.read_u8().await?, login) {
        (METHOD_NONE, _) => {}
        (METHOD_LOGIN, Some((user, password))) => log_in(stream, user, password).await?,
        (NO_METHOD, None) => return Err(Failure::LoginWanted),
        (NO_METHOD, Some(_)) => return Err(Failure::NoLogin),
        (method, _) => return Err(Failure::NotSocks(format!("method {method}"))),
    }
    let mut request = vec![VERSION, CONNECT, 0];
    match &target.host {
        Host::Name(name) => {
            request.push(ADDRESS_NAME);
            push_counted(&mut request, name, "the broker's name")?;
        }
        Host::Address(IpAddr::V4(address)) => {
            request.push(ADDRESS_V4);
            request.extend(address.octets());
        }
        Host::Address(IpAddr::V6(address)) => {
            request.push(ADDRESS_V6);
            request.extend(address.octets());
        }
    }
    request.extend(target.port.to_be_bytes());
    stream.write_all(&request).await?;
    expect(stream, VERSION, "version").await?;
    let code = stream.read_u8().await?;
    if code != Reply::Succeeded as u8 {
        return Err(Failure::Refused(Reply::in_words(code)));
    }
    expect(stream, 0, "reserved byte").await?;
    read_target(stream).await.map(|_| ())
}

async fn log_in<S>(stream: &mut S, user: &str, password: &str) -> Result<(), Failure>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut login = vec![LOGIN_VERSION];
    push_counted(&mut login, user, "the user's name")?;
    push_counted(&mut login, password, "the password")?;
    stream.write_all(&login).await?;
    expect(stream, LOGIN_VERSION, "login version").await?;
    match stream.read_u8().await? {
        0 => Ok(()),
        _ => Err(Failure::LoginRefused),
    }
}

fn push_counted(bytes: &mut Vec<u8>, text: &str, what: &str) -> Result<(), Failure> {
    let length = u8::try_from(text.len()).ok().filter(|length| *length > 0);
    let length = length.ok_or_else(|| {
        Failure::Refused(format!(
            "{what} has {} bytes, SOCKS5 takes 1 to 255",
            text.len()
        ))
    })?;
    bytes.push(length);
    bytes.extend(text.as_bytes());
    Ok(())
}

async fn read_target<S: AsyncRead + Unpin>(stream: &mut S) -> Result<Target, Failure> {
    let host = match stream.read_u8().await? {
        ADDRESS_V4 => Host::Address(Ipv4Addr::from(stream.read_u32().await?).into()),
        ADDRESS_V6 => Host::Address(Ipv6Addr::from(stream.read_u128().await?).into()),
        ADDRESS_NAME => {
            let name = String::from_utf8(counted(stream).await?);
            let name = name.map_err(|_| Failure::NotSocks("a name that is no text".to_owned()))?;
            // Some clients send an address as a name.
            name.parse().map_or(Host::Name(name), Host::Address)
        }
        kind => return Err(Failure::NotSocks(format!("address type {kind}"))),
    };
    let port = stream.read_u16().await?;
    Ok(Target { host, port })
}

/// A length and as many bytes.
async fn counted<S: AsyncRead + Unpin>(stream: &mut S) -> Result<Vec<u8>, Failure> {
    let mut bytes = vec![0; usize::from(stream.read_u8().await?)];
    stream.read_exact(&mut bytes).await?;
    Ok(bytes)
}

async fn expect<S: AsyncRead + Unpin>(
    stream: &mut S,
    wanted: u8,
    what: &str,
) -> Result<(), Failure> {
    match stream.read_u8().await? {
        found if found == wanted => Ok(()),
        found => Err(Failure::NotSocks(format!("{what} {found}, not {wanted}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(host: Host) -> Target {
        Target { host, port: 9093 }
    }

    /// Our client against our server: what was asked for, and what each makes of it.
    async fn converse(
        wanted: Target,
        login: Option<(&str, &str)>,
        answer: Reply,
    ) -> (Result<(), String>, Result<Target, String>) {
        let (mut near, mut far) = tokio::io::duplex(64);
        let server = async {
            let known = |user: &[u8], password: &[u8]| {
                (user == b"ticket" && password == b"secret").then_some(())
            };
            let ((), target) = accept(&mut far, known).await?;
            reply(&mut far, answer).await?;
            Ok::<_, Failure>(target)
        };
        let client = async {
            let outcome = connect(&mut near, &wanted, login).await;
            drop(near);
            outcome
        };
        let (client, server) = tokio::join!(client, server);
        (
            client.map_err(|why| why.to_string()),
            server.map_err(|why| why.to_string()),
        )
    }

    #[tokio::test]
    async fn every_kind_of_address_arrives() {
        let hosts = [
            Host::Name("kafka.example.com".to_owned()),
            Host::Address([192, 0, 2, 7].into()),
            Host::Address("2001:db8::7".parse().unwrap()),
        ];
        for host in hosts {
            let wanted = target(host);
            let (client, server) =
                converse(wanted.clone(), Some(("ticket", "secret")), Reply::Succeeded).await;
            assert_eq!((client, server), (Ok(()), Ok(wanted)));
        }
    }

    #[tokio::test]
    async fn nobody_gets_in_without_the_ticket() {
        for (login, told) in [
            (Some(("ticket", "wrong")), "does not know the user"),
            (Some(("other", "secret")), "does not know the user"),
            (None, "wants a login; give proxy_user"),
        ] {
            let wanted = target(Host::Name("kafka".to_owned()));
            let (client, server) = converse(wanted, login, Reply::Succeeded).await;
            let client = client.unwrap_err();
            assert!(client.contains(told), "{client}");
            assert!(server.is_err());
        }
    }

    #[tokio::test]
    async fn a_refusal_is_told_in_words() {
        for (reply, told) in [
            (Reply::NotAllowed, "rules do not allow"),
            (Reply::HostUnreachable, "host is unreachable"),
            (Reply::Refused, "refused the connection"),
            (Reply::TimedOut, "did not answer"),
        ] {
            let wanted = target(Host::Name("kafka".to_owned()));
            let (client, _) = converse(wanted, Some(("ticket", "secret")), reply).await;
            let client = client.unwrap_err();
            assert!(client.contains(told), "{client}");
        }
        let wanted = target(Host::Name("k".repeat(256)));
        let (client, _) = converse(wanted, Some(("ticket", "secret")), Reply::Succeeded).await;
        assert!(client.unwrap_err().contains("256 bytes"));
    }

    #[tokio::test]
    async fn the_server_is_strict() {
        let greeting = b"\x05\x01\x02\x01\x06ticket\x06secret";
        let after = |request: &[u8]| [&greeting[..], request].concat();
        let cases = [
            (b"GET / HTTP/1.1\r\n".to_vec(), "version 71", &b""[..]),
            (b"\x04\x01".to_vec(), "version 4", b""),
            (b"\x05\x01\x00".to_vec(), "no login", b"\x05\xff"),
            (
                after(b"\x05\x02\x00\x01\x7f\0\0\x01\0\x50"),
                "command 2",
                b"\x05\x02\x01\x00\x05\x07\x00\x01",
            ),
            (
                after(b"\x05\x01\x00\x02"),
                "address type 2",
                b"\x05\x02\x01\x00\x05\x08\x00\x01",
            ),
            (
                after(b"\x05\x01\x01\x01"),
                "reserved byte 1",
                b"\x05\x02\x01\x00",
            ),
            (
                after(b"\x05\x01\x00\x03\x09kaf"),
                "hung up",
                b"\x05\x02\x01\x00",
            ),
        ];
        for (said, told, answered) in cases {
            let (mut near, mut far) = tokio::io::duplex(256);
            near.write_all(&said).await.unwrap();
            near.shutdown().await.unwrap();
            let why = accept(&mut far, |_, _| Some(())).await.unwrap_err();
            assert!(why.to_string().contains(told), "{why}");
            drop(far);
            let mut heard = Vec::new();
            near.read_to_end(&mut heard).await.unwrap();
            assert!(heard.starts_with(answered), "{told}: {heard:?}");
        }
    }

    /// What follows the conversation belongs to the connection.
    #[tokio::test]
    async fn not_one_byte_more_is_read() {
        let (mut near, mut far) = tokio::io::duplex(256);
        let said = b"\x05\x01\x02\x01\x01u\x01p\x05\x01\x00\x01\x7f\0\0\x01\0\x50hello";
        near.write_all(said).await.unwrap();
        accept(&mut far, |_, _| Some(())).await.unwrap();
        let mut rest = [0; 5];
        far.read_exact(&mut rest).await.unwrap();
        assert_eq!(&rest, b"hello");
    }
}
