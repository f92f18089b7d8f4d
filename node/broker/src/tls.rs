//! TLS 1.3 and 1.2: from PEM files to a server, from a stranger's bytes to a proven name.

use crate::certificate::{self, Validity};
use crate::peer::CertificateNames;
use crate::socket::{Boxed, Unopened};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{
    CertificateDer, CertificateRevocationListDer, PrivateKeyDer, UnixTime,
};
use tokio_rustls::rustls::server::{
    Acceptor, ClientHello, VerifierBuilderError, WebPkiClientVerifier,
};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::time_provider::TimeProvider;
use tokio_rustls::rustls::{self, CertificateError, InvalidMessage, RootCertStore, ServerConfig};
use tokio_rustls::{LazyConfigAcceptor, rustls::server::danger::ClientCertVerifier};

/// What a TLS listener is made of. All files are PEM, and may change while the broker runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// The server's certificate, then those between it and its authority.
    pub cert_file: PathBuf,
    pub key_file: PathBuf,
    /// Without it, no client is asked for a certificate.
    pub clients: Option<ClientCertificates>,
}

/// Which client certificates are proven.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificates {
    /// The authorities that sign them.
    pub ca_file: PathBuf,
    /// What these authorities have revoked.
    pub crl_file: Option<PathBuf>,
    /// Whether a client without one is turned away.
    pub required: bool,
}

/// A setting that names a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// The key in the configuration.
    pub key: &'static str,
    pub path: PathBuf,
}

