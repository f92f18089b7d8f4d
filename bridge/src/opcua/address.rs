//! Where things are: the endpoint of a server and the nodes in its address space, as written in
//! the configuration.

use super::browse_path::BrowsePath;
use std::fmt;
use std::str::FromStr;

/// Port of OPC-UA over TCP where a URL names none (Part 6, 7.2).
const PORT_DEFAULT: u16 = 4840;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    #[error(
        "`{0}` is not an OPC-UA endpoint: write it as opc.tcp://HOST:PORT or opc.tcp://HOST:PORT/PATH"
    )]
    Endpoint(String),
    #[error(
        "`{0}` is not a node id: write it as ns=2;s=Name, ns=2;i=1234, ns=2;g=GUID, ns=2;b=BASE64, or with nsu=URI; in place of ns=2;"
    )]
    Node(String),
    #[error(
        "`{0}` is not a browse path: write the names below the Objects folder, Plant/Pump1/Speed; a \
         name may carry its namespace, 2:Speed or nsu=URI;Speed, and & stands before a character \
         that would otherwise mean something"
    )]
    Path(String),
}

/// `opc.tcp://HOST[:PORT][/PATH]`. What is written here is what is dialled: servers often name
/// an address of their own that nobody outside their network can reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointUrl {
    text: String,
    host: String,
    port: u16,
}

impl EndpointUrl {
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Host name or address; IPv6 without its brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }
}

impl FromStr for EndpointUrl {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let wrong = || AddressError::Endpoint(text.to_owned());
        let rest = text.strip_prefix("opc.tcp://").ok_or_else(wrong)?;
        let authority = rest.split('/').next().unwrap_or_default();
        let (host, port) = match authority.strip_prefix('[') {
            Some(bracketed) => {
                let (host, after) = bracketed.split_once(']').ok_or_else(wrong)?;
                (host, after.strip_prefix(':'))
            }
            None => match authority.rsplit_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (authority, None),
            },
        };
        let port = match port {
            Some(port) => port
                .parse()
                .ok()
                .filter(|port| *port != 0)
                .ok_or_else(wrong)?,
            None => PORT_DEFAULT,
        };
        if host.is_empty() || host.contains(|c: char| c.is_whitespace() || c == '@') {
            return Err(wrong());
        }
        Ok(Self {
            text: text.to_owned(),
            host: host.to_owned(),
            port,
        })
    }
}

impl fmt::Display for EndpointUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A node as configured: by its id, or by the way to it.
///
/// An id has a namespace by index or, better, by URI: indexes are the server's own and may change
/// at its restart; a URI is looked up in the server's namespace array at every connect.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct NodeAddress(Place);

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Place {
    Id {
        namespace: Namespace,
        /// `s=…`, `i=…`, `g=…` or `b=…` (Part 6, 5.3.1.10).
        identifier: String,
    },
    Path(BrowsePath),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Namespace {
    Index(u16),
    Uri(String),
}

impl Namespace {
    /// As the server numbers it today; `None` if it does not know it.
    pub(super) fn index(&self, namespaces: &[String]) -> Option<u16> {
        match self {
            Self::Index(index) => Some(*index),
            Self::Uri(uri) => {
                let position = namespaces.iter().position(|known| known == uri)?;
                u16::try_from(position).ok()
            }
        }
    }
}

impl NodeAddress {
    /// From a command line: a node id, or a browse path where the text does not look like one.
    ///
    /// # Errors
    /// When it is neither.
    pub fn id_or_path(text: &str) -> Result<Self, AddressError> {
        let tags = ["ns=", "nsu=", "s=", "i=", "g=", "b="];
        // A path may start with the URI of its first element's namespace: `nsu=URI;Name/…`.
        match text.parse::<Self>() {
            Err(_) if text.starts_with("nsu=") => text.parse::<BrowsePath>().map(Self::from),
            Err(_) if !tags.iter().any(|tag| text.starts_with(tag)) => {
                text.parse::<BrowsePath>().map(Self::from)
            }
            parsed => parsed,
        }
    }

    /// The id in the server's terms, given its namespace array; `None` if the server does not
    /// know the namespace, and for a path, which only the server can tell the end of.
    #[must_use]
    pub fn resolve(&self, namespaces: &[String]) -> Option<String> {
        match &self.0 {
            Place::Id {
                namespace,
                identifier,
            } => {
                let index = namespace.index(namespaces)?;
                Some(format!("ns={index};{identifier}"))
            }
            Place::Path(_) => None,
        }
    }

    /// The other way round: what the server names `ns=2;…` today, by the URI of its namespace.
    /// An index stays where the server has no name for it, and in the standard's own namespace,
    /// whose index never changes.
    pub(super) fn lasting(node: &str, namespaces: &[String]) -> Option<Self> {
        let address: Self = node.parse().ok()?;
        let Place::Id {
            namespace: Namespace::Index(index @ 1..),
            identifier,
        } = &address.0
        else {
            return Some(address);
        };
        let uri = namespaces.get(usize::from(*index));
        // A part that looks like an identifier would be read as one.
        let plain = uri.filter(|uri| !uri.is_empty() && !uri.contains(';'));
        Some(plain.map_or_else(
            || address.clone(),
            |uri| {
                Self(Place::Id {
                    namespace: Namespace::Uri(uri.clone()),
                    identifier: identifier.clone(),
                })
            },
        ))
    }

    /// The way to the node, where it was configured by one.
    #[must_use]
    pub const fn path(&self) -> Option<&BrowsePath> {
        match &self.0 {
            Place::Path(path) => Some(path),
            Place::Id { .. } => None,
        }
    }

    /// The namespace's URI, where the node was configured by one.
    #[must_use]
    pub fn namespace_uri(&self) -> Option<&str> {
        match &self.0 {
            Place::Id {
                namespace: Namespace::Uri(uri),
                ..
            } => Some(uri),
            _ => None,
        }
    }
}

impl From<BrowsePath> for NodeAddress {
    fn from(path: BrowsePath) -> Self {
        Self(Place::Path(path))
    }
}

impl FromStr for NodeAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let wrong = || AddressError::Node(text.to_owned());
        let (namespace, identifier) = if let Some(rest) = text.strip_prefix("nsu=") {
            // A URI may itself hold semicolons (escaped ones in the standard, raw ones in the
            // wild): the identifier is what follows the last `;` that starts one.
            let split = ["s=", "i=", "g=", "b="]
                .iter()
                .filter_map(|tag| rest.find(&format!(";{tag}")))
                .min()
                .ok_or_else(wrong)?;
            let (uri, identifier) = rest.split_at(split);
            (Namespace::Uri(uri.to_owned()), &identifier[1..])
        } else if let Some(rest) = text.strip_prefix("ns=") {
            let (index, identifier) = rest.split_once(';').ok_or_else(wrong)?;
            (
                Namespace::Index(index.parse().map_err(|_| wrong())?),
                identifier,
            )
        } else {
            (Namespace::Index(0), text)
        };
        let (tag, value) = identifier.split_once('=').ok_or_else(wrong)?;
        let sound = match tag {
            "s" => !value.is_empty(),
            "i" => value.parse::<u32>().is_ok(),
            "g" => value.len() == 36 && value.chars().all(|c| c.is_ascii_hexdigit() || c == '-'),
            "b" => {
                !value.is_empty()
                    && value
                        .chars()
                        .all(|c| c.is_ascii_alphanumeric() || "+/=".contains(c))
            }
            _ => false,
        };
        if !sound || matches!(&namespace, Namespace::Uri(uri) if uri.is_empty()) {
            return Err(wrong());
        }
        Ok(Self(Place::Id {
            namespace,
            identifier: identifier.to_owned(),
        }))
    }
}

