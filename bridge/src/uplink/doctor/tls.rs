//! A TLS handshake for the sake of the certificates that are shown in it. No word of Kafka is
//! spoken on such a connection, so nothing is trusted to it; whether the node itself would trust
//! the broker is judged with the node's own authorities.

use super::certificate::{self, Validity};
use super::report::{Finding, Verdict};
use crate::uplink::config::Tls;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

const CHECK: &str = "tls";

/// What the broker at `at`, which `brokers` calls `broker`, shows of itself.
pub(super) async fn look(broker: &str, at: SocketAddr, ours: &Tls, patience: Duration) -> Finding {
    let (name, ours) = (broker.to_owned(), ours.clone());
    let look = tokio::task::spawn_blocking(move || handshake(&name, at, &ours, patience));
    match look.await {
        Ok(Ok(shown)) => judge(broker, &shown),
        Ok(Err(finding)) => *finding,
        Err(_) => Finding::unknown(CHECK, broker, "the look at its certificate ended early"),
    }
}

/// The broker's chain, and what is against it.
struct Shown {
    chain: Vec<CertificateDer<'static>>,
    refused: Option<Error>,
    version: &'static str,
}

fn judge(broker: &str, shown: &Shown) -> Finding {
    let now = certificate::now();
    let judged = shown.chain.iter().map(|der| match Validity::of(der) {
        Ok(validity) => validity.judge(CHECK, broker, now, "the broker's certificate"),
        Err(why) => Finding::problem(CHECK, broker, why),
    });
    // The worst of the chain, the leaf where all are as good.
    let rank = |finding: &Finding| match finding.verdict {
        Verdict::Problem => 0,
        Verdict::Warning => 1,
        Verdict::Ok | Verdict::Unknown => 2,
    };
    let Some(worst) = judged.min_by_key(rank) else {
        return Finding::problem(CHECK, broker, "shows no certificate")
            .fix("have the listener given one (ssl.keystore there)");
    };
    if worst.verdict == Verdict::Problem {
        return worst;
    }
    match &shown.refused {
        Some(error) => {
            let text = format!("this node does not trust {}: {error}", worst.text);
            Finding::problem(CHECK, broker, text).fix(
                "give the authority that signed it as `ca_file` in `tls`, and the broker by a name \
                 that is in its certificate",
            )
        }
        None => {
            let text = format!(
                "{} ({} in the chain, {})",
                worst.text,
                shown.chain.len(),
                shown.version
            );
            Finding { text, ..worst }
        }
    }
}

fn handshake(
    broker: &str,
    at: SocketAddr,
    ours: &Tls,
    patience: Duration,
) -> Result<Shown, Box<Finding>> {
    let told = |text: String| Box::new(Finding::problem(CHECK, broker, text));
    let roots = roots(ours.ca_file.as_deref()).map_err(|why| {
        Box::new(
            Finding::problem(CHECK, broker, why)
                .fix("give an authority's certificate in PEM as `ca_file`"),
        )
    })?;
    let host = broker.rsplit_once(':').map_or(broker, |(host, _)| host);
    let host = host
        .trim_start_matches('[')
        .trim_end_matches(']')
        .to_owned();
    let name =
        ServerName::try_from(host).map_err(|error| told(format!("is no name for TLS: {error}")))?;
    let provider = Arc::new(default_provider());
    let inner = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .build()
        .map_err(|error| told(format!("no authority to trust: {error}")))?;
    let witness = Arc::new(Witness {
        inner,
        seen: Mutex::default(),
    });
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| told(error.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::clone(&witness) as Arc<dyn ServerCertVerifier>)
        .with_no_client_auth();
    let mut tls =
        ClientConnection::new(Arc::new(config), name).map_err(|error| told(error.to_string()))?;
    let mut tcp =
        TcpStream::connect_timeout(&at, patience).map_err(|error| told(error.to_string()))?;
    let limits = tcp
        .set_read_timeout(Some(patience))
        .and_then(|()| tcp.set_write_timeout(Some(patience)));
    limits.map_err(|error| told(error.to_string()))?;
    let mut ended = None;
    while tls.is_handshaking() && ended.is_none() {
        ended = tls.complete_io(&mut tcp).err();
    }
    let seen = witness
        .seen
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take();
    let version = match tls.protocol_version() {
        Some(rustls::ProtocolVersion::TLSv1_3) => "TLS 1.3",
        _ => "TLS 1.2",
    };
    // Without a certificate of ours the broker may well end it, but not before it showed its own.
    match (seen, ended) {
        (Some((chain, refused)), _) => Ok(Shown {
            chain,
            refused,
            version,
        }),
        (None, Some(error)) => Err(Box::new(
            Finding::problem(CHECK, broker, format!("no handshake: {error}")).fix(
                "this port does not seem to speak TLS: give the port of a TLS listener in \
                 `brokers`, or take `tls` away",
            ),
        )),
        (None, None) => Err(told("shows no certificate".to_owned())),
    }
}

fn roots(ca_file: Option<&Path>) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    let Some(file) = ca_file else {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        return Ok(roots);
    };
    let told = |why: String| format!("{}: {why}", file.display());
    let certificates =
        CertificateDer::pem_file_iter(file).map_err(|error| told(error.to_string()))?;
    for certificate in certificates {
        let certificate = certificate.map_err(|error| told(error.to_string()))?;
        roots
            .add(certificate)
            .map_err(|error| told(error.to_string()))?;
    }
    match roots.is_empty() {
        true => Err(told("holds no certificate".to_owned())),
        false => Ok(roots),
    }
}

type Seen = (Vec<CertificateDer<'static>>, Option<Error>);

/// Notes what is shown and what is against it, and lets the handshake go on.
#[derive(Debug)]
struct Witness {
    inner: Arc<WebPkiServerVerifier>,
    seen: Mutex<Option<Seen>>,
}

impl ServerCertVerifier for Witness {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified = self
            .inner
            .verify_server_cert(end_entity, intermediates, name, ocsp, now);
        let chain = std::iter::once(end_entity).chain(intermediates);
        let chain = chain.map(|der| der.clone().into_owned()).collect();
        let seen = Some((chain, verified.err()));
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = seen;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, cert, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, cert, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}
