//! Link classes: what may be sent over a satellite is not what a harbour network takes. Plain
//! types and the choice among them. Pure.

use super::bucket::BitRate;
use super::budget::Budget;
use super::upstream::Proxy;
use super::window::Windows;
use serde::Serialize;
use skerry_store::StreamName;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

/// The name of the class that applies where no other does, and of the command that lifts one.
pub const DEFAULT: &str = "default";
pub const AUTO: &str = "auto";

/// A kind of link, when it is in use, and what it may be used for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkClass {
    pub name: String,
    /// In use while the route to the brokers leaves through this interface. Nothing is then sent
    /// by any other, whatever the routes become.
    pub interface: Option<String>,
    /// In use while the route to the brokers leaves from an address in this net.
    pub route: Option<Cidr>,
    /// Most that is sent; no limit without.
    pub bandwidth: Option<BitRate>,
    /// Most that is received.
    pub bandwidth_receive: Option<BitRate>,
    /// A connection on which the far side acknowledges nothing for so long is closed.
    pub dead_after: Duration,
    /// A broker or proxy that does not answer for so long cannot be reached.
    pub connect_within: Duration,
    pub budget: Budget,
    pub windows: Windows,
    pub proxy: Option<Proxy>,
    /// Only these streams use the link; all without.
    pub streams: Option<Vec<StreamName>>,
    pub pack: Option<Pack>,
}

/// Whether records are packed by column on this link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Pack {
    Auto,
    Off,
}

impl LinkClass {
    /// A link that may carry everything at any time.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            interface: None,
            route: None,
            bandwidth: None,
            bandwidth_receive: None,
            dead_after: Duration::from_secs(30),
            connect_within: Duration::from_secs(8),
            budget: Budget::default(),
            windows: Windows::always(),
            proxy: None,
            streams: None,
            pack: None,
        }
    }
}

/// The class in force and why it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkSettings {
    pub class: LinkClass,
    pub why: Why,
}

impl LinkSettings {
    /// Whether connections made under `other` may stay.
    pub(super) fn is_same_way(&self, other: &Self) -> bool {
        let way = |it: &Self| (it.class.name.clone(), it.class.interface.clone());
        way(self) == way(other) && self.class.proxy == other.class.proxy
    }
}

/// What made a class the one in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    Command,
    Interface(String),
    Route(String),
    Default,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Command => f.write_str("by command"),
            Self::Interface(name) => write!(f, "the route to the brokers leaves through {name}"),
            Self::Route(net) => write!(f, "the route to the brokers leaves from {net}"),
            Self::Default => f.write_str("no other class applies"),
        }
    }
}

/// How the route to the brokers leaves this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Leaving {
    pub(super) source: IpAddr,
    pub(super) interface: Option<String>,
}

/// The class in force: by command, else by interface, else by route, else the default one. The
/// first of `classes` that applies; each kind of reason is looked for in all before the next.
pub(super) fn select<'c>(
    default: &'c LinkClass,
    classes: &'c [LinkClass],
    command: Option<&str>,
    leaving: Option<&Leaving>,
) -> (&'c LinkClass, Why) {
    if let Some(command) = command {
        let mut all = classes.iter().chain([default]);
        if let Some(named) = all.find(|class| class.name == command) {
            return (named, Why::Command);
        }
    }
    if let Some(Leaving { source, interface }) = leaving {
        if let Some(name) = interface {
            let mut classes = classes.iter();
            if let Some(class) = classes.find(|class| class.interface.as_ref() == Some(name)) {
                return (class, Why::Interface(name.clone()));
            }
        }
        for class in classes {
            // A class that names an interface is not for another one.
            let net = class.route.filter(|net| net.contains(*source));
            if let (Some(net), None) = (net, &class.interface) {
                return (class, Why::Route(net.to_string()));
            }
        }
    }
    (default, Why::Default)
}

/// A net such as `10.8.0.0/16` or `fd00::/8`; an address alone is a net of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cidr {
    net: u128,
    prefix: u8,
    v4: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a net such as \"10.8.0.0/16\" or \"fd00::/8\", or an address")]
pub struct InvalidCidr(String);

impl Cidr {
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let (bits, v4) = bits(address);
        self.v4 == v4 && mask(bits, self.prefix, v4) == self.net
    }
}

impl FromStr for Cidr {
    type Err = InvalidCidr;

