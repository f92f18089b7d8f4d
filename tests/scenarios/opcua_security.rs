//! Every policy with every mode and login on servers of every make, and what each refuses.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use skerry_tests::node;
use skerry_tests::opcua::{self, Make, NAMESPACE, OpcuaServer};
use skerry_tests::process::Output;
use skerry_tests::python::Helper;
use skerry_tests::world::World;
use skerry_tests::{Context as _, Result, bail, ensure, wait};

const SECURITIES: [&str; 11] = [
    "None",
    "Basic256Sha256/Sign",
    "Basic256Sha256/SignAndEncrypt",
    "Aes128_Sha256_RsaOaep/Sign",
    "Aes128_Sha256_RsaOaep/SignAndEncrypt",
    "Aes256_Sha256_RsaPss/Sign",
    "Aes256_Sha256_RsaPss/SignAndEncrypt",
    "Basic256/Sign",
    "Basic256/SignAndEncrypt",
    "Basic128Rsa15/Sign",
    "Basic128Rsa15/SignAndEncrypt",
];

/// The server with the second certificate counts from here.
const SECOND_FROM: u64 = 100_000;

const LOGINS: [Login; 3] = [Login::Anonymous, Login::Password, Login::Certificate];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Login {
    Anonymous,
    Password,
    Certificate,
}

impl Login {
    const fn word(self) -> &'static str {
        match self {
            Self::Anonymous => "anonymous",
            Self::Password => "password",
            Self::Certificate => "X.509",
        }
    }
}

/// What a make cannot do, by the start of the security's name, with the reason. Not tried.
const LIMITS: [(Make, &str, &str); 1] = [(
    Make::NodeOpcua,
    "Basic128Rsa15",
    "Node.js decrypts no PKCS#1 v1.5 any more (CVE-2023-46809)",
)];

fn limit(make: Make, security: &str) -> Option<&'static str> {
    let known = LIMITS.iter();
    let mut of_it = known.filter(|(of, start, _)| *of == make && security.starts_with(start));
    of_it.next().map(|(_, _, reason)| *reason)
}

/// Whoever visits, with all files.
struct Visitor {
    namespace: &'static str,
    pki: PathBuf,
    certificates: PathBuf,
    password: PathBuf,
    wrong_password: PathBuf,
}

impl Visitor {
    fn new(world: &World, make: Make, certificates: PathBuf) -> Result<Self> {
        let file = |name: &str, text: &str| {
            let path = world.folder().join(name);
            fs::write(&path, text).map(|()| path)
        };
        Ok(Self {
            namespace: make.namespace(),
            pki: world.folder().join("pki"),
            certificates,
            password: file("password", "secret\n")?,
            wrong_password: file("wrong-password", "guessed\n")?,
        })
    }

    /// `skerry opcua read` of one counter.
    fn read(&self, url: &str, security: &str, more: &[&str]) -> Result<Output> {
        let node = format!("nsu={};s=Counter0", self.namespace);
        let pki = self.pki.display().to_string();
        let mut words = vec!["opcua", "read", "--security", security, "--pki", &pki];
        words.extend_from_slice(more);
        words.extend([url, &node]);
        node::skerry(&words)
    }

    fn logged_in(&self, url: &str, security: &str, login: Login) -> Result<Output> {
        let password = self.password.display().to_string();
        let user = self.file("user.pem");
        let key = self.file("user-key.pem");
        match login {
            Login::Anonymous => self.read(url, security, &[]),
            Login::Password => {
                let words = ["--user", "operator", "--password-file", &password];
                self.read(url, security, &words)
            }
            Login::Certificate => {
                let words = ["--user-certificate", &user, "--user-key", &key];
                self.read(url, security, &words)
            }
        }
    }

    fn file(&self, name: &str) -> String {
        self.certificates.join(name).display().to_string()
    }
}

/// Two servers of one make: one that trusts any client, and one that trusts none.
struct Pair {
    make: Make,
    trusting: String,
    wary: String,
    _running: [Helper; 2],
}

impl Pair {
    fn start(world: &World, make: Make, certificates: &Path) -> Result<Self> {
        let name = make.name();
        let file = |name: &str| certificates.join(name).display().to_string();
        let server = |name: String| -> Result<OpcuaServer> {
            Ok(OpcuaServer::new(make, &name, world.port()?)
                .with("--secure")
                .with("--user=operator")
                .with("--password=secret")
                .with(format!("--user-certificate={}", file("user.pem")))
                .with(format!("--certificate={}", file("server.pem")))
                .with(format!("--private-key={}", file("server-key.pem"))))
        };
        let trusting = server(name.to_owned())?
            .with("--trust-all")
            .with("--deprecated");
        let wary = server(format!("{name}-wary"))?;
        Ok(Self {
            make,
            trusting: trusting.url(),
            wary: wary.url(),
            _running: [trusting.start(world)?, wary.start(world)?],
        })
    }
}