/// What is wrong with the files of a TLS listener.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("cannot read {0}: {1}")]
    Unreadable(Setting, #[source] io::Error),
    #[error("{0} is not PEM: {1}")]
    Pem(Setting, #[source] pem::Error),
    #[error("there is no {1} in {0}; it must begin with -----BEGIN")]
    Empty(Setting, &'static str),
    #[error("{0} has a certificate that cannot be read: {1}")]
    Certificate(Setting, String),
    #[error("{0} has a key of a kind that cannot be used: {1}")]
    Key(Setting, #[source] rustls::Error),
    #[error("the key in {0} does not belong to the certificate in {1}")]
    Mismatch(Setting, Setting),
    #[error("{0} cannot be used: {1}")]
    Authority(Setting, #[source] VerifierBuilderError),
    #[error("{0} cannot be used: {1}")]
    Rejected(Setting, #[source] rustls::Error),
}

impl TlsError {
    /// The key in the configuration that names the file to look at.
    #[must_use]
    pub const fn key(&self) -> &'static str {
        match self {
            Self::Unreadable(setting, _)
            | Self::Pem(setting, _)
            | Self::Empty(setting, _)
            | Self::Certificate(setting, _)
            | Self::Key(setting, _)
            | Self::Mismatch(setting, _)
            | Self::Authority(setting, _)
            | Self::Rejected(setting, _) => setting.key,
        }
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.key, self.path.display())
    }
}

impl Tls {
    /// Reads the files and tries them together, as a broker does.
    ///
    /// # Errors
    /// The first file that cannot be used, and why.
    pub fn check(&self) -> Result<Validity, TlsError> {
        Server::load(self, b"").map(|server| server.validity)
    }

    /// Every file, in the order of their keys.
    pub(crate) fn files(&self) -> impl Iterator<Item = &Path> {
        let clients = self.clients.iter();
        let theirs = clients.flat_map(|clients| {
            let crl_file = clients.crl_file.as_deref();
            std::iter::once(clients.ca_file.as_path()).chain(crl_file)
        });
        [self.cert_file.as_path(), self.key_file.as_path()]
            .into_iter()
            .chain(theirs)
    }
}

/// One set of files, read and found good.
#[derive(Debug)]
pub(crate) struct Server {
    config: Arc<ServerConfig>,
    /// The same for a client that offers `protocol`.
    negotiating: Arc<ServerConfig>,
    protocol: &'static [u8],
    pub validity: Validity,
}

impl Server {
    /// `protocol` is what is agreed on by ALPN with a client that offers it.
    pub(crate) fn load(tls: &Tls, protocol: &'static [u8]) -> Result<Self, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let cert = Setting::new("cert_file", &tls.cert_file);
        let (key, validity) = certified_key(tls, &cert, &provider)?;
        let verifier = match &tls.clients {
            Some(clients) => verifier(clients, &provider)?,
            None => WebPkiClientVerifier::no_client_auth(),
        };
        let clock = Clock {
            earliest: UnixTime::since_unix_epoch(Duration::from_secs(
                validity.not_before.try_into().unwrap_or(0),
            )),
        };
        let mut config = ServerConfig::builder_with_details(provider, Arc::new(clock))
            .with_safe_default_protocol_versions()
            .map_err(|error| TlsError::Rejected(cert, error))?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(key)));
        let plain = Arc::new(config.clone());
        config.alpn_protocols = vec![protocol.to_vec()];
        Ok(Self {
            config: plain,
            negotiating: Arc::new(config),
            protocol,
            validity,
        })
    }

    /// Takes the connection through its handshake.
    pub(crate) async fn accept(
        &self,
        socket: Boxed,
    ) -> Result<(Boxed, Option<CertificateNames>), Unopened> {
        let start = LazyConfigAcceptor::new(Acceptor::default(), socket)
            .await
            .map_err(|error| unopened(&error))?;
        let config = if self.negotiates(&start.client_hello()) {
            &self.negotiating
        } else {
            &self.config
        };
        let stream = start
            .into_stream(Arc::clone(config))
            .await
            .map_err(|error| unopened(&error))?;
        let (_, session) = stream.get_ref();
        let leaf = session.peer_certificates().and_then(<[_]>::first);
        let names = leaf.map(|leaf| certificate::names(leaf)).transpose();
        let names = names.map_err(|error| Unopened {
            reason: "tls_certificate_refused",
            detail: format!("the names in the client's certificate cannot be read: {error}"),
        })?;
        Ok((Box::new(stream), names))
    }

    /// A client that offers other protocols only is served as if it had offered none: so do other
    /// brokers, and a browser offers HTTP whatever it wants to speak.
    fn negotiates(&self, hello: &ClientHello<'_>) -> bool {
        let mut offers = hello.alpn().into_iter().flatten();
        offers.any(|offer| offer == self.protocol)
    }
}

impl Setting {
    fn new(key: &'static str, path: &Path) -> Self {
        let path = path.to_owned();
        Self { key, path }
    }

    /// All items of one kind in the file, and at least one.
    fn items<T: PemObject>(&self, kind: &'static str) -> Result<Vec<T>, TlsError> {
        let pem =
            std::fs::read(&self.path).map_err(|error| TlsError::Unreadable(self.clone(), error))?;
        let items: Vec<T> = T::pem_slice_iter(&pem)
            .collect::<Result<_, _>>()
            .map_err(|error| TlsError::Pem(self.clone(), error))?;
        if items.is_empty() {
            return Err(TlsError::Empty(self.clone(), kind));
        }
        Ok(items)
    }
}

fn certified_key(
    tls: &Tls,
    cert: &Setting,
    provider: &CryptoProvider,
) -> Result<(CertifiedKey, Validity), TlsError> {
    let chain: Vec<CertificateDer<'static>> = cert.items("certificate")?;
    let validity = certificate::validity(&chain[0])
        .map_err(|error| TlsError::Certificate(cert.clone(), error.to_string()))?;
    let key = Setting::new("key_file", &tls.key_file);
    let mut keys: Vec<PrivateKeyDer<'static>> = key.items("private key")?;
    let certified = CertifiedKey::from_der(chain, keys.swap_remove(0), provider);
    let certified = certified.map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => TlsError::Mismatch(key, cert.clone()),
        error => TlsError::Key(key, error),
    })?;
    Ok((certified, validity))
}

fn verifier(
    clients: &ClientCertificates,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let ca = Setting::new("client_ca_file", &clients.ca_file);
    let mut roots = RootCertStore::empty();
    for authority in ca.items::<CertificateDer<'static>>("certificate")? {
        let added = roots.add(authority);
        added.map_err(|error| TlsError::Rejected(ca.clone(), error))?;
    }
    let mut builder =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
    let mut blamed = ca;
    if let Some(crl_file) = &clients.crl_file {
        let crl = Setting::new("crl_file", crl_file);
        let lists = crl.items::<CertificateRevocationListDer<'static>>("revocation list")?;
        // A list that is out of date still revokes: a site without a link cannot have a newer one.
        builder = builder.with_crls(lists).only_check_end_entity_revocation();
        blamed = crl;
    }
    if !clients.required {
        builder = builder.allow_unauthenticated();
    }
    builder
        .build()
        .map_err(|error| TlsError::Authority(blamed, error))
}

