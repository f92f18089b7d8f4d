//! `[mqtt] users_file`, `acl_file`, …, and `[mqtt.limits]`: who may connect to the broker, and how
//! much each may ask of it.

use super::reader::{Source, Table};
use super::units;
use skerry_broker::{
    AccessConfig, Acl, Address, Anonymous, CertificateIdentity, Config, Limits, Listener, Users,
};
use std::path::{Path, PathBuf};

/// The key of the users file, for whoever looks for it alone.
const USERS_FILE: &str = "users_file";
const RATE_MOST: usize = 10_000_000;

/// Reads what `[mqtt]` says of access into `config`. Both files are read, so that a problem in one
/// is a problem of the config.
pub fn read(table: &Table<'_>, base: &Path, config: &mut Config) {
    let AccessConfig {
        users_file,
        acl_file,
        anonymous,
        identity,
    } = &mut config.access;
    *users_file = table.optional(USERS_FILE, |value| {
        let path = units::path_from(base)(value)?;
        Users::load(&path).map_err(|error| match path.exists() {
            true => error.to_string(),
            false => format!("{error}; `skerry user add NAME --config FILE` makes it"),
        })?;
        Ok(path)
    });
    *acl_file = table.optional("acl_file", |value| {
        let path = units::path_from(base)(value)?;
        Acl::load(&path).map_err(|error| error.to_string())?;
        Ok(path)
    });
    let words = [
        ("always", Anonymous::Always),
        ("loopback", Anonymous::Loopback),
        ("never", Anonymous::Never),
    ];
    if let Some(word) = table.optional("anonymous", units::word(&words)) {
        *anonymous = word;
    }
    let words = [
        ("none", CertificateIdentity::None),
        ("cn", CertificateIdentity::CommonName),
        ("san", CertificateIdentity::AlternativeName),
    ];
    if let Some(word) = table.optional("identity", units::word(&words)) {
        *identity = word;
    }
    if let Some(table) = table.table("limits") {
        read_limits(&table, &mut config.limits);
        table.finish();
    }
}

fn read_limits(table: &Table<'_>, limits: &mut Limits) {
    let rate = |key| {
        let rate = table.optional(key, units::count(1..=RATE_MOST))?;
        u32::try_from(rate).ok()
    };
    limits.connections_per_address =
        table.optional("connections_per_address", units::count(1..=100_000));
    limits.connects_per_second = rate("connects_per_second");
    limits.publish_messages_per_second = rate("publish_messages_per_second");
    let bytes = table.optional(
        "publish_bytes_per_second",
        units::bytes(1024..=u64::from(u32::MAX)),
    );
    limits.publish_bytes_per_second = bytes.and_then(|bytes| u32::try_from(bytes).ok());
    if let Some(failures) = table.optional("login_failures", units::count(0..=1000)) {
        // Zero free failures would delay nobody's first: it turns the delays off.
        limits.login_failures = u32::try_from(failures)
            .ok()
            .filter(|failures| *failures > 0);
    }
}

/// What is right, but hardly meant: a broker that the network can reach and nobody there can use.
pub fn warning(mqtt: &Config) -> Option<String> {
    let access = &mqtt.access;
    let is_closed = access.users_file.is_none()
        && access.anonymous != Anonymous::Always
        && access.identity == CertificateIdentity::None;
    let public = |listener: &Listener| match listener.address {
        Address::Tcp(address) if !address.ip().to_canonical().is_loopback() => Some(address),
        Address::Tcp(_) | Address::Unix(_) => None,
    };
    let address = mqtt
        .listeners
        .iter()
        .find_map(public)
        .filter(|_| is_closed)?;
    Some(format!(
        "mqtt listens on {address}, which can be reached from the network, but clients from there are \
         refused: there are no users. Set mqtt.users_file and make some with `skerry user add NAME \
         --config FILE`; or, in a network where anybody may publish, set mqtt.anonymous = \"always\""
    ))
}

/// The users file that a config names, whatever else is wrong in there: it may well be that file.
///
/// # Errors
/// If the config cannot be read or names none.
pub fn users_file(config: &Path) -> Result<PathBuf, String> {
    let text = std::fs::read_to_string(config)
        .map_err(|why| format!("cannot read the config file {}: {why}", config.display()))?;
    let base = config.parent().unwrap_or_else(|| Path::new(""));
    let source = Source::new(config, &text);
    let path = source.read(|root| {
        let table = root.table("mqtt")?;
        table.optional(USERS_FILE, units::path_from(base))
    });
    path.ok_or_else(|| {
        format!(
            "{} has no users_file in its [mqtt]; write users_file = \"users\" there, or name the file \
             itself with --file",
            config.display()
        )
    })
}