/// Each cell reads a value, or is a named limit. A wrong password is refused in each, and in each
/// that is secured the words of a server that does not trust us say where our certificate is.
pub(crate) fn matrix(world: &World) -> Result<()> {
    let certificates = world.folder().join("certificates");
    let mut faults = Vec::new();
    let mut table = BTreeMap::new();
    for make in Make::SECURED {
        // A server's certificate has its name in it.
        let certificates = certificates.join(make.name());
        opcua::certificates(&certificates, make)?;
        let visitor = Visitor::new(world, make, certificates.clone())?;
        let pair = Pair::start(world, make, &certificates)?;
        for security in SECURITIES {
            for login in LOGINS {
                let cell = cell(&visitor, &pair, security, login);
                table.insert((make.name(), security, login.word()), cell.is_ok());
                if let Err(fault) = cell {
                    faults.push(format!("{} {security} {login:?}: {fault:#}", make.name()));
                }
            }
        }
        downgrade_is_refused(&visitor, &pair)?;
    }
    print(&table);
    let count = faults.len();
    ensure!(
        faults.is_empty(),
        "{count} cells fail:\n{}",
        faults.join("\n")
    );
    Ok(())
}

fn cell(visitor: &Visitor, pair: &Pair, security: &str, login: Login) -> Result<()> {
    if limit(pair.make, security).is_some() {
        return Ok(());
    }
    let read = visitor.logged_in(&pair.trusting, security, login)?;
    ensure!(read.code == Some(0), "{}", read.text());
    if login == Login::Password {
        let wrong = visitor.wrong_password.display().to_string();
        let words = ["--user", "operator", "--password-file", &wrong];
        let refused = visitor.read(&pair.trusting, security, &words)?;
        says(&refused, &["user or password are wrong"]).context("a wrong password")?;
    }
    if login == Login::Certificate {
        let (stranger, key) = (
            visitor.file("stranger.pem"),
            visitor.file("stranger-key.pem"),
        );
        let words = ["--user-certificate", &stranger, "--user-key", &key];
        let refused = visitor.read(&pair.trusting, security, &words)?;
        says(&refused, &["does not trust the certificate of this user"]).context("a stranger")?;
    }
    let deprecated = security.starts_with("Basic128Rsa15") || security.starts_with("Basic256/");
    if security != "None" && !deprecated {
        let refused = visitor.logged_in(&pair.wary, security, login)?;
        let certificate = visitor.pki.join("own/cert.der").display().to_string();
        says(&refused, &["trust our certificate", &certificate])
            .context("a server that does not trust us")?;
    }
    Ok(())
}

/// A server without deprecated policies is not met half-way, neither down nor up.
fn downgrade_is_refused(visitor: &Visitor, pair: &Pair) -> Result<()> {
    let refused = visitor.read(&pair.wary, "Basic256/Sign", &[])?;
    let offered = "Basic256Sha256/SignAndEncrypt";
    says(
        &refused,
        &["does not offer security Basic256/Sign", offered],
    )
}

fn says(refused: &Output, words: &[&str]) -> Result<()> {
    let text = refused.text();
    ensure!(refused.code == Some(1), "{:?}: {text}", refused.code);
    match words.iter().find(|word| !text.contains(*word)) {
        Some(missing) => bail!("does not say `{missing}`: {text}"),
        None => Ok(()),
    }
}

/// A row for each security, a column for each make and login.
fn print(table: &BTreeMap<(&str, &str, &str), bool>) {
    let mut head = format!("{:<38}", "");
    for make in Make::SECURED {
        head += &format!("{:<32}", make.name());
    }
    println!("{}", head.trim_end());
    for security in SECURITIES {
        let mut row = format!("{security:<38}");
        for make in Make::SECURED {
            for login in LOGINS {
                let word = match limit(make, security) {
                    Some(_) => "-",
                    None if table[&(make.name(), security, login.word())] => login.word(),
                    None => "FAILED",
                };
                row += &format!("{word:<10}");
            }
            row += "  ";
        }
        println!("{}", row.trim_end());
    }
    for (make, start, reason) in LIMITS {
        println!("- {} with {start}: {reason}", make.name());
    }
}

