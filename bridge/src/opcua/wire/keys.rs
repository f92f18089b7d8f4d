//! A certificate with the private key that belongs to it, as files have them.

use super::certificate::pem;
use super::chain::leaf;
use super::vendor::{ByteString, KeySize, PrivateKey, SecurityPolicy, X509};
use crate::opcua::error::Error;
use std::path::Path;

const CERTIFICATE_BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const CERTIFICATE_END: &str = "-----END CERTIFICATE-----";

#[derive(Debug, Clone)]
pub(crate) struct KeyPair {
    pub(super) certificate: X509,
    pub(super) key: PrivateKey,
}

impl KeyPair {
    /// From two files, each PEM or DER, that belong together. Of a chain the first is taken.
    pub(crate) fn read(certificate: &Path, key: &Path) -> Result<Self, Error> {
        let pair = Self {
            certificate: read(certificate, parse_certificate)?,
            key: read(key, parse_key)?,
        };
        if pair.belongs_together() {
            return Ok(pair);
        }
        Err(Error::Pki {
            action: "use",
            path: key.to_owned(),
            detail: format!(
                "it is not the key of the certificate in {}: put the two that belong together there",
                certificate.display()
            ),
        })
    }

    /// What the key signs, the certificate verifies.
    fn belongs_together(&self) -> bool {
        let probe = b"skerry";
        let policy = SecurityPolicy::Basic256Sha256;
        let mut signature = vec![0; self.key.size()];
        let signed = policy.asymmetric_sign(&self.key, probe, &mut signature);
        let verified = self
            .certificate
            .public_key()
            .and_then(|public| policy.asymmetric_verify_signature(&public, probe, &signature));
        signed.is_ok() && verified.is_ok()
    }

    /// Whether the certificate is for the application of this name, as servers compare it with
    /// what a client says of itself (Part 4, 6.1.3): the first alternative name has to be it.
    pub(crate) fn is_for(&self, application_uri: &str) -> Result<(), String> {
        let checked = self.certificate.is_application_uri_valid(application_uri);
        checked.map_err(|error| error.to_string())
    }
}

fn read<T>(path: &Path, parse: fn(&[u8]) -> Result<T, &'static str>) -> Result<T, Error> {
    let failed = |action, detail| Error::Pki {
        action,
        path: path.to_owned(),
        detail,
    };
    let bytes = std::fs::read(path).map_err(|error| failed("read", error.to_string()))?;
    parse(&bytes).map_err(|detail| failed("use", detail.to_owned()))
}

fn parse_certificate(bytes: &[u8]) -> Result<X509, &'static str> {
    const WRONG: &str = "it is no X.509 certificate with an RSA key, neither PEM nor DER";
    let text = std::str::from_utf8(bytes).ok();
    let der = match text.and_then(|text| text.split_once(CERTIFICATE_BEGIN)) {
        Some((_, rest)) => {
            let (body, _) = rest.split_once(CERTIFICATE_END).ok_or(WRONG)?;
            let body: String = body.split_whitespace().collect();
            let der = ByteString::from_base64(&body).ok_or(WRONG)?;
            der.as_ref().to_vec()
        }
        None => bytes.to_vec(),
    };
    let certificate = X509::from_der(leaf(&der)).map_err(|_| WRONG)?;
    certificate.public_key().map_err(|_| WRONG)?;
    Ok(certificate)
}

fn parse_key(bytes: &[u8]) -> Result<PrivateKey, &'static str> {
    const WRONG: &str = "it is no private RSA key, neither PEM nor DER (PKCS#8 or PKCS#1)";
    let text = std::str::from_utf8(bytes).unwrap_or_default();
    if text.contains("ENCRYPTED") {
        return Err("it is protected by a passphrase: only a key without one can be used");
    }
    if text.contains("-----BEGIN ") {
        return PrivateKey::from_pem(bytes).map_err(|_| WRONG);
    }
    ["PRIVATE KEY", "RSA PRIVATE KEY"]
        .iter()
        .find_map(|label| PrivateKey::from_pem(pem(label, bytes).as_bytes()).ok())
        .ok_or(WRONG)
}
