//! Certificates for one scenario: a private authority, and what it signs.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::Result;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose,
};

/// A private authority; its certificate is in a file for whoever is to trust it.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: PathBuf,
    pub file: PathBuf,
}

/// PEM files of one certificate.
pub struct Issued {
    pub cert_file: PathBuf,
    pub key_file: PathBuf,
    /// Both in one file, as Kafka's key stores have them.
    pub store: PathBuf,
}

impl Authority {
    pub fn new(folder: &Path, name: &str) -> Result<Self> {
        let mut params = named(name, &[])?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        let file = folder.join(format!("{name}.pem"));
        fs::write(&file, issuer.as_ref().pem())?;
        Ok(Self {
            issuer,
            folder: folder.to_path_buf(),
            file,
        })
    }

    /// A certificate that is good for both ends of a connection, for these host names or
    /// addresses.
    pub fn issue(&self, name: &str, hosts: &[&str]) -> Result<Issued> {
        self.sign(name, named(name, hosts)?)
    }

    /// The same for a client, good until a moment that may be near.
    pub fn issue_until(&self, name: &str, ends: SystemTime) -> Result<Issued> {
        let mut params = named(name, &[])?;
        params.not_after = ends.into();
        self.sign(name, params)
    }

    /// The same, good from a month ago until so many days from now.
    pub fn issue_for(&self, name: &str, hosts: &[&str], days: i64) -> Result<Issued> {
        let mut params = named(name, hosts)?;
        let now = SystemTime::now();
        let days_from_now = |days: i64| {
            let seconds = Duration::from_secs(days.unsigned_abs() * 86_400);
            if days < 0 {
                now - seconds
            } else {
                now + seconds
            }
        };
        params.not_before = days_from_now(-30).into();
        params.not_after = days_from_now(days).into();
        self.sign(name, params)
    }

    fn sign(&self, name: &str, mut params: CertificateParams) -> Result<Issued> {
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let key = KeyPair::generate()?;
        let cert = params.signed_by(&key, &self.issuer)?.pem();
        let key = key.serialize_pem();
        let file = |ending: &str| self.folder.join(format!("{name}.{ending}"));
        let issued = Issued {
            cert_file: file("cert.pem"),
            key_file: file("key.pem"),
            store: file("store.pem"),
        };
        fs::write(&issued.cert_file, &cert)?;
        private(&issued.key_file, &key)?;
        private(&issued.store, &format!("{key}{cert}"))?;
        Ok(issued)
    }
}

fn named(name: &str, hosts: &[&str]) -> Result<CertificateParams> {
    let hosts: Vec<String> = hosts.iter().map(|&host| host.to_owned()).collect();
    let mut params = CertificateParams::new(hosts)?;
    params.distinguished_name.push(DnType::CommonName, name);
    Ok(params)
}

/// A file that only its owner may read.
pub fn private(path: &Path, text: &str) -> Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut options = fs::OpenOptions::new();
    let options = options.write(true).create(true).truncate(true).mode(0o600);
    Ok(options.open(path)?.write_all(text.as_bytes())?)
}