    fn from_str(text: &str) -> Result<Self, InvalidCidr> {
        let invalid = || InvalidCidr(text.to_owned());
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => {
                let prefix: u8 = prefix.parse().map_err(|_| invalid())?;
                (address, Some(prefix))
            }
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| invalid())?;
        let (bits, v4) = bits(address);
        let prefix = prefix.unwrap_or(width(v4));
        if prefix > width(v4) {
            return Err(invalid());
        }
        Ok(Self {
            net: mask(bits, prefix, v4),
            prefix,
            v4,
        })
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address: IpAddr = match u32::try_from(self.net) {
            Ok(net) if self.v4 => IpAddr::V4(net.into()),
            _ => IpAddr::V6(self.net.into()),
        };
        write!(f, "{address}/{}", self.prefix)
    }
}

/// The address as a number, and whether it is of version 4, also where it is written as 6.
fn bits(address: IpAddr) -> (u128, bool) {
    match address.to_canonical() {
        IpAddr::V4(address) => (u128::from(u32::from(address)), true),
        IpAddr::V6(address) => (address.into(), false),
    }
}

fn width(v4: bool) -> u8 {
    if v4 { 32 } else { 128 }
}

fn mask(bits: u128, prefix: u8, v4: bool) -> u128 {
    let host = u32::from(width(v4) - prefix);
    bits.checked_shr(host)
        .and_then(|net| net.checked_shl(host))
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaving(source: &str, interface: &str) -> Leaving {
        Leaving {
            source: source.parse().unwrap(),
            interface: Some(interface.to_owned()),
        }
    }

    #[test]
    fn a_class_is_chosen_by_command_interface_route_and_default_in_this_order() {
        let class = |name: &str, interface: Option<&str>, route: Option<&str>| LinkClass {
            interface: interface.map(str::to_owned),
            route: route.map(|net| net.parse().unwrap()),
            ..LinkClass::new(name)
        };
        let default = LinkClass::new(DEFAULT);
        let classes = [
            class("harbour", None, Some("10.0.0.0/8")),
            class("satellite", Some("eth1"), None),
            class("lte", Some("wwan0"), Some("10.9.0.0/16")),
        ];
        let chosen = |command, leaving: Option<&Leaving>| {
            let (class, why) = select(&default, &classes, command, leaving);
            (class.name.clone(), why)
        };
        let (eth1, eth0) = (leaving("10.1.2.3", "eth1"), leaving("10.9.2.3", "eth0"));
        let named = |name: &str, why| (name.to_owned(), why);
        assert_eq!(chosen(Some("lte"), Some(&eth1)), named("lte", Why::Command));
        assert_eq!(
            chosen(Some(DEFAULT), Some(&eth1)),
            named(DEFAULT, Why::Command)
        );
        let by_interface = named("satellite", Why::Interface("eth1".to_owned()));
        assert_eq!(chosen(None, Some(&eth1)), by_interface);
        // A command for a class that a new config has no more does not hold the link for ever.
        assert_eq!(chosen(Some("gone"), Some(&eth1)), by_interface);
        let by_route = named("harbour", Why::Route("10.0.0.0/8".to_owned()));
        assert_eq!(chosen(None, Some(&eth0)), by_route);
        let elsewhere = leaving("192.168.1.5", "eth0");
        assert_eq!(chosen(None, Some(&elsewhere)), named(DEFAULT, Why::Default));
        assert_eq!(chosen(None, None), named(DEFAULT, Why::Default));
    }

    #[test]
    fn nets_contain_their_addresses() {
        let has = |net: &str, address: &str| {
            net.parse::<Cidr>()
                .unwrap()
                .contains(address.parse().unwrap())
        };
        assert!(has("10.8.0.0/16", "10.8.255.1") && !has("10.8.0.0/16", "10.9.0.1"));
        assert!(has("10.8.0.7", "10.8.0.7") && !has("10.8.0.7", "10.8.0.6"));
        assert!(has("0.0.0.0/0", "1.2.3.4") && !has("0.0.0.0/0", "::1"));
        assert!(has("::/0", "2001:db8::1") && has("fd00::/8", "fd12::1"));
        assert!(has("10.0.0.0/8", "::ffff:10.1.1.1"));
        for bad in ["10.8.0.0/33", "10.8/16", "ten", "fd00::/129", "10.8.0.0/"] {
            assert!(bad.parse::<Cidr>().is_err(), "{bad}");
        }
        assert_eq!(
            "10.8.3.4/16".parse::<Cidr>().unwrap().to_string(),
            "10.8.0.0/16"
        );
        assert_eq!("fd12::1/8".parse::<Cidr>().unwrap().to_string(), "fd00::/8");
    }
}
