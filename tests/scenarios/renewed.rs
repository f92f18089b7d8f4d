//! What the node shows at Kafka's door ends and is renewed while it runs: the uplink waits, the
//! site does not.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use skerry_tests::audit::{self, Copies};
use skerry_tests::certificates::{Authority, Issued, private};
use skerry_tests::kafka::{Extra, Kafka};
use skerry_tests::node::Node;
use skerry_tests::world::World;
use skerry_tests::{Result, ensure, wait};

use crate::common::{drained, link_is, logged_no_complaint};
use crate::secured::{ca, identity, published, told, towards};

/// A certificate that ends while its scenario waits for that.
const SHORT: Duration = Duration::from_secs(30);
const LONG: Duration = Duration::from_secs(3_600);

/// A broker with one more listener, on which TLS is spoken.
fn broker(
    world: &World,
    authority: &Authority,
    protocol: &'static str,
    keys: &str,
) -> Result<(Kafka, u16)> {
    let here = authority.issue("here", &["127.0.0.1", "localhost"])?;
    let port = world.port()?;
    let store = here.store.display();
    let extra = Extra {
        listeners: vec![("DOOR".to_owned(), protocol, port)],
        properties: format!(
            "listener.name.door.ssl.keystore.type=PEM
listener.name.door.ssl.keystore.location={store}
{keys}"
        ),
        ..Extra::default()
    };
    Ok((
        Kafka::start_extended(world.folder(), world.logs(), &extra)?,
        port,
    ))
}

/// Puts `new` where the node looks for `old`, as whoever renews certificates does.
fn replace(old: &Issued, new: &Issued) -> Result<()> {
    for (from, to) in [
        (&new.cert_file, &old.cert_file),
        (&new.key_file, &old.key_file),
    ] {
        let aside = to.with_extension("new");
        fs::copy(from, &aside)?;
        fs::rename(&aside, to)?;
    }
    Ok(())
}

fn until(what: &str, moment: SystemTime) -> Result<()> {
    wait::until_true(what, wait::START, || Ok(SystemTime::now() > moment))
}

/// A live connection moves to a new certificate. One that ends without a new one pauses the uplink
/// and nothing else, and the one that comes too late ends that without anybody's doing.
pub(crate) fn certificate(world: &World) -> Result<()> {
    let authority = Authority::new(world.folder(), "authority")?;
    let keys = format!(
        "listener.name.door.ssl.client.auth=required
listener.name.door.ssl.truststore.type=PEM
listener.name.door.ssl.truststore.location={}
",
        authority.file.display()
    );
    let (mut kafka, port) = broker(world, &authority, "SSL", &keys)?;
    let client = authority.issue("client", &[])?;
    let base = world.settings()?;
    let settings = towards(&base, port, &identity(&authority, &client));
    let mut node = world.started(settings)?;
    let mut consumer = world.consumer(&kafka.address())?;
    let mut journals = vec![published(world, &node, "first")?];
    drained(&node, &mut consumer)?;

    // Renewed long before it ends: the connection is made anew with it, and nothing is lost by that.
    let ends = SystemTime::now() + SHORT;
    replace(&client, &authority.issue_until("second", ends)?)?;
    let moved = "the connection moves to the new certificate";
    wait::until(moved, wait::DRAIN, || {
        journals.push(published(
            world,
            &node,
            &format!("moving-{}", journals.len()),
        )?);
        Ok(node
            .output()?
            .contains("connecting anew with them")
            .then_some(()))
    })?;
    link_is(&node, "up")?;
    drained(&node, &mut consumer)?;
    logged_no_complaint(&node)?;

    // Ended, it is of no use for a connection that has to be made anew.
    until("the certificate ends", ends)?;
    kafka.restart()?;
    journals.push(published(world, &node, "ended")?);
    // Lanes without anything to deliver have not noticed.
    let what = "a certificate that has ended is told";
    node.wait_for_status(what, wait::DRAIN, |status| {
        let link = &status["uplink"]["link"];
        let because = link["because"].as_str().unwrap_or("");
        link["state"] == "down" && because.contains("look whether it has expired")
    })?;
    ensure!(
        node.get("/readyz")?.status == 200,
        "a certificate of the uplink made the node unready"
    );

    replace(
        &client,
        &authority.issue_until("third", SystemTime::now() + LONG)?,
    )?;
    link_is(&node, "up")?;
    journals.push(published(world, &node, "renewed")?);
    let arrived = drained(&node, &mut consumer)?;
    for journal in &journals {
        audit::messages(journal, &arrived, Copies::One)?;
    }
    ensure!(node.terminate()?.success(), "the node did not stop cleanly");
    Ok(())
}

