//! The other end of a connection, as far as its transport knows.

use std::net::SocketAddr;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Peer {
    /// `None` for a Unix socket, which is this machine.
    pub address: Option<SocketAddr>,
    /// The certificate that the client proved to own, where TLS asked for one.
    pub certificate: Option<CertificateNames>,
}

/// What a client certificate calls its owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CertificateNames {
    /// The subject's CN.
    pub common: Option<String>,
    /// DNS names, mail addresses and URIs among the subject's alternative names.
    pub alternative: Vec<String>,
}
