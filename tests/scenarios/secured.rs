//! A Kafka that speaks TLS and wants a login: what is right gets in, what is wrong says why.

use std::fs;
use std::path::Path;

use serde_json::Value;
use skerry_tests::audit::{self, Copies, Journal};
use skerry_tests::certificates::{Authority, Issued, private};
use skerry_tests::kafka::{Extra, Kafka};
use skerry_tests::node::{Node, Settings, skerry};
use skerry_tests::world::{Publishing, World};
use skerry_tests::{Result, ensure, wait};

use crate::common::{drained, link_is, log_agrees, logged_no_complaint};

const USER: &str = "vessel7";
const PASSWORD: &str = "correct horse";
/// A broker with a listener for each way in, the authority it trusts, and another one.
struct Secured {
    kafka: Kafka,
    authority: Authority,
    stranger: Authority,
    client: Issued,
    /// TLS and one of three SASL mechanisms.
    login: u16,
    /// TLS with a certificate on both sides.
    mutual: u16,
    /// TLS with the certificate of another host, and SCRAM.
    elsewhere: u16,
    /// TLS and SCRAM-SHA-512.
    scram_only: u16,
}

impl Secured {
    fn start(world: &World) -> Result<Self> {
        let authority = Authority::new(world.folder(), "authority")?;
        let stranger = Authority::new(world.folder(), "stranger")?;
        let here = authority.issue("here", &["127.0.0.1", "localhost"])?;
        let elsewhere = authority.issue("elsewhere", &["kafka.example.com"])?;
        let client = authority.issue("client", &[])?;
        let ports = [world.port()?, world.port()?, world.port()?, world.port()?];
        let listeners = [
            ("LOGIN", "SASL_SSL", ports[0]),
            ("MUTUAL", "SSL", ports[1]),
            ("ELSEWHERE", "SASL_SSL", ports[2]),
            ("SCRAM", "SASL_SSL", ports[3]),
        ];
        let jaas = "org.apache.kafka.common.security";
        let mut properties = format!(
            "listener.name.login.sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512
listener.name.login.plain.sasl.jaas.config={jaas}.plain.PlainLoginModule required user_{USER}=\"{PASSWORD}\";
listener.name.login.scram-sha-256.sasl.jaas.config={jaas}.scram.ScramLoginModule required;
listener.name.login.scram-sha-512.sasl.jaas.config={jaas}.scram.ScramLoginModule required;
listener.name.elsewhere.sasl.enabled.mechanisms=SCRAM-SHA-512
listener.name.elsewhere.scram-sha-512.sasl.jaas.config={jaas}.scram.ScramLoginModule required;
listener.name.scram.sasl.enabled.mechanisms=SCRAM-SHA-512
listener.name.scram.scram-sha-512.sasl.jaas.config={jaas}.scram.ScramLoginModule required;
listener.name.mutual.ssl.client.auth=required
listener.name.mutual.ssl.truststore.type=PEM
listener.name.mutual.ssl.truststore.location={}
",
            authority.file.display()
        );
        for (name, issued) in [
            ("login", &here),
            ("mutual", &here),
            ("scram", &here),
            ("elsewhere", &elsewhere),
        ] {
            let store = issued.store.display();
            properties.push_str(&format!(
                "listener.name.{name}.ssl.keystore.type=PEM
listener.name.{name}.ssl.keystore.location={store}
"
            ));
        }
        let mut format = Vec::new();
        for mechanism in ["SCRAM-SHA-256", "SCRAM-SHA-512"] {
            format.push("--add-scram".to_owned());
            format.push(format!("{mechanism}=[name={USER},password={PASSWORD}]"));
        }
        let extra = Extra {
            listeners: listeners
                .map(|(name, kind, port)| (name.to_owned(), kind, port))
                .into(),
            properties,
            format,
            ..Extra::default()
        };
        Ok(Self {
            kafka: Kafka::start_extended(world.folder(), world.logs(), &extra)?,
            authority,
            stranger,
            client,
            login: ports[0],
            mutual: ports[1],
            elsewhere: ports[2],
            scram_only: ports[3],
        })
    }
}

/// `base` with another way to Kafka: the port, and the keys of `[kafka]`.
pub(crate) fn towards(base: &Settings, port: u16, keys: &str) -> Settings {
    let mut settings = base.clone();
    settings.kafka = Some(format!("127.0.0.1:{port}"));
    settings.kafka_more = keys.to_owned();
    settings
}

