//! Getting into the cluster: what went wrong at the door, and what to do about it.
//!
//! The TLS library's own error lies at the bottom of the client's; it is looked at as a value,
//! not by its words. Advice names the keys of `[kafka]` and the files they point to.

use super::config::{Config, Sasl, Tls};
use rustls::{AlertDescription, CertificateError, Error as TlsError};
use std::error::Error;
use std::io;
use std::sync::Arc;

/// `error` and everything that it wraps, the outermost first.
pub(crate) fn chain<'a>(
    error: &'a (dyn Error + 'static),
) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| inner(error))
}

fn inner<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    match io_error(error) {
        // Its `source` leaves out the error it was made of.
        Some(io) => io.get_ref().map(|inner| inner as &(dyn Error + 'static)),
        None => error.source(),
    }
}

fn io_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a io::Error> {
    let shared = || error.downcast_ref::<Arc<io::Error>>().map(Arc::as_ref);
    error.downcast_ref().or_else(shared)
}

fn tls_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a TlsError> {
    chain(error).find_map(|error| error.downcast_ref())
}

/// What to do where one side would not have the other's certificate, or only one speaks TLS.
pub(crate) fn tls(config: &Config, error: &(dyn Error + 'static)) -> Option<String> {
    let found = tls_error(error)?;
    let ours = config.tls.as_ref();
    match found {
        TlsError::InvalidCertificate(why) => Some(certificate(ours, why)),
        TlsError::AlertReceived(alert) if is_about_a_certificate(*alert) => Some(identity(ours)),
        TlsError::AlertReceived(alert) if is_about_the_protocol(*alert) => Some(
            "the listener cannot agree with this node on how to speak TLS: it needs TLS 1.2 or \
             1.3 and a certificate of its own (ssl.enabled.protocols and ssl.keystore there)"
                .to_owned(),
        ),
        TlsError::InvalidMessage(_) => Some(
            "this port does not seem to speak TLS: give the port of a TLS listener in `brokers`, \
             or take `tls` away"
                .to_owned(),
        ),
        _ => None,
    }
}

/// The broker's certificate will not do.
fn certificate(ours: Option<&Tls>, why: &CertificateError) -> String {
    let ca_file = ours.and_then(|tls| tls.ca_file.as_deref());
    match (why, ca_file) {
        (CertificateError::UnknownIssuer | CertificateError::BadSignature, Some(ca_file)) => {
            format!(
                "{} has not signed the broker's certificate: give the authority that did as \
                 `ca_file` in `tls`",
                ca_file.display()
            )
        }
        (CertificateError::UnknownIssuer | CertificateError::BadSignature, None) => {
            "no public authority has signed the broker's certificate: give its own authority as \
             `ca_file` in `tls`"
                .to_owned()
        }
        (
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            _,
        ) => "give brokers by a name that is in their certificate, in `brokers` and in the \
             cluster's advertised.listeners, or have a certificate issued for this name"
            .to_owned(),
        (
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. },
            _,
        ) => "set this machine's clock if it is wrong, or have the broker's certificate renewed"
            .to_owned(),
        _ => "the broker needs another certificate".to_owned(),
    }
}

/// The broker will not have ours, or has none of us.
fn identity(ours: Option<&Tls>) -> String {
    match ours.and_then(|tls| tls.identity.as_ref()) {
        Some(identity) => format!(
            "the broker does not accept {}: have it signed by an authority in the broker's \
             ssl.truststore, and look whether it has expired",
            identity.cert_file.display()
        ),
        None => "the broker asks for a certificate of this node: give `cert_file` and `key_file` \
                 in `tls`"
            .to_owned(),
    }
}

fn is_about_a_certificate(alert: AlertDescription) -> bool {
    matches!(
        alert,
        AlertDescription::NoCertificate
            | AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::AccessDenied
            | AlertDescription::CertificateRequired
    )
}

fn is_about_the_protocol(alert: AlertDescription) -> bool {
    matches!(
        alert,
        AlertDescription::HandshakeFailure
            | AlertDescription::ProtocolVersion
            | AlertDescription::InsufficientSecurity
    )
}

/// What to do about a login that was refused, where it was the login.
pub(crate) fn login(config: &Config, error: &(dyn Error + 'static)) -> Option<String> {
    let sasl = config.sasl.as_ref()?;
    let file = sasl.secret().1.display();
    tls_error(error).is_none().then(|| match sasl {
        Sasl::Password { .. } => {
            format!("check `user`, `mechanism` and the password in {file}")
        }
        Sasl::TokenFile(_) => format!(
            "check the token in {file}: whether it has ended, and whether it is for this cluster"
        ),
        Sasl::TokenEndpoint { .. } => format!(
            "check `token_endpoint`, `client_id`, `scope` and the secret in {file}, and whether \
             the listener takes OAUTHBEARER"
        ),
    })
}

/// What to do where the other side hangs up on the first words.
pub(crate) fn hung_up(config: &Config, error: &(dyn Error + 'static)) -> Option<&'static str> {
    let mut kinds = chain(error).filter_map(|error| io_error(error).map(io::Error::kind));
    kinds.find(|kind| {
        matches!(
            kind,
            io::ErrorKind::UnexpectedEof
                | io::ErrorKind::ConnectionReset
                | io::ErrorKind::BrokenPipe
        )
    })?;
    Some(match (&config.tls, &config.sasl) {
        (None, _) => "if this lasts, the listener may want TLS: give `tls`",
        (Some(_), None) => {
            "if this lasts, the listener may want a login (give `user` and `password_file`) or \
             not speak TLS (give another port in `brokers`)"
        }
        (Some(_), Some(_)) => {
            "if this lasts, the listener may not speak TLS or take no login: give the port of a \
             SASL_SSL listener in `brokers`"
        }
    })
}

/// What to do where four bytes that should be a length are none.
pub(crate) const NOT_KAFKA: &str = "what answers here does not speak Kafka in the clear: if it is \
                                    a TLS listener, give `tls`, else another port in `brokers`";

/// What to do about a file that is there but is not what it should be.
pub(crate) fn files(config: &Config) -> String {
    let tls = config.tls.iter().flat_map(Tls::files);
    let secret = config.sasl.iter().map(|sasl| sasl.secret().1);
    let files = tls.chain(secret).map(|file| file.display().to_string());
    let files: Vec<String> = files.collect();
    match files.as_slice() {
        [] => "check `[kafka]`".to_owned(),
        files => format!(
            "check {}: certificates and keys in PEM, a password or token as it is",
            files.join(", ")
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::config::{Identity, Mechanism, NodeName};
    use super::*;
    use std::path::PathBuf;

    fn config(tls: Tls) -> Config {
        let mut config = Config::new(NodeName::new("n").unwrap(), vec!["b:1".to_owned()]);
        config.tls = Some(tls);
        config
    }

    /// As the client hands them on: the TLS library's error in an I/O error, perhaps shared.
    fn wrapped(error: TlsError) -> Arc<io::Error> {
        let inner = io::Error::new(io::ErrorKind::InvalidData, error);
        Arc::new(io::Error::other(inner))
    }

    #[test]
    fn every_kind_of_certificate_trouble_has_its_own_advice() {
        let named = || Tls {
            ca_file: Some(PathBuf::from("/etc/skerry/ca.pem")),
            identity: Some(Identity {
                cert_file: PathBuf::from("/etc/skerry/node.pem"),
                key_file: PathBuf::from("/etc/skerry/node.key"),
            }),
        };
        let bad = TlsError::InvalidCertificate;
        let alert = TlsError::AlertReceived;
        let cases = [
            (
                named(),
                bad(CertificateError::UnknownIssuer),
                "/etc/skerry/ca.pem has not signed",
            ),
            (
                Tls::default(),
                bad(CertificateError::UnknownIssuer),
                "no public authority",
            ),
            (
                named(),
                bad(CertificateError::NotValidForName),
                "advertised.listeners",
            ),
            (named(), bad(CertificateError::Expired), "clock"),
            (
                named(),
                bad(CertificateError::Revoked),
                "another certificate",
            ),
            (
                named(),
                alert(AlertDescription::UnknownCA),
                "does not accept /etc/skerry/node.pem",
            ),
            (
                Tls::default(),
                alert(AlertDescription::CertificateRequired),
                "give `cert_file`",
            ),
        ];
        for (ours, error, wanted) in cases {
            let text = format!("{error:?}");
            let advice = tls(&config(ours), &wrapped(error)).unwrap_or_default();
            assert!(advice.contains(wanted), "{text}: {advice}");
        }
    }

    #[test]
    fn a_broken_handshake_is_not_blamed_on_the_login() {
        let mut config = config(Tls::default());
        config.sasl = Some(Sasl::Password {
            mechanism: Mechanism::Plain,
            user: "n".to_owned(),
            password_file: PathBuf::from("/etc/skerry/password"),
        });
        let handshake = wrapped(TlsError::AlertReceived(AlertDescription::HandshakeFailure));
        assert_eq!(login(&config, &handshake), None);
        assert!(tls(&config, &handshake).is_some_and(|advice| advice.contains("TLS 1.2")));
        let answer = io::Error::other("SaslAuthenticationFailed");
        assert!(login(&config, &answer).is_some_and(|advice| advice.contains("/etc/skerry/pass")));
    }

    #[test]
    fn what_is_not_about_trust_gets_no_advice() {
        let config = config(Tls::default());
        let reset = io::Error::from(io::ErrorKind::ConnectionReset);
        assert_eq!(tls(&config, &reset), None);
        let closing = TlsError::AlertReceived(AlertDescription::CloseNotify);
        assert_eq!(tls(&config, &wrapped(closing)), None);
    }
}
