//! Who we are, whom we log in as, and what is refused rather than weakened.

#![expect(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use skerry_bridge::opcua::{self, Security, User, Visit};
use skerry_simulation::opcua_server::{Access, OpcuaServer, TagValue};
use std::fs;
use std::path::Path;
use tempfile::TempDir;

const SIGNED: (&str, &str) = ("Basic256Sha256", "Sign");

async fn plant(world: &TempDir, access: &Access) -> OpcuaServer {
    let tags = vec![("count".to_owned(), TagValue::Count(7))];
    OpcuaServer::start_with(0, world.path(), tags, access)
        .await
        .unwrap()
}

fn visit(world: &TempDir, plant: &OpcuaServer, security: (&str, &str)) -> Visit {
    let mut visit = Visit::new(plant.url().parse().unwrap());
    visit.security = Security::new(security.0, security.1).unwrap();
    visit.pki_directory = world.path().join("pki");
    visit
}

/// The counter, or why it cannot be read.
async fn read(visit: &Visit) -> Result<i64, String> {
    let nodes = [OpcuaServer::node_id("count").parse().unwrap()];
    let readings = opcua::read(visit, &nodes).await;
    let readings = readings.map_err(|error| error.to_string())?;
    readings[0].value.as_i64().ok_or(readings[0].status.clone())
}

fn assert_says(outcome: Result<i64, String>, words: &[&str]) {
    let error = outcome.unwrap_err();
    for word in words {
        assert!(error.contains(word), "`{word}` is not in: {error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_of_ones_own_is_used_or_refused_with_what_does_not_fit() {
    let world = tempfile::tempdir().unwrap();
    let access = Access {
        secured: true,
        trusts_all: true,
        ..Access::default()
    };
    let plant = plant(&world, &access).await;
    let visit = visit(&world, &plant, SIGNED);
    assert_eq!(read(&visit).await, Ok(7));

    // Another pair, as an operator would bring it along.
    let mut elsewhere = visit.clone();
    elsewhere.pki_directory = world.path().join("elsewhere");
    fs::create_dir_all(elsewhere.pki_directory.join("own")).unwrap();
    let uri = elsewhere.pki_directory.join("own/application_uri");
    fs::write(&uri, "urn:plant:collector\n").unwrap();
    assert_eq!(read(&elsewhere).await, Ok(7));
    let bring = |file: &str| {
        let from = elsewhere.pki_directory.join(file);
        fs::copy(from, visit.pki_directory.join(file)).unwrap();
    };
    bring("own/cert.der");
    assert_says(
        read(&visit).await,
        &["private.pem", "is not the key of the certificate"],
    );
    bring("private/private.pem");
    assert_says(
        read(&visit).await,
        &[
            "cert.der",
            "is not for the application",
            "urn:plant:collector",
        ],
    );
    bring("own/application_uri");
    assert_eq!(read(&visit).await, Ok(7));
    let pem = visit.pki_directory.join("private/private.pem");
    let key = fs::read(&pem).unwrap();

    // Only the certificate is missing: made for the key that is there, and never the other way.
    fs::remove_file(visit.pki_directory.join("own/cert.der")).unwrap();
    assert_eq!(read(&visit).await, Ok(7));
    assert_eq!(fs::read(&pem).unwrap(), key);
    fs::remove_file(&pem).unwrap();
    assert_says(read(&visit).await, &["cert.der", "its key is missing"]);
    assert!(!pem.exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logins_that_are_refused_leave_nothing_at_the_server() {
    /// More than the server has sessions.
    const TRIES: usize = 25;
    let world = tempfile::tempdir().unwrap();
    let access = Access {
        user: Some(("operator".to_owned(), "secret".to_owned())),
        ..Access::default()
    };
    let plant = plant(&world, &access).await;
    let mut visit = visit(&world, &plant, ("None", "None"));
    let password_file = world.path().join("password");
    visit.user = Some(User::Password {
        name: "operator".to_owned(),
        password_file: password_file.clone(),
    });
    fs::write(&password_file, "guessed").unwrap();
    for _ in 0..TRIES {
        assert_says(read(&visit).await, &["user or password are wrong"]);
    }
    fs::write(&password_file, "secret\n").unwrap();
    assert_eq!(read(&visit).await, Ok(7));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_has_a_certificate_that_belongs_to_its_key() {
    let world = tempfile::tempdir().unwrap();
    let folder = world.path().join("user");
    // Ours will do for a user's: it only has to be known to the server.
    let access = Access {
        secured: true,
        trusts_all: true,
        user_certificate: Some(folder.join("own/cert.der")),
        ..Access::default()
    };
    let first = plant(
        &world,
        &Access {
            user_certificate: None,
            ..access.clone()
        },
    )
    .await;
    let mut maker = visit(&world, &first, SIGNED);
    maker.pki_directory = folder.clone();
    assert_eq!(read(&maker).await, Ok(7));
    first.stop().await;

    let plant = plant(&world, &access).await;
    let user = |certificate: &Path, key: &Path| User::Certificate {
        certificate: certificate.to_owned(),
        key: key.to_owned(),
    };
    let (certificate, key) = (
        folder.join("own/cert.der"),
        folder.join("private/private.pem"),
    );
    let mut visit = visit(&world, &plant, SIGNED);
    visit.user = Some(user(&certificate, &key));
    assert_eq!(read(&visit).await, Ok(7));
    let own = visit.pki_directory.join("private/private.pem");
    visit.user = Some(user(&certificate, &own));
    assert_says(
        read(&visit).await,
        &["private.pem", "is not the key of the certificate"],
    );
    visit.user = Some(user(&key, &key));
    assert_says(read(&visit).await, &["is no X.509 certificate"]);
    let stranger = visit.pki_directory.join("own/cert.der");
    visit.user = Some(user(&stranger, &own));
    assert_says(
        read(&visit).await,
        &[
            "refused the login",
            "does not trust the certificate of this user",
        ],
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deprecated_policies_are_met_only_when_spelled_out() {
    let world = tempfile::tempdir().unwrap();
    let access = Access {
        deprecated: true,
        trusts_all: true,
        ..Access::default()
    };
    let plant = plant(&world, &access).await;
    let security = |policy| visit(&world, &plant, (policy, "SignAndEncrypt"));
    assert_says(
        read(&security("Basic256Sha256")).await,
        &[
            "does not offer security Basic256Sha256/SignAndEncrypt",
            "Basic128Rsa15/SignAndEncrypt",
            "Nothing weaker is used by itself",
        ],
    );
    for policy in ["Basic128Rsa15", "Basic256"] {
        assert_eq!(read(&security(policy)).await, Ok(7), "{policy}");
    }
}