impl fmt::Display for NodeAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Place::Id {
                namespace: Namespace::Index(index),
                identifier,
            } => write!(f, "ns={index};{identifier}"),
            Place::Id {
                namespace: Namespace::Uri(uri),
                identifier,
            } => write!(f, "nsu={uri};{identifier}"),
            Place::Path(path) => path.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_name_a_host_and_a_port() {
        let plain: EndpointUrl = "opc.tcp://10.0.0.1".parse().unwrap();
        assert_eq!((plain.host(), plain.port()), ("10.0.0.1", 4840));
        let path: EndpointUrl = "opc.tcp://plc:4841/UA/Server".parse().unwrap();
        assert_eq!((path.host(), path.port()), ("plc", 4841));
        let v6: EndpointUrl = "opc.tcp://[::1]:4842/".parse().unwrap();
        assert_eq!((v6.host(), v6.port()), ("::1", 4842));
        for wrong in [
            "",
            "http://plc:4840",
            "opc.tcp://",
            "opc.tcp://plc:0",
            "opc.tcp://plc:x",
        ] {
            assert!(wrong.parse::<EndpointUrl>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_the_server_names_by_index_lasts_by_uri() {
        let namespaces = ["".into(), "urn:a".into(), "urn:b;c".into()];
        let lasting = |node| {
            let lasting = NodeAddress::lasting(node, &namespaces).unwrap();
            lasting.to_string()
        };
        assert_eq!(lasting("ns=1;s=x"), "nsu=urn:a;s=x");
        assert_eq!(lasting("ns=2;s=x"), "ns=2;s=x", "would be read as another");
        assert_eq!(
            lasting("ns=3;s=x"),
            "ns=3;s=x",
            "the server has no name for it"
        );
        assert_eq!(lasting("i=85"), "ns=0;i=85");
    }

    #[test]
    fn a_command_line_names_ids_and_paths() {
        let path = NodeAddress::id_or_path("Plant/Pump1/Speed").unwrap();
        assert!(path.path().is_some());
        let by_uri = NodeAddress::id_or_path("nsu=urn:a;Plant/Speed").unwrap();
        assert!(by_uri.path().is_some());
        let id = NodeAddress::id_or_path("ns=2;s=Plant/Speed").unwrap();
        assert!(id.path().is_none());
        assert!(NodeAddress::id_or_path("ns=2").is_err(), "an id gone wrong");
    }

    #[test]
    fn nodes_resolve_by_index_and_by_uri() {
        let namespaces = [
            "http://opcfoundation.org/UA/".into(),
            "urn:a".into(),
            "urn:b;c".into(),
        ];
        let resolve = |text: &str| text.parse::<NodeAddress>().unwrap().resolve(&namespaces);
        assert_eq!(
            resolve("ns=2;s=Pump1.Vibration").unwrap(),
            "ns=2;s=Pump1.Vibration"
        );
        assert_eq!(resolve("i=2258").unwrap(), "ns=0;i=2258");
        assert_eq!(resolve("nsu=urn:a;s=x;s=y").unwrap(), "ns=1;s=x;s=y");
        assert_eq!(resolve("nsu=urn:b;c;i=7").unwrap(), "ns=2;i=7");
        assert_eq!(resolve("nsu=urn:gone;i=7"), None);
        for wrong in [
            "",
            "s=",
            "ns=2",
            "ns=x;s=a",
            "ns=2;i=-1",
            "nsu=;s=a",
            "ns=2;q=a",
        ] {
            assert!(wrong.parse::<NodeAddress>().is_err(), "{wrong}");
        }
    }
}
