//! How long a certificate is good.

use super::report::Finding;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use std::path::Path;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

const DAY_SECONDS: i64 = 24 * 60 * 60;
/// Somebody has to see to it: a ship may have two visits to a harbour left.
const SOON_DAYS: i64 = 21;

/// Between which moments it is good, in seconds since 1970, and for whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Validity {
    not_before: i64,
    not_after: i64,
    subject: String,
}

impl Validity {
    pub(super) fn of(der: &[u8]) -> Result<Self, String> {
        let parsed = X509Certificate::from_der(der);
        let (_, certificate) =
            parsed.map_err(|error| format!("it is no X.509 certificate: {error}"))?;
        Ok(Self {
            not_before: certificate.validity().not_before.timestamp(),
            not_after: certificate.validity().not_after.timestamp(),
            subject: certificate.subject().to_string(),
        })
    }

    /// What to say of it at `now`, in seconds since 1970. `whose` completes "have … renewed".
    pub(super) fn judge(&self, check: &'static str, about: &str, now: i64, whose: &str) -> Finding {
        let days = (self.not_after - now).div_euclid(DAY_SECONDS);
        let name = &self.subject;
        let renew = format!("have {whose} renewed, or set this machine's clock if it is wrong");
        if now < self.not_before {
            let days = (self.not_before - now).div_euclid(DAY_SECONDS) + 1;
            let text = format!("{name} is good only in {days} days");
            return Finding::problem(check, about, text).fix(renew);
        }
        match days {
            ..0 => Finding::problem(check, about, format!("{name} expired {} days ago", -days))
                .fix(renew),
            0..SOON_DAYS => {
                Finding::warning(check, about, format!("{name} expires in {days} days")).fix(renew)
            }
            _ => Finding::ok(check, about, format!("{name}, {days} days left")),
        }
    }
}

/// The certificate that this node shows.
pub(super) fn own(file: &Path) -> Finding {
    const CHECK: &str = "certificate";
    let about = file.display().to_string();
    let first =
        CertificateDer::from_pem_file(file).map_err(|error| format!("cannot be read: {error}"));
    match first.and_then(|der| Validity::of(&der)) {
        Ok(validity) => validity.judge(CHECK, &about, now(), "it"),
        Err(why) => {
            Finding::problem(CHECK, about, why).fix("give a certificate in PEM as `cert_file`")
        }
    }
}

/// Seconds since 1970.
pub(super) fn now() -> i64 {
    skerry_store::WallNanos::now().millis().div_euclid(1_000)
}

#[cfg(test)]
mod tests {
    use super::super::report::Verdict;
    use super::*;

    #[test]
    fn days_are_counted_down_and_below() {
        let validity = Validity {
            not_before: 0,
            not_after: 100 * DAY_SECONDS,
            subject: "CN=n".to_owned(),
        };
        let judge = |day: i64| {
            let found = validity.judge("tls", "b:1", day * DAY_SECONDS, "it");
            (found.verdict, found.text)
        };
        assert_eq!(judge(50), (Verdict::Ok, "CN=n, 50 days left".to_owned()));
        assert_eq!(
            judge(80),
            (Verdict::Warning, "CN=n expires in 20 days".to_owned())
        );
        assert_eq!(
            judge(101),
            (Verdict::Problem, "CN=n expired 1 days ago".to_owned())
        );
        assert_eq!(judge(-1).0, Verdict::Problem);
        assert!(Validity::of(b"nonsense").is_err());
    }
}