pub(crate) fn ca(authority: &Authority) -> String {
    format!("tls = {{ ca_file = {:?} }}\n", authority.file)
}

pub(crate) fn identity(authority: &Authority, issued: &Issued) -> String {
    let (ca, cert, key) = (&authority.file, &issued.cert_file, &issued.key_file);
    format!("tls = {{ ca_file = {ca:?}, cert_file = {cert:?}, key_file = {key:?} }}\n")
}

fn user(mechanism: &str, password_file: &Path) -> String {
    format!("mechanism = \"{mechanism}\"\nuser = \"{USER}\"\npassword_file = {password_file:?}\n")
}

/// Publishes as `name` until the node has answered for all of it.
pub(crate) fn published(world: &World, node: &Node, name: &str) -> Result<Journal> {
    let publishing = Publishing {
        name,
        qos: 2,
        count: 150,
        ..Publishing::default()
    };
    let publisher = world.publisher(node.mqtt_port(), publishing)?;
    let journal = Journal::read(name, &publisher.join(wait::START)?)?;
    let (acked, sent) = (journal.acked(), journal.sent());
    ensure!(acked == sent, "{name}: {acked} of {sent} acknowledged");
    Ok(journal)
}

pub(crate) fn logins(world: &World) -> Result<()> {
    let secured = Secured::start(world)?;
    let password = world.folder().join("password");
    private(&password, &format!("{PASSWORD}\n"))?;
    let tls = ca(&secured.authority);
    let login = |mechanism| {
        (
            secured.login,
            format!("{tls}{}", user(mechanism, &password)),
        )
    };
    let ways = [
        ("scram-sha-512", login("SCRAM-SHA-512")),
        ("scram-sha-256", login("SCRAM-SHA-256")),
        ("plain", login("PLAIN")),
        (
            "certificate",
            (
                secured.mutual,
                identity(&secured.authority, &secured.client),
            ),
        ),
    ];
    let base = world.settings()?;
    let mut consumer = world.consumer(&secured.kafka.address())?;
    let mut node = world.node(base.clone())?;
    for (name, (port, keys)) in ways {
        node.configure(towards(&base, port, &keys))?;
        node.start()?;
        let journal = published(world, &node, name)?;
        let arrived = drained(&node, &mut consumer)?;
        audit::messages(&journal, &arrived, Copies::One)?;
        ensure!(
            node.terminate()?.success(),
            "{name}: the node did not stop cleanly"
        );
        logged_no_complaint(&node)?;
    }
    Ok(())
}

/// One way to do it wrong.
struct Wrong {
    what: &'static str,
    port: u16,
    keys: String,
    /// What is wrong and what to do, in the words of `/status`.
    told: [String; 2],
    /// Whether it is sure that waiting will not help.
    needs_operator: bool,
}

impl Wrong {
    fn new(what: &'static str, port: u16, keys: String, told: [&str; 2]) -> Self {
        Self {
            what,
            port,
            keys,
            told: told.map(str::to_owned),
            needs_operator: true,
        }
    }

    /// The other side just hangs up, which it also does when it is being stopped.
    fn unsure(self) -> Self {
        Self {
            needs_operator: false,
            ..self
        }
    }
}

fn wrongs(world: &World, secured: &Secured) -> Result<Vec<Wrong>> {
    let password = world.folder().join("password");
    let nonsense = world.folder().join("nonsense.pem");
    private(&password, PASSWORD)?;
    fs::write(&nonsense, "this is no certificate\n")?;
    let impostor = secured.stranger.issue("impostor", &[])?;
    let tls = ca(&secured.authority);
    let scram = user("SCRAM-SHA-512", &password);
    let &Secured {
        login,
        mutual,
        elsewhere,
        ..
    } = secured;
    let plain = secured.kafka.port();
    let untold = format!("tls = {{ ca_file = {nonsense:?} }}\n{scram}");
    let stranger = format!("{}{scram}", ca(&secured.stranger));
    let foreign = identity(&secured.authority, &impostor);
    Ok(vec![
        Wrong::new(
            "a CA file without a certificate",
            login,
            untold,
            ["no certificates found in CA", "nonsense.pem, "],
        ),
        Wrong::new(
            "another authority",
            login,
            stranger,
            [
                "UnknownIssuer",
                "stranger.pem has not signed the broker's certificate",
            ],
        ),
        Wrong::new(
            "a certificate for another host",
            elsewhere,
            format!("{tls}{scram}"),
            [
                "only valid for DnsName(\"kafka.example.com\")",
                "give brokers by a name",
            ],
        ),
        Wrong::new(
            "a mechanism that is not enabled",
            secured.scram_only,
            format!("{tls}{}", user("PLAIN", &password)),
            ["[\"SCRAM-SHA-512\"]", "check `user`, `mechanism`"],
        ),
        // The length of the answer is the beginning of a TLS alert; it is refused, not allocated.
        Wrong::new(
            "plaintext to a TLS listener",
            mutual,
            String::new(),
            ["exceeds maximum", "if it is a TLS listener, give `tls`"],
        ),
        Wrong::new(
            "no client certificate",
            mutual,
            tls.clone(),
            ["alert: BadCertificate", "give `cert_file` and `key_file`"],
        ),
        Wrong::new(
            "a client certificate of another authority",
            mutual,
            foreign,
            ["alert: ", "does not accept"],
        ),
        Wrong::new(
            "TLS to a plaintext listener",
            plain,
            tls.clone(),
            ["tls handshake eof", "not speak TLS"],
        )
        .unsure(),
        Wrong::new(
            "no login",
            login,
            tls,
            ["connection closed", "`user` and `password_file`"],
        )
        .unsure(),
    ])
}