/// An unsigned token for a broker that takes such, good until so many seconds from now.
fn token(seconds: i64) -> Result<String> {
    let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs())?;
    let claims = format!(
        r#"{{"sub":"vessel-7","iat":{},"exp":{}}}"#,
        now - 600,
        now + seconds
    );
    let part = |text: &str| BASE64_URL_SAFE_NO_PAD.encode(text);
    Ok(format!("{}.{}.", part(r#"{"alg":"none"}"#), part(&claims)))
}

fn says_nothing_of(node: &Node, secrets: &[&str]) -> Result<()> {
    let (output, status) = (node.output()?, node.status()?.to_string());
    for secret in secrets {
        ensure!(
            !output.contains(secret) && !status.contains(secret),
            "a secret is in the log or in /status"
        );
    }
    Ok(())
}

/// OAUTHBEARER with a token in a file that somebody else renews, with one that the node asks for
/// itself, and the secrets of both in systemd's credentials.
pub(crate) fn tokens(world: &World) -> Result<()> {
    let authority = Authority::new(world.folder(), "authority")?;
    let module = "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule";
    // The broker asks for the token again and again.
    let keys = format!(
        "listener.name.door.sasl.enabled.mechanisms=OAUTHBEARER
listener.name.door.oauthbearer.sasl.jaas.config={module} required unsecuredLoginStringClaim_sub=\"broker\";
listener.name.door.oauthbearer.connections.max.reauth.ms=4000
"
    );
    let (kafka, port) = broker(world, &authority, "SASL_SSL", &keys)?;
    let mut consumer = world.consumer(&kafka.address())?;
    let credentials = world.folder().join("credentials");
    fs::create_dir_all(&credentials)?;
    let file = |name: &str| credentials.join(name);

    let from_file = format!(
        "{}mechanism = \"OAUTHBEARER\"\ntoken_file = \"credential:kafka-token\"\n",
        ca(&authority)
    );
    let base = world.settings()?;
    let (ended, good) = (token(-90)?, token(3_600)?);
    private(&file("kafka-token"), &ended)?;
    let mut node = world.node(towards(&base, port, &from_file))?;
    node.set_environment("CREDENTIALS_DIRECTORY", &credentials.display().to_string());
    node.start()?;
    let mut journals = vec![published(world, &node, "ended")?];
    told(
        &node,
        "a token that has ended",
        &["kafka-token ended", "renew it"],
    )?;
    private(&file("kafka-token"), &format!("{good}\n"))?;
    link_is(&node, "up")?;
    for round in 0..3 {
        journals.push(published(world, &node, &format!("from-file-{round}"))?);
        drained(&node, &mut consumer)?;
    }
    says_nothing_of(&node, &[&ended, &good])?;
    ensure!(node.terminate()?.success(), "the node did not stop cleanly");

    let secret = "correct horse & battery";
    private(&file("kafka-secret"), secret)?;
    let endpoint = authority.issue("endpoint", &["127.0.0.1"])?;
    let asked_at = world.port()?;
    let _endpoint = token_endpoint(world, asked_at, &endpoint, secret)?;
    let asked_for = format!(
        "{}mechanism = \"OAUTHBEARER\"\ntoken_endpoint = \"https://127.0.0.1:{asked_at}/token\"\n\
         client_id = \"vessel-7\"\nclient_secret_file = \"credential:kafka-secret\"\nscope = \"kafka\"\n",
        ca(&authority)
    );
    node.configure(towards(&base, port, &asked_for))?;
    node.start()?;
    for round in 0..2 {
        journals.push(published(world, &node, &format!("asked-for-{round}"))?);
    }
    let arrived = drained(&node, &mut consumer)?;
    for journal in &journals {
        audit::messages(journal, &arrived, Copies::One)?;
    }
    says_nothing_of(&node, &[secret])?;
    ensure!(node.terminate()?.success(), "the node did not stop cleanly");
    Ok(())
}

fn token_endpoint(
    world: &World,
    port: u16,
    issued: &Issued,
    secret: &str,
) -> Result<skerry_tests::python::Helper> {
    let path = |path: &Path| path.display().to_string();
    let mut helper = world.token_endpoint(&[
        format!("--port={port}"),
        format!("--cert={}", path(&issued.cert_file)),
        format!("--key={}", path(&issued.key_file)),
        format!("--secret={secret}"),
    ])?;
    helper.wait_for("the token endpoint listens", wait::START, |lines| {
        !lines.is_empty()
    })?;
    Ok(helper)
}
