//! What a certificate says of its owner, and how long it is good.

use crate::peer::CertificateNames;
use x509_parser::certificate::X509Certificate;
use x509_parser::error::X509Error;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

const DAY_SECONDS: i64 = 24 * 60 * 60;

/// Between which moments a certificate is good, in seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    pub(crate) not_before: i64,
    pub(crate) not_after: i64,
}

impl Validity {
    /// Whole days that are left at `now`, in seconds since 1970; negative once it has expired.
    #[must_use]
    pub const fn days_left(self, now: i64) -> i64 {
        (self.not_after - now).div_euclid(DAY_SECONDS)
    }
}

pub(crate) fn validity(der: &[u8]) -> Result<Validity, X509Error> {
    let validity = parse(der)?.validity().clone();
    Ok(Validity {
        not_before: validity.not_before.timestamp(),
        not_after: validity.not_after.timestamp(),
    })
}

/// The names in a certificate that was proven already.
pub(crate) fn names(der: &[u8]) -> Result<CertificateNames, X509Error> {
    let certificate = parse(der)?;
    let mut commons = certificate.subject().iter_common_name();
    let common = commons.next().and_then(|name| name.as_str().ok());
    let alternative = certificate.subject_alternative_name()?;
    let alternative = alternative
        .iter()
        .flat_map(|names| &names.value.general_names);
    Ok(CertificateNames {
        common: common.map(str::to_owned),
        alternative: alternative
            .filter_map(|name| match name {
                GeneralName::DNSName(name)
                | GeneralName::RFC822Name(name)
                | GeneralName::URI(name) => Some((*name).to_owned()),
                _ => None,
            })
            .collect(),
    })
}

fn parse(der: &[u8]) -> Result<X509Certificate<'_>, X509Error> {
    let (_, certificate) = X509Certificate::from_der(der).map_err(|error| match error {
        x509_parser::nom::Err::Error(error) | x509_parser::nom::Err::Failure(error) => error,
        x509_parser::nom::Err::Incomplete(_) => X509Error::Generic,
    })?;
    Ok(certificate)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DnType, KeyPair, SanType, date_time_ymd};

    #[test]
    fn names_and_days_are_read() {
        let mut params = CertificateParams::new(vec!["pump-1.hall".to_owned()]).expect("a name");
        let text = |text: &str| text.try_into().expect("ASCII");
        params.subject_alt_names.extend([
            SanType::Rfc822Name(text("pump@hall")),
            SanType::URI(text("urn:pump:1")),
            SanType::IpAddress([10, 0, 0, 1].into()),
        ]);
        params
            .distinguished_name
            .push(DnType::CommonName, "Pumpe 1 ä");
        params.not_after = date_time_ymd(2030, 1, 2);
        let key = KeyPair::generate().expect("a key");
        let der = params.self_signed(&key).expect("signed").der().to_vec();
        let expected = CertificateNames {
            common: Some("Pumpe 1 ä".to_owned()),
            alternative: ["pump-1.hall", "pump@hall", "urn:pump:1"]
                .map(str::to_owned)
                .to_vec(),
        };
        assert_eq!(names(&der).expect("names"), expected);
        // 2030-01-01 00:00:00 UTC, a day before.
        let new_year = 1_893_456_000;
        let validity = validity(&der).expect("dates");
        assert_eq!(validity.days_left(new_year), 1);
        assert_eq!(validity.days_left(new_year + DAY_SECONDS), 0);
        assert_eq!(validity.days_left(new_year + DAY_SECONDS + 1), -1);
        assert!(names(&der[..der.len() / 2]).is_err());
    }
}