/// The wall clock, but never before our own certificate: a board without a clock boots in the
/// past, where no client's certificate is good yet and nobody could log in.
#[derive(Debug)]
struct Clock {
    earliest: UnixTime,
}

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::now().max(self.earliest))
    }
}

fn unopened(error: &io::Error) -> Unopened {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref());
    let (reason, detail) = match cause {
        None => ("closed_in_handshake", error.to_string()),
        Some(rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType)) => (
            "not_tls_on_tls_port",
            "the client does not speak TLS; is it set to plain MQTT or WebSocket?".to_owned(),
        ),
        Some(rustls::Error::NoCertificatesPresented) => (
            "tls_no_certificate",
            "the client has no certificate, and this listener requires one".to_owned(),
        ),
        Some(error) => (reason(error), error.to_string()),
    };
    Unopened { reason, detail }
}

const fn reason(error: &rustls::Error) -> &'static str {
    use rustls::Error as E;
    match error {
        E::InvalidCertificate(CertificateError::Revoked) => "tls_certificate_revoked",
        E::InvalidCertificate(
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. },
        ) => "tls_certificate_expired",
        E::InvalidCertificate(_) => "tls_certificate_refused",
        // It does not trust our certificate, or does not like its name.
        E::AlertReceived(_) => "tls_refused_by_client",
        E::PeerIncompatible(_) => "tls_incompatible",
        _ => "tls_failed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
    use tokio_rustls::TlsConnector;
    use tokio_rustls::rustls::ClientConfig;
    use tokio_rustls::rustls::pki_types::ServerName;

    /// A certificate and a key that sign themselves, in two files.
    fn issue(folder: &Path) -> (PathBuf, PathBuf) {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("signed");
        let (ca_file, cert_file, key_file) =
            (folder.join("ca"), folder.join("cert"), folder.join("key"));
        std::fs::write(ca_file, issuer.as_ref().pem()).expect("written");
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
        params.distinguished_name.push(DnType::CommonName, "pump-1");
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &issuer).expect("signed");
        std::fs::write(&cert_file, certificate.pem()).expect("written");
        std::fs::write(&key_file, key.serialize_pem()).expect("written");
        (cert_file, key_file)
    }

    #[tokio::test]
    async fn a_proven_certificate_gives_its_names() {
        let folder = tempfile::tempdir().expect("a folder");
        let (cert_file, key_file) = issue(folder.path());
        let tls = Tls {
            cert_file: cert_file.clone(),
            key_file: key_file.clone(),
            clients: Some(ClientCertificates {
                ca_file: folder.path().join("ca"),
                crl_file: None,
                required: false,
            }),
        };
        let server = Server::load(&tls, b"mqtt").expect("good files");
        let mut roots = RootCertStore::empty();
        let ca = CertificateDer::from_pem_file(folder.path().join("ca")).expect("PEM");
        roots.add(ca).expect("an authority");
        let client = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots);
        let chain = vec![CertificateDer::from_pem_file(&cert_file).expect("PEM")];
        let key = PrivateKeyDer::from_pem_file(&key_file).expect("PEM");
        let proven = client.clone().with_client_auth_cert(chain, key);
        for (config, expected) in [
            (proven.expect("a pair"), Some("pump-1")),
            (client.with_no_client_auth(), None),
        ] {
            let (near, far) = tokio::io::duplex(4096);
            let name = ServerName::try_from("localhost").expect("a name");
            let connector = TlsConnector::from(Arc::new(config));
            let (accepted, connected) =
                tokio::join!(server.accept(Box::new(far)), connector.connect(name, near));
            connected.expect("a connection");
            let (_, names) = accepted.expect("a connection");
            let common = names.and_then(|names| names.common);
            assert_eq!(common.as_deref(), expected);
        }
    }
}
