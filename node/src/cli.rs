//! The command line: what an operator types, and what `--help` tells a newcomer.

use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;
use std::time::Duration;

/// Where `skerry run` looks when no config file is named.
pub const CONFIG_DEFAULT: &str = "/etc/skerry/skerry.toml";

/// An edge node for sites that are often cut off.
///
/// MQTT devices and OPC-UA servers go in; every record is on disk before it is acknowledged;
/// ONNX models watch the machines on the spot; Apache Kafka gets everything, once and in order,
/// whenever there is a link.
#[derive(Debug, Parser)]
#[command(name = "skerry", version, arg_required_else_help = true, after_help = FIRST_STEPS)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

const FIRST_STEPS: &str = "\
First steps:
  skerry demo                        see it work: a simulated plant, an outage, an audit
  skerry opcua browse opc.tcp://PLC  list what a PLC offers, as config to paste
  skerry check skerry.toml           every problem of a config file, before it runs
  skerry run skerry.toml             run the node
  skerry status                      ask the running node how it is";

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the node until SIGTERM or Ctrl-C
    Run(Run),
    /// Report every problem of a config file; exit code 2 if there is one
    Check(ConfigFile),
    /// Show the whole product at work on a simulated plant, then audit every record
    Demo(Demo),
    /// Ask the running node how it is
    Status(Status),
    /// Look into the durable log, also while the node runs
    #[command(subcommand)]
    Log(LogCommand),
    /// Find out what an OPC-UA server offers
    #[command(subcommand)]
    Opcua(OpcuaCommand),
    /// Print the version and what this binary was built with
    Version,
}

#[derive(Debug, Args)]
pub struct Run {
    #[command(flatten)]
    pub config: ConfigFile,
    /// Stop when standard input closes, for a parent process that may die
    #[arg(long)]
    pub until_stdin_closes: bool,
}

#[derive(Debug, Args)]
pub struct ConfigFile {
    /// The node's config file
    #[arg(value_name = "FILE", default_value = CONFIG_DEFAULT)]
    pub file: PathBuf,
    /// The same, by name, for scripts that prefer it
    #[arg(long = "config", value_name = "FILE", conflicts_with = "file")]
    named: Option<PathBuf>,
}

impl ConfigFile {
    pub fn path(self) -> PathBuf {
        self.named.unwrap_or(self.file)
    }
}

#[derive(Debug, Args)]
pub struct Demo {
    /// How long the whole demo may take
    #[arg(long, value_name = "N", default_value_t = 60, value_parser = clap::value_parser!(u64).range(20..=86_400))]
    pub seconds: u64,
    /// Print lines instead of a live view (also when stdout is no terminal)
    #[arg(long)]
    pub plain: bool,
    /// Replicate to this Kafka cluster instead of the built-in stand-in
    #[arg(long, value_name = "HOST:PORT")]
    pub kafka: Option<String>,
    /// Seed of the plant's signals and of its noise
    #[arg(long, value_name = "N", default_value_t = 7)]
    pub seed: u64,
    /// Folder for the demo's config and data; made anew at each start
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct Status {
    /// The address of the node's `[http] listen`
    #[arg(value_name = "HOST:PORT", default_value = crate::config::HTTP_LISTEN_DEFAULT)]
    pub address: String,
    /// Print the answer as JSON, as the node gave it
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Subcommand)]
pub enum LogCommand {
    /// List the streams: offsets, bytes, segments
    Ls(LogDirectory),
    /// Print the newest records of a stream; --follow goes on as they arrive
    Tail(Tail),
    /// Print records of a stream from an offset on
    Cat(Cat),
    /// Read every frame and check it: checksums, contiguous offsets
    Verify(LogDirectory),
    /// Make a key file for a log that is to be encrypted (store.encryption_key_file)
    NewKey(NewKey),
}

#[derive(Debug, Args)]
pub struct LogDirectory {
    /// The node's data directory
    #[arg(long, value_name = "DIR", default_value = crate::config::DATA_DIR_DEFAULT)]
    pub data_dir: PathBuf,
    /// The keys to an encrypted log, as in store.encryption_key_file
    #[arg(long, value_name = "FILE")]
    pub key_file: Option<PathBuf>,
    /// Print JSON, one object a line
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct NewKey {
    /// Where to put it; never overwritten
    pub file: PathBuf,
}

#[derive(Debug, Args)]
pub struct Tail {
    /// The stream's name, as in `skerry log ls`
    pub stream: String,
    /// How many records
    #[arg(short = 'n', long, value_name = "N", default_value_t = 10)]
    pub lines: u64,
    /// Go on printing as records arrive
    #[arg(short, long)]
    pub follow: bool,
    #[command(flatten)]
    pub log: LogDirectory,
}

#[derive(Debug, Args)]
pub struct Cat {
    /// The stream's name, as in `skerry log ls`
    pub stream: String,
    /// First offset; the oldest record still held if not given
    #[arg(long, value_name = "OFFSET")]
    pub from: Option<u64>,
    /// At most this many records
    #[arg(short = 'n', long, value_name = "N")]
    pub lines: Option<u64>,
    #[command(flatten)]
    pub log: LogDirectory,
}

#[derive(Debug, Subcommand)]
pub enum OpcuaCommand {
    /// List a server's variables as config to paste
    Browse(Browse),
}

#[derive(Debug, Args)]
pub struct Browse {
    /// Such as opc.tcp://192.168.0.10:4840
    pub url: String,
    /// How many levels below Objects to follow
    #[arg(long, value_name = "N", default_value_t = 8)]
    pub depth: usize,
    /// Stop after this many variables
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    pub nodes: usize,
    /// Give up when the server has not answered for this long
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration)]
    pub timeout: Duration,
}

fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|why| format!("not a duration such as 10s: {why}"))
}
