//! `skerry opcua …`: what can be asked and done by hand.

use crate::cli::CONFIG_DEFAULT;
use clap::{Args, Subcommand};
use std::path::PathBuf;
use std::time::Duration;

#[derive(Debug, Args)]
pub struct Arguments {
    #[command(subcommand)]
    pub command: OpcuaCommand,
}

#[derive(Debug, Subcommand)]
pub enum OpcuaCommand {
    /// What a server offers: security, logins, certificate
    Discover(OpcuaDiscover),
    /// List a server's variables as config to paste, or what it has as a tree
    Browse(Browse),
    /// Print what nodes of a server hold now
    Read(OpcuaRead),
    /// Print what nodes of a server hold, now and as it changes, until Ctrl-C
    Watch(OpcuaWatch),
    /// Set what a node holds, once and by hand: no config allows it and no audit has it
    Write(OpcuaWrite),
    /// Call a method, once and by hand: no config allows it and no audit has it
    Call(OpcuaCall),
    /// Accept the new certificate of a server that is refused for it
    Trust(OpcuaTrust),
    /// Print another collector's nodes as config to paste: OPC Publisher's or Telegraf's
    Import(OpcuaImport),
}

/// Whom to visit, and as whom.
#[derive(Debug, Args)]
pub struct OpcuaServer {
    /// Such as opc.tcp://192.168.0.10:4840
    pub url: String,
    /// Such as Basic256Sha256/SignAndEncrypt; `skerry opcua discover` lists what there is
    #[arg(long, value_name = "POLICY/MODE", default_value = "None")]
    pub security: String,
    /// The node's certificate and key, DATA_DIR/pki; needed with --security
    #[arg(long, value_name = "DIR")]
    pub pki: Option<PathBuf>,
    /// Without: anonymous
    #[arg(long, value_name = "NAME", requires = "password_file")]
    pub user: Option<String>,
    #[arg(long, value_name = "FILE", requires = "user")]
    pub password_file: Option<PathBuf>,
    /// Log in with a certificate of a user, PEM or DER, instead of a name
    #[arg(
        long,
        value_name = "FILE",
        requires = "user_key",
        conflicts_with = "user"
    )]
    pub user_certificate: Option<PathBuf>,
    #[arg(long, value_name = "FILE", requires = "user_certificate")]
    pub user_key: Option<PathBuf>,
    /// Give up when the server has not answered for this long
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration)]
    pub timeout: Duration,
}

#[derive(Debug, Args)]
pub struct OpcuaDiscover {
    /// Such as opc.tcp://192.168.0.10:4840
    pub url: String,
    /// One JSON object per line
    #[arg(long)]
    pub json: bool,
    /// Give up when the server has not answered for this long
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration)]
    pub timeout: Duration,
}

#[derive(Debug, Args)]
pub struct Browse {
    #[command(flatten)]
    pub server: OpcuaServer,
    /// Folders and objects too, each with its id, variables with value and type; for people
    #[arg(long)]
    pub tree: bool,
    /// Where to start, in place of Objects: Plant/Pump1 or "ns=2;s=Pump1"
    #[arg(long, value_name = "NODE|PATH")]
    pub from: Option<String>,
    /// How many levels below to follow
    #[arg(long, value_name = "N", default_value_t = 8)]
    pub depth: usize,
    /// Stop after this many variables; with --tree, nodes
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    pub nodes: usize,
}

#[derive(Debug, Args)]
pub struct OpcuaRead {
    #[command(flatten)]
    pub server: OpcuaServer,
    /// Such as "ns=2;s=Pump1.Vibration", "nsu=urn:plant;s=Pump1.Vibration" or Plant/Pump1/Vibration
    #[arg(required = true)]
    pub nodes: Vec<String>,
    /// One JSON object per line
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct OpcuaWatch {
    #[command(flatten)]
    pub server: OpcuaServer,
    /// Such as "ns=2;s=Pump1.Vibration", "nsu=urn:plant;s=Pump1.Vibration" or Plant/Pump1/Vibration
    #[arg(required = true)]
    pub nodes: Vec<String>,
    /// How often the server is to look at them
    #[arg(long, value_name = "TIME", default_value = "500ms", value_parser = duration)]
    pub interval: Duration,
    /// End after so many values
    #[arg(long, value_name = "N")]
    pub count: Option<u64>,
    /// One JSON object per line
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct OpcuaWrite {
    #[command(flatten)]
    pub server: OpcuaServer,
    /// Such as "ns=2;s=Pump1.Setpoint"
    pub node: String,
    /// As JSON, such as 42.5, true or [1,2]; texts and times also without quotes
    #[arg(allow_negative_numbers = true)]
    pub value: String,
    /// Send this built-in type, such as Int16, in place of the one the server names
    #[arg(long = "type", value_name = "TYPE")]
    pub data_type: Option<String>,
    /// One JSON object
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct OpcuaCall {
    #[command(flatten)]
    pub server: OpcuaServer,
    /// On what the method is called, such as "ns=2;s=Pump1"
    pub object: String,
    /// Such as "ns=2;s=Pump1.Reset"
    pub method: String,
    /// As JSON, such as 42.5, true or [1,2]; texts and times also without quotes
    #[arg(allow_negative_numbers = true)]
    pub arguments: Vec<String>,
    /// One JSON object
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct OpcuaImport {
    /// A pn.json of OPC Publisher, or a telegraf.conf with [[inputs.opcua_listener]]
    pub file: PathBuf,
}

#[derive(Debug, Args)]
pub struct OpcuaTrust {
    /// As the config has it; without, the refused certificates are listed
    #[arg(value_name = "ENDPOINT")]
    pub name: Option<String>,
    /// The node's config file
    #[arg(long, value_name = "FILE", default_value = CONFIG_DEFAULT)]
    pub config: PathBuf,
}

fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|why| format!("not a duration such as 10s: {why}"))
}
