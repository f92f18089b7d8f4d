//! `skerry uplink doctor` against a real broker: what is right is called well, what is wrong is
//! named with what to do.

use std::time::Duration;

use serde_json::Value;
use skerry_tests::certificates::{Authority, Issued, private};
use skerry_tests::cluster::Operator;
use skerry_tests::kafka::{Extra, Kafka};
use skerry_tests::node::{Node, Settings, skerry};
use skerry_tests::world::World;
use skerry_tests::{Result, backlog, ensure};

const USER: &str = "vessel7";
const PASSWORD: &str = "correct horse";

struct Clinic {
    kafka: Kafka,
    authority: Authority,
    /// TLS, a login, and access rules that let it do nothing of itself.
    login: u16,
    /// TLS with a certificate that has expired.
    expired: u16,
}

impl Clinic {
    fn start(world: &World) -> Result<Self> {
        let authority = Authority::new(world.folder(), "authority")?;
        let here = authority.issue("here", &["127.0.0.1"])?;
        let old = authority.issue_for("old", &["127.0.0.1"], -3)?;
        let (login, expired) = (world.port()?, world.port()?);
        let jaas = "org.apache.kafka.common.security.plain.PlainLoginModule";
        let (here, old) = (here.store.display(), old.store.display());
        let properties = format!(
            "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS
listener.name.login.sasl.enabled.mechanisms=PLAIN
listener.name.login.plain.sasl.jaas.config={jaas} required user_{USER}=\"{PASSWORD}\";
listener.name.login.ssl.keystore.type=PEM
listener.name.login.ssl.keystore.location={here}
listener.name.expired.ssl.keystore.type=PEM
listener.name.expired.ssl.keystore.location={old}
"
        );
        let extra = Extra {
            listeners: vec![
                ("LOGIN".to_owned(), "SASL_SSL", login),
                ("EXPIRED".to_owned(), "SSL", expired),
            ],
            properties,
            ..Extra::default()
        };
        Ok(Self {
            kafka: Kafka::start_extended(world.folder(), world.logs(), &extra)?,
            authority,
            login,
            expired,
        })
    }
}

/// What the doctor finds with these settings, and how it ends.
fn findings(node: &mut Node, settings: Settings) -> Result<(Vec<Value>, i32)> {
    node.configure(settings)?;
    let config = node.config().display().to_string();
    let output = skerry(&["uplink", "doctor", "--config", &config, "--json"])?;
    let code = output.code.unwrap_or(-1);
    ensure!(
        output.stdout.starts_with('{'),
        "the doctor prints {}",
        output.text()
    );
    let report: Value = serde_json::from_str(&output.stdout)?;
    let findings = report["findings"].as_array().cloned().unwrap_or_default();
    Ok((findings, code))
}

/// Among the findings is one of this check and verdict that says all of `parts`.
fn told(findings: &[Value], check: &str, state: &str, parts: &[&str]) -> Result<()> {
    let found = findings.iter().any(|finding| {
        let all = finding.to_string();
        finding["check"] == check
            && finding["state"] == state
            && parts.iter().all(|part| all.contains(part))
    });
    ensure!(
        found,
        "no {state} of {check} says {parts:?} in {findings:#?}"
    );
    Ok(())
}

pub(crate) fn examines(world: &World) -> Result<()> {
    let clinic = Clinic::start(world)?;
    let operator = Operator::new(clinic.kafka.address());
    let mut base = world.settings()?;
    base.create_topics = false;
    base.kafka = Some(clinic.kafka.address());
    backlog::write(&base.data, &["telemetry"], 50, Duration::from_secs(3_600))?;
    let only = "streams = [\"telemetry\"]\n";
    base.kafka_more = only.to_owned();
    let mut node = world.node(base.clone())?;

    let (found, code) = findings(&mut node, base.clone())?;
    ensure!(code == 1, "a missing topic is no problem: {found:#?}");
    told(
        &found,
        "topic",
        "problem",
        &["no topic `skerry.telemetry`", "create_topics = true"],
    )?;
    told(
        &found,
        "topic",
        "ok",
        &["skerry.positions.vessel-7", "the node creates it"],
    )?;
    told(
        &found,
        "backlog",
        "ok",
        &["50 records wait, the oldest for 1h"],
    )?;
    told(&found, "clock", "ok", &["the cluster"])?;
    told(&found, "transactions", "ok", &["skerry-vessel-7-telemetry"])?;

    operator.create("skerry.telemetry", &[])?;
    let (found, code) = findings(&mut node, base.clone())?;
    ensure!(code == 0, "nothing is wrong: {found:#?}");
    told(&found, "broker", "ok", &["reached at 127.0.0.1"])?;
    told(&found, "retention", "ok", &["kept for 7d", "1h old"])?;
    told(&found, "replicas", "warning", &["1 of 1 in sync"])?;
    told(&found, "timestamps", "ok", &["at most 1h ahead"])?;

    operator.alter(
        "skerry.telemetry",
        &["max.message.bytes=10000", "min.insync.replicas=2"],
    )?;
    let (found, code) = findings(&mut node, base.clone())?;
    ensure!(code == 1, "neither setting is a problem: {found:#?}");
    told(
        &found,
        "message_bytes",
        "problem",
        &["max.message.bytes=10000"],
    )?;
    told(
        &found,
        "replicas",
        "problem",
        &["min.insync.replicas=2", "nothing can be written"],
    )?;
    operator.alter(
        "skerry.telemetry",
        &["max.message.bytes=1048588", "min.insync.replicas=1"],
    )?;

    rights(world, &clinic, &operator, &base, &mut node)?;
    doors(world, &clinic, &base, &mut node)
}

