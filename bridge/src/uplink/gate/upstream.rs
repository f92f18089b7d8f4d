//! The way from the gate to a broker: straight, or through a proxy.

use super::class::LinkClass;
use super::http_connect;
use super::socket;
use super::socks::{self, Host, Reply, Target};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use tokio::net::{TcpSocket, TcpStream, lookup_host};
use tokio::time::{Instant, timeout, timeout_at};

/// An address gets at least so long before the next one is tried: the first SYN may be lost, and
/// a satellite takes 0.6 s for the second.
const ADDRESS_WITHIN_MIN: Duration = Duration::from_secs(3);
/// The system's words for it.
const EPERM: i32 = 1;
const ENODEV: i32 = 19;

/// A proxy on the way to the brokers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proxy {
    pub kind: ProxyKind,
    /// `host:port`.
    pub address: String,
    pub login: Option<Login>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyKind {
    Socks5,
    HttpConnect,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    pub user: String,
    /// Read for every connection; a trailing line break does not count.
    pub password_file: PathBuf,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a proxy skerry can use; write \"socks5://host:port\" or \"http://host:port\", and the login as proxy_user and proxy_password_file"
)]
pub struct InvalidProxy(String);

impl Proxy {
    /// `socks5://host:port` or `http://host:port`.
    ///
    /// # Errors
    /// With a sentence that says what is allowed.
    pub fn parse(text: &str) -> Result<Self, InvalidProxy> {
        let schemes = [
            ("socks5://", ProxyKind::Socks5),
            ("socks5h://", ProxyKind::Socks5),
            ("http://", ProxyKind::HttpConnect),
        ];
        let mut schemes = schemes.into_iter();
        let found = schemes.find_map(|(scheme, kind)| Some((kind, text.strip_prefix(scheme)?)));
        let invalid = || InvalidProxy(without_login(text));
        let (kind, address) = found.ok_or_else(invalid)?;
        let address = address.strip_suffix('/').unwrap_or(address);
        let target = split(address).filter(|_| !address.contains(['@', '/']));
        target.ok_or_else(invalid)?;
        Ok(Self {
            kind,
            address: address.to_owned(),
            login: None,
        })
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the proxy {}", self.address)
    }
}

/// A login that somebody wrote into the URL does not belong into a message.
fn without_login(text: &str) -> String {
    match (text.split_once("://"), text.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, address))) => format!("{scheme}://…@{address}"),
        _ => text.to_owned(),
    }
}

fn split(address: &str) -> Option<Target> {
    let (host, port) = address.rsplit_once(':')?;
    let port = port.parse().ok().filter(|port| *port != 0)?;
    let bare = host.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
    let host = match bare.unwrap_or(host) {
        "" => return None,
        name => name
            .parse()
            .map_or(Host::Name(name.to_owned()), Host::Address),
    };
    Some(Target { host, port })
}

/// Why there is no connection to a broker, for the operator.
#[derive(Debug, thiserror::Error)]
pub(super) enum DialError {
    #[error("the name {host} is not known here ({source}); is the name server reachable?")]
    Name { host: String, source: io::Error },
    #[error("cannot connect to {to}: {source}")]
    Connect { to: String, source: io::Error },
    #[error("{to} did not answer within {} s", within.as_secs())]
    TimedOut { to: String, within: Duration },
    #[error("cannot send through the interface {name}: {why}")]
    Interface { name: String, why: String },
    #[error("{proxy} refused CONNECT {target}: {said}")]
    Proxy {
        proxy: String,
        target: String,
        said: String,
    },
    #[error("cannot read the proxy's password from {}: {source}", file.display())]
    Password { file: PathBuf, source: io::Error },
}

impl DialError {
    /// The answer for our Kafka client, whose error then says the same in a word.
    pub(super) fn reply(&self) -> Reply {
        match self {
            Self::Name { .. } => Reply::HostUnreachable,
            Self::TimedOut { .. } => Reply::TimedOut,
            Self::Connect { source, .. } => match source.kind() {
                io::ErrorKind::ConnectionRefused => Reply::Refused,
                io::ErrorKind::NetworkUnreachable => Reply::NetworkUnreachable,
                io::ErrorKind::HostUnreachable => Reply::HostUnreachable,
                io::ErrorKind::TimedOut => Reply::TimedOut,
                _ => Reply::Failed,
            },
            Self::Interface { .. } => Reply::NetworkUnreachable,
            Self::Proxy { .. } | Self::Password { .. } => Reply::Failed,
        }
    }
}

/// A connection to `target` as `class` wants it, ready for the relay.
pub(super) async fn dial(target: &Target, class: &LinkClass) -> Result<TcpStream, DialError> {
    let Some(proxy) = &class.proxy else {
        return connect(target, class).await;
    };
    let deadline = Instant::now() + class.connect_within;
    let to = split(&proxy.address).expect("Proxy::parse has split it");
    let password = password(proxy).await?;
    let login = proxy.login.as_ref().zip(password.as_deref());
    let login = login.map(|(login, password)| (login.user.as_str(), password));
    let mut stream = connect(&to, class).await.map_err(|error| match error {
        DialError::Connect { source, .. } => DialError::Connect {
            to: proxy.to_string(),
            source,
        },
        other => other,
    })?;
    let asked = async {
        match proxy.kind {
            ProxyKind::Socks5 => socks::connect(&mut stream, target, login)
                .await
                .map_err(|why| why.to_string()),
            ProxyKind::HttpConnect => http_connect::connect(&mut stream, target, login)
                .await
                .map_err(|why| why.to_string()),
        }
    };
    match timeout_at(deadline, asked).await {
        Ok(Ok(())) => Ok(stream),
        Ok(Err(said)) => Err(DialError::Proxy {
            proxy: proxy.to_string(),
            target: target.to_string(),
            said,
        }),
        Err(_) => Err(DialError::TimedOut {
            to: format!("{target} through {proxy}"),
            within: class.connect_within,
        }),
    }
}

