//! The OPC-UA clients of a node, and `skerry opcua …`: what an engineer needs before there is a
//! config, and when a server's certificate changed.

mod arguments;
mod clients;
mod command;
mod import;

pub use arguments::Arguments;
pub use clients::Clients;

use crate::config::Config;
use crate::exit::Exit;
use crate::logs;
use arguments::{
    Browse, OpcuaCommand, OpcuaDiscover, OpcuaImport, OpcuaServer, OpcuaTrust, OpcuaWatch,
};
use serde::Serialize;
use skerry_bridge::opcua::{self, NodeAddress, Reading, Security, User, Visit};
use std::fmt::Display;
use std::future::Future;
use std::io::{self, Write};
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Why a command ends, and with which exit code.
struct Ended(Exit, String);

impl Ended {
    fn usage(why: impl Display) -> Self {
        Self(Exit::Usage, why.to_string())
    }

    fn failed(why: impl Display) -> Self {
        Self(Exit::Failed, why.to_string())
    }
}

pub fn run(args: &Arguments) -> Exit {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("skerry: cannot start: {error}");
            return Exit::Failed;
        }
    };
    let done = match &args.command {
        OpcuaCommand::Discover(args) => runtime.block_on(discover(args)),
        OpcuaCommand::Browse(args) => runtime.block_on(browse(args)),
        OpcuaCommand::Read(args) => runtime.block_on(read(&args.server, &args.nodes, args.json)),
        OpcuaCommand::Watch(args) => runtime.block_on(watch(args)),
        OpcuaCommand::Write(args) => runtime.block_on(command::write(args)),
        OpcuaCommand::Call(args) => runtime.block_on(command::call(args)),
        OpcuaCommand::Trust(args) => trust(args),
        OpcuaCommand::Import(args) => import(args),
    };
    match done {
        Ok(()) | Err(Ended(Exit::Clean, _)) => Exit::Clean,
        Err(Ended(exit, why)) => {
            eprintln!("skerry: {why}");
            exit
        }
    }
}

async fn discover(args: &OpcuaDiscover) -> Result<(), Ended> {
    let visit = Visit::new(args.url.parse().map_err(Ended::usage)?);
    let offers = answered(&args.url, args.timeout, opcua::discover(&visit)).await?;
    for offer in offers {
        if args.json {
            print_json(&offer)?;
            continue;
        }
        let logins = offer.logins.join(", ");
        println!("{:<40} login: {logins}", offer.security);
        println!("    at {}", offer.url);
        if let Some(certificate) = offer.certificate {
            println!("    certificate sha256 {certificate}");
        }
    }
    Ok(())
}

async fn browse(args: &Browse) -> Result<(), Ended> {
    let mut look = opcua::Browse::new(visit(&args.server)?);
    look.depth_max = args.depth;
    look.variables_max = args.nodes;
    let from = args.from.as_deref().map(NodeAddress::id_or_path);
    look.from = from.transpose().map_err(Ended::usage)?;
    let (url, timeout) = (&args.server.url, args.server.timeout);
    let (text, cut) = match args.tree {
        true => {
            let tree = answered(url, timeout, opcua::tree(&look)).await?;
            (tree.text, tree.cut)
        }
        false => {
            let listing = answered(url, timeout, opcua::browse(&look)).await?;
            (opcua::config_text(&look, "plc", &listing), listing.cut)
        }
    };
    print(text.trim_end())?;
    if let Some(cut) = cut {
        eprintln!("skerry: this is not all: {cut}");
    }
    Ok(())
}

async fn read(server: &OpcuaServer, nodes: &[String], json: bool) -> Result<(), Ended> {
    let (visit, nodes) = (visit(server)?, addresses(nodes)?);
    let reading = opcua::read(&visit, &nodes);
    let readings = answered(&server.url, server.timeout, reading).await?;
    let good = readings.iter().filter(|it| is_good(it)).count();
    for reading in &readings {
        show(reading, json)?;
    }
    match readings.len() - good {
        0 => Ok(()),
        bad => Err(Ended::failed(format!("{bad} of them without a good value"))),
    }
}

async fn watch(args: &OpcuaWatch) -> Result<(), Ended> {
    let (visit, nodes) = (visit(&args.server)?, addresses(&args.nodes)?);
    let stop = CancellationToken::new();
    let asked = stop.clone();
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            asked.cancel();
        }
    });
    let mut left = args.count;
    let mut printed = Ok(());
    let mut each = |reading: Reading| {
        printed = show(&reading, args.json);
        left = left.map(|left| left.saturating_sub(1));
        match (&printed, left) {
            (Ok(()), None | Some(1..)) => ControlFlow::Continue(()),
            _ => ControlFlow::Break(()),
        }
    };
    let watched = opcua::watch(&visit, &nodes, args.interval, stop, &mut each).await;
    watched.map_err(|error| Ended::failed(format!("{}: {error}", args.server.url)))?;
    printed
}

