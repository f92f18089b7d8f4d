//! An OPC-UA server on async-opcua, for scenarios: counters that go up by one at every tick.
//! Writes what they were set to as lines of JSON, and ends when its standard input closes. The
//! options are some of those of `tests/opcua-js/server.mjs`.

use skerry_simulation::opcua_server::{Access, OpcuaServer, TagValue};
use std::collections::BTreeMap;
use std::error::Error;
use std::fs::OpenOptions;
use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

const TICK: Duration = Duration::from_millis(100);

fn main() -> ExitCode {
    match options().and_then(|options| serve(&options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("opcua_server: {error}");
            ExitCode::FAILURE
        }
    }
}

type Options = BTreeMap<String, String>;

/// `--name=value`, `--name value` for `out`, or `--name` for what is switched on.
fn options() -> Result<Options, Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut options = Options::new();
    while let Some(argument) = arguments.next() {
        let option = argument.strip_prefix("--").ok_or("options start with --")?;
        let (name, value) = match option.split_once('=') {
            Some((name, value)) => (name, value.to_owned()),
            None if option == "out" => (option, arguments.next().ok_or("--out FILE")?),
            None => (option, String::new()),
        };
        options.insert(name.to_owned(), value);
    }
    Ok(options)
}

fn serve(options: &Options) -> Result<(), Box<dyn Error>> {
    let asked = |name: &str| options.get(name).ok_or(format!("--{name} is missing"));
    let path = |name: &str| options.get(name).map(PathBuf::from);
    let port = asked("port")?.parse()?;
    let directory = PathBuf::from(asked("pki")?);
    let mut out = OpenOptions::new()
        .create(true)
        .append(true)
        .open(asked("out")?)?;
    let access = Access {
        secured: options.contains_key("secure"),
        deprecated: options.contains_key("deprecated"),
        certificate: path("certificate").zip(path("private-key")),
        trusts_all: options.contains_key("trust-all"),
        user: options
            .get("user")
            .cloned()
            .zip(options.get("password").cloned()),
        user_certificate: path("user-certificate"),
    };
    let counters = options
        .get("counters")
        .map_or(Ok(3), |count| count.parse())?;
    let names: Vec<String> = (0..counters)
        .map(|number: u32| format!("Counter{number}"))
        .collect();
    let tags = names.iter().map(|name| (name.clone(), TagValue::Count(0)));
    std::fs::create_dir_all(&directory)?;
    let runtime = tokio::runtime::Runtime::new()?;
    let server = OpcuaServer::start_with(port, &directory, tags.collect(), &access);
    let server = runtime.block_on(server)?;
    writeln!(out, r#"{{"event":"serving"}}"#)?;
    let (ended, end) = std::sync::mpsc::channel::<()>();
    std::thread::spawn(move || {
        // Whatever comes, its end is what counts.
        let _count = std::io::stdin().read_to_end(&mut Vec::new());
        drop(ended);
    });
    for value in 1.. {
        if end.recv_timeout(TICK) == Err(std::sync::mpsc::RecvTimeoutError::Disconnected) {
            break;
        }
        for name in &names {
            server.set(name, TagValue::Count(value), SystemTime::now())?;
            writeln!(
                out,
                r#"{{"event":"set","name":"{name}","value":{value},"status":0}}"#
            )?;
        }
    }
    runtime.block_on(server.stop());
    Ok(())
}
