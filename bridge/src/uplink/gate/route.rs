//! How packets to an address would leave this machine. The only file that names `nix`.

use super::class::Leaving;
use nix::ifaddrs::getifaddrs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

/// Where no broker's name could be looked up: an address of nobody's (RFC 5737), which tells the
/// default route.
const ANYWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 9);

/// The way to the first of `brokers` that there is one to. Sends nothing: a connected UDP socket
/// asks the kernel's routing tables, whatever rules they follow.
pub(super) fn leaving(brokers: &[SocketAddr]) -> Option<Leaving> {
    let brokers = match brokers {
        [] => &[ANYWHERE],
        some => some,
    };
    let source = brokers.iter().find_map(source_towards)?;
    Some(Leaving {
        source,
        interface: interface_of(source),
    })
}

fn source_towards(broker: &SocketAddr) -> Option<IpAddr> {
    let any: IpAddr = match broker {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect(broker).ok()?;
    socket.local_addr().ok().map(|address| address.ip())
}

fn interface_of(source: IpAddr) -> Option<String> {
    let mut interfaces = getifaddrs().ok()?;
    let found = interfaces.find(|interface| {
        interface.address.is_some_and(|address| {
            let v4 = address.as_sockaddr_in().map(|it| IpAddr::V4(it.ip()));
            let v6 = address.as_sockaddr_in6().map(|it| IpAddr::V6(it.ip()));
            v4.or(v6) == Some(source)
        })
    });
    found.map(|interface| interface.interface_name)
}