/// Prints what is to be pasted, and beside it what is to be looked at.
fn import(args: &OpcuaImport) -> Result<(), Ended> {
    let file = args.file.display();
    let text = std::fs::read_to_string(&args.file);
    let text = text.map_err(|error| Ended::failed(format!("cannot read {file}: {error}")))?;
    let imported = import::import(&text).map_err(|why| Ended::usage(format!("{file}: {why}")))?;
    print(imported.text.trim_end())?;
    for remark in &imported.remarks {
        eprintln!("skerry: {remark}");
    }
    eprintln!("skerry: {} nodes", imported.nodes);
    Ok(())
}

/// Lists what is refused, or accepts one of them.
fn trust(args: &OpcuaTrust) -> Result<(), Ended> {
    let config = Config::load(&args.config).map_err(Ended::failed)?;
    let Some(pki) = config.opcua.first().map(|server| &server.pki_directory) else {
        let file = args.config.display();
        return Err(Ended::usage(format!("{file} has no [[opcua]] section")));
    };
    match &args.name {
        None => list_rejected(pki),
        Some(name) => {
            let names = config.opcua.iter().flat_map(opcua::Config::pin_names);
            let names: Vec<String> = names.collect();
            if !names.contains(name) {
                let names = names.join(", ");
                let why = format!("there is no [[opcua]] named `{name}`; there are {names}");
                return Err(Ended::usage(why));
            }
            let trusted = opcua::trust(pki, name).map_err(Ended::failed)?;
            let Some(trusted) = trusted else {
                let why = format!("no certificate of `{name}` is refused: nothing to accept");
                return Err(Ended::failed(why));
            };
            println!(
                "{name}: trusts sha256 {} from now on; a node that runs connects by itself",
                trusted.shown
            );
            Ok(())
        }
    }
}

fn list_rejected(pki: &Path) -> Result<(), Ended> {
    let rejected = opcua::rejected(pki).map_err(Ended::failed)?;
    if rejected.is_empty() {
        println!("no server's certificate is refused");
    }
    for one in rejected {
        println!("{}", one.endpoint);
        println!("    shows  sha256 {}", one.shown);
        let trusted = one.trusted.as_deref().unwrap_or("none");
        println!("    trusts sha256 {trusted}");
    }
    Ok(())
}

fn visit(server: &OpcuaServer) -> Result<Visit, Ended> {
    let mut visit = Visit::new(server.url.parse().map_err(Ended::usage)?);
    let (policy, mode) = match server.security.split_once('/') {
        Some(words) => words,
        None => (server.security.as_str(), "None"),
    };
    visit.security = Security::new(policy, mode).map_err(Ended::usage)?;
    match &server.pki {
        Some(pki) => visit.pki_directory.clone_from(pki),
        None if visit.security != Security::None => {
            let why = "--security needs a certificate of ours: --pki DATA_DIR/pki is the node's";
            return Err(Ended::usage(why));
        }
        None => {}
    }
    let password = server.user.clone().zip(server.password_file.clone());
    let password = password.map(|(name, password_file)| User::Password {
        name,
        password_file,
    });
    let certificate = server.user_certificate.clone().zip(server.user_key.clone());
    let certificate = certificate.map(|(certificate, key)| User::Certificate { certificate, key });
    visit.user = password.or(certificate);
    Ok(visit)
}

fn addresses(nodes: &[String]) -> Result<Vec<NodeAddress>, Ended> {
    let parse = |node: &String| NodeAddress::id_or_path(node).map_err(Ended::usage);
    nodes.iter().map(parse).collect()
}

/// What a server answers within `timeout`.
async fn answered<T>(
    url: &str,
    timeout: Duration,
    asking: impl Future<Output = Result<T, opcua::Error>>,
) -> Result<T, Ended> {
    match tokio::time::timeout(timeout, asking).await {
        Ok(answer) => answer.map_err(|error| Ended::failed(format!("{url}: {error}"))),
        Err(_) => Err(Ended::failed(format!(
            "{url} has not answered within {timeout:?}; is it the right address and port? \
             --timeout waits longer"
        ))),
    }
}

/// The two highest bits of a StatusCode (Part 4, 7.39.1).
fn is_good(reading: &Reading) -> bool {
    reading.status_code >> 30 == 0
}

fn show(reading: &Reading, json: bool) -> Result<(), Ended> {
    if json {
        return print_json(reading);
    }
    let time = reading.source_time.or(reading.server_time);
    let time = time.map_or_else(String::new, |at| format!("  {}", logs::time(at)));
    let status = match is_good(reading) {
        true => "",
        false => &reading.status,
    };
    let mut value = reading.value.to_string();
    let name = reading.name.as_ref().map(|name| format!(" {name}"));
    let unit = reading.unit.as_ref().map(|unit| format!(" {unit}"));
    value.extend(name.into_iter().chain(unit));
    if let Some((low, high)) = reading.range {
        value += &format!(" ({low} to {high})");
    }
    let line = format!("{} = {value} {status}{time}", reading.node);
    print(&line)
}

fn print_json(object: &impl Serialize) -> Result<(), Ended> {
    print(&serde_json::to_string(object).expect("all keys are strings"))
}

/// `skerry opcua watch … | head` is no failure of the server: it ends the watch quietly.
fn print(line: &str) -> Result<(), Ended> {
    let mut out = io::stdout().lock();
    match writeln!(out, "{line}").and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
            Err(Ended(Exit::Clean, "the output was closed".to_owned()))
        }
        printed => printed.map_err(Ended::failed),
    }
}
