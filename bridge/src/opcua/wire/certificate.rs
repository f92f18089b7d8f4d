//! A new application certificate with its key (Part 6, 6.2.2).

use super::vendor::{ByteString, PrivateKey, X509, X509Data};
use skerry_store::WallNanos;

/// Every policy we speak accepts it; a longer key costs a small PLC seconds per connect.
const KEY_BITS: u32 = 2048;
/// An industrial PC runs unattended for longer than any renewal habit: ten years.
const VALID_DAYS: u32 = 3653;

/// How long a certificate is to be valid that is made when the clock shows `now`. One that has not
/// been set would have it end before the present: then the decades until then come on top.
fn valid_days(now: WallNanos) -> u32 {
    const BEGIN_OF_2026_SECS: u64 = 1_767_225_600;
    const DAY_SECS: u64 = 86_400;
    let shown = u64::try_from(now.millis()).unwrap_or(0) / 1_000;
    let behind = match now.is_set() {
        true => 0,
        false => BEGIN_OF_2026_SECS.saturating_sub(shown) / DAY_SECS,
    };
    // Twice the ten years, as nobody knows by how much the present is later still.
    let more = if behind > 0 { VALID_DAYS } else { 0 };
    VALID_DAYS + more + u32::try_from(behind).unwrap_or(0)
}

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
        certificate_duration_days: valid_days(WallNanos::now()),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_made_in_1970_is_valid_in_the_present() {
        let years = |now: i64| valid_days(WallNanos(now * 1_000_000_000)) / 365;
        assert_eq!(years(1_800_000_000), 10);
        // Until 2046, from 1970 and from 2015.
        assert_eq!(years(60), 76);
        assert_eq!(years(1_420_070_400), 31);
    }
}