fn secured(world: &World, clinic: &Clinic, base: &Settings, identity: &Issued) -> Result<Settings> {
    let password = world.folder().join("password");
    private(&password, PASSWORD)?;
    let (ca, cert, key) = (
        &clinic.authority.file,
        &identity.cert_file,
        &identity.key_file,
    );
    let mut settings = base.clone();
    settings.kafka = Some(format!("127.0.0.1:{}", clinic.login));
    settings.kafka_more.push_str(&format!(
        "tls = {{ ca_file = {ca:?}, cert_file = {cert:?}, key_file = {key:?} }}\nmechanism = \"PLAIN\"\n\
         user = \"{USER}\"\npassword_file = {password:?}\n"
    ));
    Ok(settings)
}

/// Rights that are missing are missed, one by one.
fn rights(
    world: &World,
    clinic: &Clinic,
    operator: &Operator,
    base: &Settings,
    node: &mut Node,
) -> Result<()> {
    let soon = clinic.authority.issue_for("soon", &[], 10)?;
    let settings = secured(world, clinic, base, &soon)?;
    let (found, code) = findings(node, settings.clone())?;
    ensure!(code == 1, "it may do nothing: {found:#?}");
    told(&found, "tls", "ok", &["days left", "TLS 1.3"])?;
    told(
        &found,
        "certificate",
        "warning",
        &["expires in", "soon.cert.pem"],
    )?;
    told(&found, "login", "ok", &["logged in as vessel7"])?;
    told(
        &found,
        "transactions",
        "problem",
        &["skerry-vessel-7-telemetry", "--transactional-id"],
    )?;
    told(
        &found,
        "topic",
        "problem",
        &["skerry.telemetry", "kafka-acls.sh"],
    )?;
    told(&found, "clock", "unknown", &["Describe"])?;

    let who = format!("User:{USER}");
    operator.allow(&who, "TOPIC", "skerry.telemetry", "READ")?;
    operator.allow(
        &who,
        "TRANSACTIONAL_ID",
        "skerry-vessel-7-telemetry",
        "WRITE",
    )?;
    let (found, code) = findings(node, settings.clone())?;
    ensure!(code == 1, "it may not write: {found:#?}");
    told(
        &found,
        "rights",
        "problem",
        &["skerry.telemetry", "Write denied"],
    )?;
    told(&found, "settings", "unknown", &["DescribeConfigs"])?;
    told(&found, "transactions", "ok", &["skerry-vessel-7-telemetry"])?;

    operator.create(
        "skerry.positions.vessel-7",
        &[
            "cleanup.policy=compact",
            "message.timestamp.type=LogAppendTime",
        ],
    )?;
    for (topic, operation) in [
        ("skerry.telemetry", "WRITE"),
        ("skerry.telemetry", "DESCRIBE_CONFIGS"),
        ("skerry.positions.vessel-7", "READ"),
        ("skerry.positions.vessel-7", "WRITE"),
        ("skerry.positions.vessel-7", "DESCRIBE_CONFIGS"),
    ] {
        operator.allow(&who, "TOPIC", topic, operation)?;
    }
    let (found, code) = findings(node, settings)?;
    ensure!(code == 0, "it may do all it needs: {found:#?}");
    told(&found, "rights", "ok", &["Write and Read allowed"])?;
    // May not describe the cluster, so that a broker was asked to date a record.
    told(&found, "clock", "ok", &["the cluster"])?;
    ensure!(
        operator.held("skerry.positions.vessel-7")?.written == 1,
        "one probe, and only one"
    );
    Ok(())
}

/// What keeps it from getting in at all.
fn doors(world: &World, clinic: &Clinic, base: &Settings, node: &mut Node) -> Result<()> {
    let mut settings = base.clone();
    settings.kafka = Some(format!("127.0.0.1:{}", clinic.expired));
    settings.kafka_more.push_str(&format!(
        "tls = {{ ca_file = {:?} }}\n",
        clinic.authority.file
    ));
    let (found, code) = findings(node, settings)?;
    ensure!(
        code == 1,
        "an expired certificate is no problem: {found:#?}"
    );
    told(&found, "tls", "problem", &["CN=old expired", "renewed"])?;
    told(&found, "login", "problem", &["certificate"])?;

    let mut settings = base.clone();
    settings.kafka = Some(format!("127.0.0.1:{}", world.port()?));
    let (found, code) = findings(node, settings.clone())?;
    ensure!(code == 1, "nobody is there: {found:#?}");
    told(&found, "broker", "problem", &["does not take connections"])?;

    settings.kafka = Some("no-such-host.invalid:9092".to_owned());
    let (found, _) = findings(node, settings)?;
    told(
        &found,
        "broker",
        "problem",
        &["no-such-host.invalid", "does not resolve"],
    )?;

    let none = Settings {
        kafka: None,
        ..base.clone()
    };
    node.configure(none)?;
    let config = node.config().display().to_string();
    let output = skerry(&["uplink", "doctor", &config])?;
    ensure!(
        output.code == Some(2),
        "without [kafka] it ends with {:?}",
        output.code
    );
    Ok(())
}