/// Waits until `/status` gives this reason for the link being down, for it and for a stream.
pub(crate) fn told(node: &Node, what: &str, parts: &[&str]) -> Result<()> {
    let says = |text: &Value| {
        let text = text.as_str().unwrap_or("");
        parts.iter().all(|part| text.contains(part))
    };
    let what = format!("{what} is told as {parts:?}");
    node.wait_for_status(&what, wait::DRAIN, |status| {
        let streams = status["uplink"]["streams"].as_array();
        let uplink = &status["uplink"]["link"];
        uplink["state"] == "down"
            && says(&uplink["because"])
            && streams.is_some_and(|streams| streams.iter().all(|s| says(&s["last_error"])))
    })?;
    Ok(())
}

/// Whatever keeps the node from the cluster, it says so, goes on recording, and delivers all of
/// it once the cause is gone; a file that was wrong is read again without being asked to.
pub(crate) fn refused(world: &World) -> Result<()> {
    let secured = Secured::start(world)?;
    let base = world.settings()?;
    let mut node = world.node(base.clone())?;
    let mut journals = Vec::new();
    for (index, wrong) in wrongs(world, &secured)?.into_iter().enumerate() {
        let what = wrong.what;
        node.configure(towards(&base, wrong.port, &wrong.keys))?;
        node.start()?;
        let name = format!("wrong-{index}");
        journals.push(published(world, &node, &name)?);
        told(&node, what, &[&wrong.told[0], &wrong.told[1]])?;
        ensure!(
            node.get("/readyz")?.status == 200,
            "{what} made the node unready"
        );
        let alarmed = node.output()?.contains("delivery waits for an operator");
        ensure!(
            alarmed == wrong.needs_operator,
            "{what}: asked for an operator: {alarmed}"
        );
        ensure!(
            node.terminate()?.success(),
            "{what}: the node did not stop cleanly"
        );
    }

    let (ca_file, password) = (world.folder().join("ca.pem"), world.folder().join("mended"));
    fs::copy(&secured.stranger.file, &ca_file)?;
    private(&password, "battery staple")?;
    let tls = format!("tls = {{ ca_file = {ca_file:?} }}\n");
    let keys = format!("{tls}{}", user("SCRAM-SHA-512", &password));
    node.configure(towards(&base, secured.login, &keys))?;
    node.start()?;
    told(&node, "another authority", &["ca.pem has not signed"])?;
    fs::copy(&secured.authority.file, &ca_file)?;
    let wanted = ["invalid credentials", "check `user`", "mended"];
    told(&node, "a wrong password", &wanted)?;
    let address = format!("127.0.0.1:{}", node.settings().http_port);
    let printed = skerry(&["status", &address])?.text();
    for part in ["uplink   down", "invalid credentials", "check `user`"] {
        ensure!(printed.contains(part), "skerry status prints {printed}");
    }
    private(&password, PASSWORD)?;
    link_is(&node, "up")?;
    journals.push(published(world, &node, "right")?);
    let mut consumer = world.consumer(&secured.kafka.address())?;
    let arrived = drained(&node, &mut consumer)?;
    for journal in &journals {
        audit::messages(journal, &arrived, Copies::One)?;
    }
    ensure!(node.terminate()?.success(), "the node did not stop cleanly");
    log_agrees(&node, "telemetry", &arrived)
}