/// A server whose certificate comes with its issuer's, and has a longer key than ours; and a
/// client that was given a certificate by the same authority. What does not fit is refused.
pub(crate) fn certificates(world: &World) -> Result<()> {
    let folder = world.folder().join("certificates");
    opcua::certificates(&folder, Make::NodeOpcua)?;
    let visitor = Visitor::new(world, Make::NodeOpcua, folder.clone())?;
    let file = |name: &str| folder.join(name).display().to_string();
    let server = OpcuaServer::new(Make::NodeOpcua, "plc", world.port()?)
        .with("--secure")
        .with(format!("--trust={}", file("client.pem")))
        .with(format!("--issuer={}", file("ca.pem")))
        .with(format!("--issuer={}", file("ca-crl.pem")))
        .with(format!("--certificate={}", file("server-chain.pem")))
        .with(format!("--private-key={}", file("server-chain-key.pem")));
    let _running = server.start(world)?;
    let url = server.url();
    let plain = visitor.read(&url, "None", &[])?;
    ensure!(plain.code == Some(0), "{}", plain.text());

    // Our own is made, and is not what this server trusts.
    let security = "Basic256Sha256/SignAndEncrypt";
    says(
        &visitor.read(&url, security, &[])?,
        &["trust our certificate"],
    )?;
    let own = visitor.pki.join("own/cert.der");
    let key = visitor.pki.join("private/private.pem");
    fs::copy(folder.join("client.der"), &own)?;
    let refused = visitor.read(&url, security, &[])?;
    says(
        &refused,
        &["cannot use", "is not the key of the certificate"],
    )?;
    fs::copy(folder.join("client-key.pem"), &key)?;
    let refused = visitor.read(&url, security, &[])?;
    says(
        &refused,
        &["is not for the application", "own/application_uri"],
    )?;
    fs::write(visitor.pki.join("own/application_uri"), opcua::CLIENT_URI)?;
    for security in SECURITIES.iter().filter(|it| it.contains("Sha256")) {
        let read = visitor.read(&url, security, &[])?;
        ensure!(read.code == Some(0), "{security}: {}", read.text());
    }
    fs::remove_file(&key)?;
    let refused = visitor.read(&url, security, &[])?;
    says(&refused, &["its key is missing", "private/private.pem"])
}

/// The server comes back with another certificate while the node runs: nothing is read until an
/// operator has said that it is right, and then everything, without a restart.
pub(crate) fn certificate_swapped(world: &World) -> Result<()> {
    let make = Make::Asyncua;
    let port = world.port()?;
    let [first, second] = ["first", "second"].map(|name| world.folder().join(name));
    for folder in [&first, &second] {
        opcua::certificates(folder, make)?;
    }
    let server = |folder: &Path, from: u64| {
        let file = |name: &str| folder.join(name).display().to_string();
        OpcuaServer::new(make, &format!("plc-{from}"), port)
            .with("--secure")
            .with("--trust-all")
            .with(format!("--first={from}"))
            .with(format!("--certificate={}", file("server.pem")))
            .with(format!("--private-key={}", file("server-key.pem")))
            .start(world)
    };
    let mut settings = world.settings()?;
    settings.more = format!(
        "\n[[stream]]\nname = \"machines\"\ntopics = []\n\n[[opcua]]\nname = \"plc\"\nendpoint = \"opc.tcp://127.0.0.1:{port}/tests\"\n\
         security_policy = \"Basic256Sha256\"\nsecurity_mode = \"SignAndEncrypt\"\n\
         stream = \"machines\"\npublishing_interval = \"100ms\"\n\
         nodes = [{{ name = \"count\", id = \"nsu={NAMESPACE};s=Counter0\" }}]\n"
    );
    let running = server(&first, 0)?;
    let mut node = world.started(settings)?;
    node.wait_for_status("values", wait::START, |status| {
        status["opcua"][0]["values_total"].as_u64() > Some(10)
    })?;
    running.kill()?;
    let _running = server(&second, SECOND_FROM)?;
    let asks = "accept it with `skerry opcua trust plc`";
    node.wait_for_status("the operator is asked", wait::DRAIN, |status| {
        let error = status["opcua"][0]["error"].as_str();
        error.is_some_and(|error| error.contains(asks))
    })?;
    // For as long as nobody answers.
    let before = node.status()?["opcua"][0]["values_total"].clone();
    std::thread::sleep(Duration::from_secs(3));
    let status = &node.status()?["opcua"][0];
    ensure!(status["state"] == "retrying", "{status}");
    ensure!(status["values_total"] == before, "{status}");

    let config = world.folder().join("skerry.toml").display().to_string();
    let trusted = node::skerry(&["opcua", "trust", "plc", "--config", &config])?;
    ensure!(trusted.code == Some(0), "{}", trusted.text());
    wait::until_true("values of the second", wait::DRAIN, || {
        let logged = node::log_cat(&node.settings().data, "machines")?;
        let value = |record: &Value| record["payload"]["value"].as_u64();
        let last = logged.iter().filter_map(value).next_back();
        ensure!(last >= Some(SECOND_FROM), "{last:?} so far");
        Ok(true)
    })?;
    ensure!(node.terminate()?.success(), "the node did not stop cleanly");
    let logged = node::log_cat(&node.settings().data, "machines")?;
    let gaps = logged.iter().filter(|record| record["kind"] == "gap");
    ensure!(gaps.count() == 1, "one gap tells of the time in between");
    Ok(())
}
