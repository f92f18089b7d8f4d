//! A new application certificate with its key (Part 6, 6.2.2).

use super::vendor::{ByteString, PrivateKey, X509, X509Data};

/// Every policy we speak accepts it; a longer key costs a small PLC seconds per connect.
const KEY_BITS: u32 = 2048;
/// An industrial PC runs unattended for longer than any renewal habit: ten years.
const VALID_DAYS: u32 = 3653;

/// DER of the certificate and PKCS#8 PEM of its key: of `key`, where there is one (in PEM), or of a
/// new one, which takes seconds on a small board.
pub(crate) fn generate(
    application_uri: &str,
    key: Option<&[u8]>,
) -> Result<(Vec<u8>, String), String> {
    let data = X509Data {
        key_size: KEY_BITS,
        common_name: "skerry".to_owned(),
        organization: "skerry".to_owned(),
        organizational_unit: "skerry".to_owned(),
        country: "XX".to_owned(),
        state: "-".to_owned(),
        alt_host_names: X509Data::alt_host_names(application_uri, None, false, true, false),
        certificate_duration_days: VALID_DAYS,
    };
    let key = match key {
        Some(pem) => PrivateKey::from_pem(pem).map_err(|_| "its key cannot be read".to_owned())?,
        None => PrivateKey::new(KEY_BITS).map_err(|error| error.to_string())?,
    };
    let certificate = X509::from_pkey(&key, &data)?;
    let der = certificate.to_der().map_err(|error| error.to_string())?;
    let key = key.to_der().map_err(|error| error.to_string())?;
    Ok((der, pem("PRIVATE KEY", key.as_bytes())))
}

/// RFC 7468 with LF at the ends of lines: the crate writes CR, which openssl cannot read.
pub(super) fn pem(label: &str, der: &[u8]) -> String {
    let body = ByteString::from(der.to_vec()).as_base64();
    let mut text = format!("-----BEGIN {label}-----\n");
    let mut rest = body.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(64));
        text.push_str(line);
        text.push('\n');
        rest = after;
    }
    text.push_str(&format!("-----END {label}-----\n"));
    text
}
