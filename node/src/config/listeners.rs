//! `[mqtt] listen` and `[[mqtt.listener]]`: where MQTT clients connect, and what is wrapped around
//! MQTT there.

use super::reader::{Severity, Table, Value};
use super::units;
use skerry_broker::{
    Address, ClientCertificates, EXPIRES_SOON_DAYS, Listener, Tls, UnixSocket, WebSocket,
};
use std::path::Path;

pub const MQTT_LISTEN_DEFAULT: &str = "0.0.0.0:1883";

/// Who may connect to a Unix socket: its owner and its group.
const MODE_DEFAULT: u32 = 0o660;

const TLS_KEYS: [&str; 5] = [
    "cert_file",
    "key_file",
    "client_ca_file",
    "crl_file",
    "client_certificate",
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Transport {
    Tcp,
    Tls,
    Ws,
    Wss,
    Unix,
}

impl Transport {
    const fn has_tls(self) -> bool {
        matches!(self, Self::Tls | Self::Wss)
    }

    const fn has_websocket(self) -> bool {
        matches!(self, Self::Ws | Self::Wss)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    Off,
    Optional,
    Required,
}

/// Every listener; the default one only where none is named.
pub fn read(mqtt: &Table<'_>, base: &Path) -> Vec<Listener> {
    let mut listeners = Vec::new();
    if let Some(address) = mqtt.optional("listen", units::listen) {
        listeners.push(Listener::tcp(address));
    }
    let tables = mqtt.tables("listener");
    for table in &tables {
        let read = read_listener(table, base);
        table.finish();
        let Some((key, listener)) = read else {
            continue;
        };
        let twice = |other: &Listener| match &other.address {
            Address::Tcp(address) if address.port() == 0 => false,
            address => *address == listener.address,
        };
        if listeners.iter().any(twice) {
            let message = format!("{} is listened on already", listener.address);
            table.problem(key, message);
        }
        listeners.push(listener);
    }
    if !mqtt.has("listen") && tables.is_empty() {
        let default = MQTT_LISTEN_DEFAULT.parse();
        listeners.extend(default.ok().map(Listener::tcp));
    }
    listeners
}

/// The listener, and the key that says where it is.
fn read_listener(table: &Table<'_>, base: &Path) -> Option<(&'static str, Listener)> {
    let transport = table.required(
        "transport",
        units::word(&[
            ("tcp", Transport::Tcp),
            ("tls", Transport::Tls),
            ("ws", Transport::Ws),
            ("wss", Transport::Wss),
            ("unix", Transport::Unix),
        ]),
    );
    let Some(transport) = transport else {
        // Which of them it needs is not known; all of them are keys.
        for key in ["listen", "path", "mode"].iter().chain(&TLS_KEYS) {
            table.has(key);
        }
        return None;
    };
    let address = read_address(table, base, transport);
    let websocket = transport.has_websocket().then(|| WebSocket {
        path: table.optional("path", http_path),
    });
    let tls = if transport.has_tls() {
        let tls = read_tls(table, base)?;
        check(table, &tls);
        Some(tls)
    } else {
        useless(table, &TLS_KEYS);
        None
    };
    let key = match transport {
        Transport::Unix => "path",
        _ => "listen",
    };
    let listener = Listener {
        tls,
        websocket,
        ..Listener::at(address?)
    };
    Some((key, listener))
}

fn read_address(table: &Table<'_>, base: &Path, transport: Transport) -> Option<Address> {
    if transport == Transport::Unix {
        useless(table, &["listen"]);
        let path = table.required("path", units::path_from(base));
        let mode = table.optional("mode", mode).unwrap_or(MODE_DEFAULT);
        return Some(Address::Unix(UnixSocket { path: path?, mode }));
    }
    useless(table, &["mode"]);
    if !transport.has_websocket() {
        useless(table, &["path"]);
    }
    table.required("listen", units::listen).map(Address::Tcp)
}

fn read_tls(table: &Table<'_>, base: &Path) -> Option<Tls> {
    let cert_file = table.required("cert_file", units::path_from(base));
    let key_file = table.required("key_file", units::path_from(base));
    let ca_file = table.optional("client_ca_file", units::path_from(base));
    let crl_file = table.optional("crl_file", units::path_from(base));
    let asked = table.optional(
        "client_certificate",
        units::word(&[
            ("off", Asked::Off),
            ("optional", Asked::Optional),
            ("required", Asked::Required),
        ]),
    );
    if !table.has("client_ca_file") {
        if asked.is_some_and(|asked| asked != Asked::Off) {
            table.problem("client_certificate", "needs client_ca_file, who signs them");
        }
        if crl_file.is_some() {
            table.problem("crl_file", "is of no use without client_ca_file");
        }
    }
    // Whoever names an authority means it.
    let asked = asked.unwrap_or(Asked::Required);
    let clients = ca_file.map(|ca_file| ClientCertificates {
        ca_file,
        crl_file,
        required: asked == Asked::Required,
    });
    Some(Tls {
        cert_file: cert_file?,
        key_file: key_file?,
        clients: clients.filter(|_| asked != Asked::Off),
    })
}

/// Tries the files. What is wrong with them is told, and no reason not to run: the node's other
/// listeners work, and files may be mended while it runs.
fn check(table: &Table<'_>, tls: &Tls) {
    match tls.check() {
        Err(error) => table.remark(error.key(), Severity::Wrong, error.to_string()),
        Ok(validity) => match validity.days_left_now() {
            days if days < 0 => {
                let message = "has expired: clients that check it will not connect";
                table.remark("cert_file", Severity::Warning, message);
            }
            days if days < EXPIRES_SOON_DAYS => {
                let message = format!("expires in {days} days");
                table.remark("cert_file", Severity::Warning, message);
            }
            _ => {}
        },
    }
}

/// Notes the `keys` that are there but mean nothing with this transport.
fn useless(table: &Table<'_>, keys: &[&str]) {
    for key in keys.iter().filter(|key| table.has(key)) {
        table.problem(key, "is of no use with this transport");
    }
}

fn http_path(value: &Value<'_>) -> Result<String, String> {
    let path = units::text(value)?;
    match path.starts_with('/') {
        true => Ok(path),
        false => Err(format!("`{path}` must begin with /, such as \"/mqtt\"")),
    }
}

fn mode(value: &Value<'_>) -> Result<u32, String> {
    let text = units::text(value)?;
    let mode = u32::from_str_radix(&text, 8).ok();
    mode.filter(|mode| *mode <= 0o777)
        .ok_or_else(|| format!("`{text}` must be an octal number such as \"0660\""))
}

#[cfg(test)]
mod tests {
    use super::super::reader::Source;
    use super::*;
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};
    use std::fs;

    /// The listeners, the problems and the remarks of an `[mqtt]` table in `base`.
    fn read_in(base: &Path, table: &str) -> (Vec<Listener>, Vec<String>, Vec<String>) {
        let source = Source::new(Path::new("skerry.toml"), table);
        let listeners = source.read(|table| read(table, base));
        let remarks = source.take_remarks();
        let remarks = remarks.iter().map(ToString::to_string).collect();
        let report = source.into_report();
        let report = report.map_or_else(String::new, |report| report.to_string());
        let mut problems: Vec<String> = report.lines().map(str::to_owned).collect();
        problems.pop();
        (listeners, problems, remarks)
    }

    fn certificate(folder: &Path, name: &str, last_year: i32) {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(last_year, 1, 1);
        let key = KeyPair::generate().expect("a key");
        let cert = params.self_signed(&key).expect("a certificate");
        fs::write(folder.join(format!("{name}.crt")), cert.pem()).expect("written");
        fs::write(folder.join(format!("{name}.key")), key.serialize_pem()).expect("written");
    }

    #[test]
    fn every_transport_is_read_into_its_layers() {
        let folder = tempfile::tempdir().expect("a folder");
        certificate(folder.path(), "node", 4000);
        let (listeners, problems, remarks) = read_in(
            folder.path(),
            r#"
listen = "0.0.0.0:1883"
listener = [
  { transport = "tcp", listen = "[::1]:1884" },
  { transport = "tls", listen = "0.0.0.0:8883", cert_file = "node.crt", key_file = "node.key" },
  { transport = "ws", listen = "0.0.0.0:8080", path = "/mqtt" },
  { transport = "wss", listen = "0.0.0.0:8443", cert_file = "node.crt", key_file = "node.key",
    client_ca_file = "node.crt", client_certificate = "optional" },
  { transport = "unix", path = "mqtt.sock", mode = "0600" },
]"#,
        );
        assert!(
            problems.is_empty() && remarks.is_empty(),
            "{problems:?} {remarks:?}"
        );
        let transports: Vec<_> = listeners.iter().map(Listener::transport).collect();
        assert_eq!(transports, ["tcp", "tcp", "tls", "ws", "wss", "unix"]);
        let file = |name: &str| folder.path().join(name);
        assert_eq!(
            listeners[4].tls,
            Some(Tls {
                cert_file: file("node.crt"),
                key_file: file("node.key"),
                clients: Some(ClientCertificates {
                    ca_file: file("node.crt"),
                    crl_file: None,
                    required: false,
                }),
            })
        );
        let path = listeners[3].websocket.as_ref().expect("a websocket");
        assert_eq!(path.path.as_deref(), Some("/mqtt"));
        let path = file("mqtt.sock");
        let socket = UnixSocket { path, mode: 0o600 };
        assert_eq!(listeners[5].address, Address::Unix(socket));
    }

    #[test]
    fn the_default_address_is_for_a_node_that_names_none() {
        let base = Path::new("");
        let (listeners, ..) = read_in(base, "");
        assert_eq!(listeners, [Listener::tcp(([0, 0, 0, 0], 1883).into())]);
        let (listeners, ..) = read_in(
            base,
            "listener = [{ transport = \"unix\", path = \"/run/mqtt\" }]",
        );
        assert_eq!(listeners.len(), 1);
        assert_eq!(listeners[0].transport(), "unix");
    }

    #[test]
    fn wrong_listeners_are_told_with_their_keys() {
        let (_, problems, _) = read_in(
            Path::new(""),
            r#"listen = "0.0.0.0:1883"
[[listener]]
transport = "tcp"
listen = "0.0.0.0:1883"
cert_file = "a"
[[listener]]
transport = "tls"
listen = "0.0.0.0:1"
client_certificate = "required"
crl_file = "a"
[[listener]]
transport = "unix"
path = "a"
mode = "rw"
listen = "0.0.0.0:2"
[[listener]]
transport = "ws"
path = "mqtt"
mode = "0660"
[[listener]]
transport = "quic"
path = "a"
pith = "a"
"#,
        );
        let expected = [
            "4: listener[0].listen: 0.0.0.0:1883 is listened on already",
            "5: listener[0].cert_file: is of no use",
            "6: listener[1].cert_file: is missing",
            "6: listener[1].key_file: is missing",
            "9: listener[1].client_certificate: needs client_ca_file",
            "10: listener[1].crl_file: is of no use",
            "14: listener[2].mode: `rw` must be an octal",
            "15: listener[2].listen: is of no use",
            "16: listener[3].listen: is missing",
            "18: listener[3].path: `mqtt` must begin with /",
            "19: listener[3].mode: is of no use",
            "21: listener[4].transport: `quic` must be one of",
            "23: listener[4].pith: is not a key skerry knows; did you mean `path`",
        ];
        assert_eq!(problems.len(), expected.len(), "{problems:#?}");
        for (problem, start) in problems.iter().zip(expected) {
            let problem = problem.strip_prefix("skerry.toml:").expect("the file");
            assert!(problem.starts_with(start), "{problem}\n{start}");
        }
    }

    #[test]
    fn what_is_wrong_with_the_files_is_a_remark_on_their_keys() {
        let folder = tempfile::tempdir().expect("a folder");
        certificate(folder.path(), "node", 4000);
        certificate(folder.path(), "other", 4000);
        certificate(folder.path(), "old", 2021);
        fs::write(folder.path().join("empty"), "").expect("written");
        for (cert, key, clients, told) in [
            ("node.crt", "node.key", "", None),
            (
                "absent",
                "node.key",
                "",
                Some("4: cert_file: cannot read cert_file"),
            ),
            (
                "node.crt",
                "absent",
                "",
                Some("5: key_file: cannot read key_file"),
            ),
            (
                "empty",
                "node.key",
                "",
                Some("4: cert_file: there is no certificate"),
            ),
            ("node.crt", "other.key", "", Some("5: key_file: the key in")),
            (
                "node.crt",
                "node.crt",
                "",
                Some("5: key_file: there is no private key"),
            ),
            ("old.crt", "old.key", "", Some("4: cert_file: has expired")),
            (
                "node.crt",
                "node.key",
                "client_ca_file = \"empty\"",
                Some("6: client_ca_file: there is no certificate"),
            ),
            (
                "node.crt",
                "node.key",
                "client_ca_file = \"node.crt\"\ncrl_file = \"absent\"",
                Some("7: crl_file: cannot read crl_file"),
            ),
        ] {
            let table = format!(
                "[[listener]]\ntransport = \"tls\"\nlisten = \"0.0.0.0:8883\"\n\
                 cert_file = \"{cert}\"\nkey_file = \"{key}\"\n{clients}\n"
            );
            let (listeners, problems, remarks) = read_in(folder.path(), &table);
            assert_eq!((listeners.len(), problems.len()), (1, 0), "{problems:?}");
            assert_eq!(remarks.len(), usize::from(told.is_some()), "{remarks:?}");
            if let (Some(told), Some(remark)) = (told, remarks.first()) {
                let (line, told) = told.split_once(' ').expect("a line number");
                let told = format!("skerry.toml:{line} listener[0].{told}");
                assert!(remark.contains(&told), "{remark}\n{told}");
            }
        }
    }
}