async fn password(proxy: &Proxy) -> Result<Option<String>, DialError> {
    let Some(Login { password_file, .. }) = &proxy.login else {
        return Ok(None);
    };
    match tokio::fs::read_to_string(password_file).await {
        Ok(text) => Ok(Some(text.trim_end_matches(['\r', '\n']).to_owned())),
        Err(source) => Err(DialError::Password {
            file: password_file.clone(),
            source,
        }),
    }
}

/// Tries the addresses in the resolver's order.
async fn connect(target: &Target, class: &LinkClass) -> Result<TcpStream, DialError> {
    let deadline = Instant::now() + class.connect_within;
    let timed_out = || DialError::TimedOut {
        to: target.to_string(),
        within: class.connect_within,
    };
    let resolved = timeout_at(deadline, resolve(target)).await;
    let addresses = resolved.map_err(|_| timed_out())??;
    let count = u32::try_from(addresses.len()).unwrap_or(u32::MAX).max(1);
    let each = (class.connect_within / count).max(ADDRESS_WITHIN_MIN);
    let mut failed = timed_out();
    for address in addresses {
        let left = deadline.saturating_duration_since(Instant::now());
        match timeout(each.min(left), connect_to(address, class)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => failed = error,
            Err(_) => failed = timed_out(),
        }
    }
    Err(failed)
}

async fn resolve(target: &Target) -> Result<Vec<SocketAddr>, DialError> {
    let name = match &target.host {
        Host::Address(address) => return Ok(vec![SocketAddr::new(*address, target.port)]),
        Host::Name(name) => name,
    };
    let unknown = |source| DialError::Name {
        host: name.clone(),
        source,
    };
    let found = lookup_host((name.as_str(), target.port)).await;
    let found: Vec<SocketAddr> = found.map_err(unknown)?.collect();
    match found.is_empty() {
        true => Err(unknown(io::Error::other("it has no address"))),
        false => Ok(found),
    }
}

async fn connect_to(address: SocketAddr, class: &LinkClass) -> Result<TcpStream, DialError> {
    let failed = |source| DialError::Connect {
        to: address.to_string(),
        source,
    };
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    };
    let socket = socket.map_err(failed)?;
    if let Some(name) = &class.interface {
        let bound = socket.bind_device(Some(name.as_bytes()));
        bound.map_err(|error| DialError::Interface {
            name: name.clone(),
            why: match error.raw_os_error() {
                Some(ENODEV) => "there is none of this name now".to_owned(),
                Some(EPERM) => "this kernel lets only a process with CAP_NET_RAW choose; add \
                                AmbientCapabilities=CAP_NET_RAW to the service"
                    .to_owned(),
                _ => error.to_string(),
            },
        })?;
    }
    let stream = socket.connect(address).await.map_err(failed)?;
    socket::prepare(&stream, class.dead_after).map_err(failed)?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_are_urls_without_a_login() {
        let proxy = Proxy::parse("socks5://proxy:1080").unwrap();
        assert_eq!(
            (proxy.kind, proxy.address.as_str()),
            (ProxyKind::Socks5, "proxy:1080")
        );
        let proxy = Proxy::parse("http://[fd00::1]:3128/").unwrap();
        assert_eq!(proxy.kind, ProxyKind::HttpConnect);
        let target = split(&proxy.address).unwrap();
        assert_eq!(target.host, Host::Address("fd00::1".parse().unwrap()));
        for bad in [
            "proxy:3128",
            "https://proxy:3128",
            "socks4://proxy:1080",
            "http://proxy",
            "http://:3128",
            "http://proxy:0",
            "http://proxy:3128/path",
        ] {
            let why = Proxy::parse(bad).unwrap_err().to_string();
            assert!(
                why.contains(bad) && why.contains("socks5://host:port"),
                "{why}"
            );
        }
        let why = Proxy::parse("http://user:hunter2@proxy:3128").unwrap_err();
        assert!(!why.to_string().contains("hunter2"), "{why}");
    }

    #[tokio::test]
    async fn what_keeps_a_dial_from_the_link_is_named() {
        let mut class = LinkClass::new("lte");
        let target = split("127.0.0.1:1").unwrap();
        let refused = dial(&target, &class).await.unwrap_err();
        assert_eq!(refused.reply(), Reply::Refused);
        assert!(refused.to_string().contains("127.0.0.1:1"), "{refused}");
        class.interface = Some("nosuch0".to_owned());
        let missing = dial(&target, &class).await.unwrap_err();
        assert_eq!(missing.reply(), Reply::NetworkUnreachable);
        assert!(
            missing.to_string().contains("interface nosuch0: "),
            "{missing}"
        );
        class.interface = None;
        class.proxy = Some(Proxy {
            login: Some(Login {
                user: "u".to_owned(),
                password_file: PathBuf::from("/nowhere/password"),
            }),
            ..Proxy::parse("http://127.0.0.1:1").unwrap()
        });
        let secret = dial(&target, &class).await.unwrap_err();
        assert!(secret.to_string().contains("/nowhere/password"), "{secret}");
        class.proxy = Some(Proxy::parse("socks5://127.0.0.1:1").unwrap());
        let away = dial(&target, &class).await.unwrap_err();
        assert!(away.to_string().contains("the proxy 127.0.0.1:1"), "{away}");
    }
}
