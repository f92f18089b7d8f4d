//! The command line: what an operator types, and what `--help` tells a newcomer. A component that
//! may be left out has its own arguments beside it.

mod first_boot;

pub use first_boot::FirstBoot;

use crate::component::{Component, DEMO, INFERENCE, OPCUA};
use crate::{component, demo, model, opcua};
use chrono::DateTime;
use clap::{Args, Parser, Subcommand, ValueEnum};
use skerry_store::WallNanos;
use std::path::PathBuf;

/// Where `skerry run` looks when no config file is named.
pub const CONFIG_DEFAULT: &str = "/etc/skerry/skerry.toml";

/// An edge node for sites that are often cut off.
///
/// MQTT devices and OPC-UA servers go in; every record is on disk before it is acknowledged;
/// ONNX models watch the machines on the spot; Apache Kafka gets everything, once and in order,
/// whenever there is a link.
#[derive(Debug, Parser)]
#[command(
    name = "skerry",
    version,
    long_version = component::version(),
    arg_required_else_help = true,
    after_help = first_steps()
)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

/// What a newcomer tries, of what is in this binary.
fn first_steps() -> String {
    let steps = FIRST_STEPS.iter();
    let steps = steps.filter(|(of, ..)| of.is_none_or(|component| component.is_in));
    steps.fold("First steps:".to_owned(), |text, (_, command, what)| {
        text + &format!("\n  {command:33}  {what}")
    })
}

const FIRST_STEPS: [(Option<Component>, &str, &str); 7] = [
    (
        Some(DEMO),
        "skerry demo",
        "see it work: a simulated plant, an outage, an audit",
    ),
    (
        Some(OPCUA),
        "skerry opcua browse opc.tcp://PLC",
        "list what a PLC offers, as config to paste",
    ),
    (
        None,
        "skerry check skerry.toml",
        "every problem of a config file, before it runs",
    ),
    (
        None,
        "skerry user add NAME",
        "let a device in that is not on this machine",
    ),
    (
        None,
        "skerry uplink doctor skerry.toml",
        "find out what keeps records from the cluster, or from staying",
    ),
    (None, "skerry run skerry.toml", "run the node"),
    (None, "skerry status", "ask the running node how it is"),
];

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the node until SIGTERM or Ctrl-C
    Run(Run),
    /// Report every problem of a config file; exit code 2 if there is one
    Check(ConfigFile),
    /// Set a new node up from a USB stick or boot partition, without anybody at it
    FirstBoot(FirstBoot),
    /// Show the whole product at work on a simulated plant, then audit every record
    #[command(hide = !DEMO.is_in)]
    Demo(demo::Arguments),
    /// Ask the running node how it is
    Status(Status),
    /// Look into the durable log, also while the node runs
    #[command(subcommand)]
    Log(LogCommand),
    /// Records that the cluster refused: see why, send them again or let go of them
    #[command(subcommand)]
    Quarantine(QuarantineCommand),
    /// OPC-UA servers: what they offer and hold, and which to trust
    #[command(hide = !OPCUA.is_in)]
    Opcua(opcua::Arguments),
    /// ONNX models: look at files, swap versions, compare, replay
    #[command(hide = !INFERENCE.is_in)]
    Model(model::Arguments),
    /// The way to the Kafka cluster
    #[command(subcommand)]
    Uplink(UplinkCommand),
    /// Take packed records of the cluster apart: print them, or write them to another topic
    Unpack(Unpack),
    /// Who may log in to the MQTT broker
    #[command(subcommand)]
    User(UserCommand),
    /// What the node runs its models in; started by the node
    #[command(hide = true)]
    ModelHost,
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
    pub fn path(&self) -> PathBuf {
        self.named.as_ref().unwrap_or(&self.file).clone()
    }
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
    /// Print records of a stream, from an offset or a time on
    Cat(Cat),
    /// Write records of a stream as JSON lines or CSV, to a file or a pipe
    Export(Export),
    /// Tell what a stream is made of: kinds, sources, times, gaps, compression
    Stats(Stats),
    /// Read every frame and check it: checksums, contiguous offsets
    Verify(LogDirectory),
    /// Find all damage now and have it noted in gap records; mend what can be mended
    Repair(Repair),
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

/// What --since and --until mean, for whoever has machines with clocks of their own.
pub const TIMES: &str = "\
Times:
  A record's time is its event time: the source's own, else the OPC-UA server's, else the time at
  which this node took it in. Records are in the order they came in, and sources may be late or
  their clocks wrong: each record is looked at by its own time, wherever in the log it is.
  TIME is a moment such as 2026-03-01T14:00:00Z or 2026-03-01T15:00:00+01:00, or how long ago:
  30s, 15m, 2h, 7days.";

#[derive(Debug, Args)]
#[command(after_help = TIMES)]
pub struct Cat {
    /// The stream's name, as in `skerry log ls`
    pub stream: String,
    #[command(flatten)]
    pub range: Range,
    #[command(flatten)]
    pub log: LogDirectory,
}

/// Which records of a stream.
#[derive(Debug, Args)]
pub struct Range {
    /// First offset; the oldest record still held if not given
    #[arg(long, value_name = "OFFSET")]
    pub from: Option<u64>,
    /// Only records of this time or later
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub since: Option<WallNanos>,
    /// Only records from before this time
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub until: Option<WallNanos>,
    /// At most this many records
    #[arg(short = 'n', long, value_name = "N")]
    pub lines: Option<u64>,
}

/// How records are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// One JSON object a line, as `skerry log cat --json`
    Jsonl,
    /// A line of column names, then a line each; a payload that is no text is in base64
    Csv,
}

/// What the last line of an export says.
const ACCOUNT: &str = "\
Account:
  The last line on standard error (JSON with --json) accounts for every offset that was read:
  exported, outside the times asked for, no longer held (confirmed, too old or given up), or
  damaged; the damaged places are named above it, and the exit code is 1 if there is one.";

#[derive(Debug, Args)]
#[command(after_help = format!("{TIMES}\n\n{ACCOUNT}"))]
pub struct Export {
    /// The stream's name, as in `skerry log ls`
    pub stream: String,
    #[command(flatten)]
    pub range: Range,
    /// How records are written
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = Format::Jsonl)]
    pub format: Format,
    /// Write to this file, which is there only once it is whole; to standard output if not given
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Replace the file if it is there
    #[arg(long, requires = "output")]
    pub force: bool,
    #[command(flatten)]
    pub log: LogDirectory,
}

#[derive(Debug, Args)]
pub struct Stats {
    /// One stream only
    pub stream: Option<String>,
    #[command(flatten)]
    pub log: LogDirectory,
}

#[derive(Debug, Args)]
pub struct Repair {
    /// Only tell what would be done; writes nothing
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub of: LogOrNode,
}

/// A log that this process opens itself, or has the node look into that runs on it.
#[derive(Debug, Args)]
pub struct LogOrNode {
    /// The node's config file: names the data directory, and the limits its streams are opened with
    #[arg(long, value_name = "FILE", conflicts_with = "data_dir")]
    pub config: Option<PathBuf>,
    /// Where the node answers, if it runs: its [http] listen address
    #[arg(long, value_name = "HOST:PORT")]
    pub node: Option<String>,
    #[command(flatten)]
    pub log: LogDirectory,
}

#[derive(Debug, Subcommand)]
pub enum QuarantineCommand {
    /// List the records that wait: when, from where, how large, why
    Ls(QuarantineLs),
    /// Show one record, and all that is known of its refusal
    Show(QuarantineShow),
    /// Append records to their streams again, once what kept the cluster from them is mended
    Retry(QuarantineRetry),
    /// Let go of records: the cluster keeps a gap in their place
    Drop(QuarantineDrop),
}

#[derive(Debug, Args)]
pub struct QuarantineLs {
    /// Also those that were sent again or dropped, and by whom
    #[arg(long)]
    pub all: bool,
    #[command(flatten)]
    pub of: LogOrNode,
}

#[derive(Debug, Args)]
pub struct QuarantineShow {
    /// As `skerry quarantine ls` gives it
    pub id: u64,
    /// Print the payload and nothing else, byte for byte
    #[arg(long, conflicts_with = "json")]
    pub raw: bool,
    #[command(flatten)]
    pub of: LogOrNode,
}

/// Which of the records that wait.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct Chosen {
    /// As `skerry quarantine ls` gives them
    #[arg(value_name = "ID")]
    pub ids: Vec<u64>,
    /// Every record that waits
    #[arg(long)]
    pub all: bool,
}

/// Who else sees a record that is sent again.
const RETRY: &str = "\
What it does:
  The record is appended to its stream as it was, at a new offset and with the header
  skerry-retry-of, and is delivered like any other. Subscribers and models on this node that read
  the stream get it again. If the cluster still refuses it, it comes back under another ID.";

#[derive(Debug, Args)]
#[command(after_help = RETRY)]
pub struct QuarantineRetry {
    #[command(flatten)]
    pub chosen: Chosen,
    #[command(flatten)]
    pub of: LogOrNode,
}

#[derive(Debug, Args)]
pub struct QuarantineDrop {
    #[command(flatten)]
    pub chosen: Chosen,
    /// Do it; without this it is only told what would be dropped
    #[arg(long)]
    pub yes: bool,
    #[command(flatten)]
    pub of: LogOrNode,
}

/// What `skerry unpack` prints and writes.
const UNPACKED: &str = "\
Without --to:
  One line of JSON per record, in the order of its partition. `offset` is the record's in the node's
  log, `kafka_offset` the cluster's of what it came in. A value that is JSON stays JSON; other
  text is a string, and what is no text is `value_base64`. The last line on standard error tells
  how many there were; a damaged packed record is named there, and the exit code is 1.

With --to:
  Records go to another topic of the cluster as they would be there had they never been packed: key,
  value, headers and timestamp; what is not packed goes as it is. Each is there once and in order,
  for readers with isolation.level=read_committed, also where this was killed: run it again, and it
  goes on where it stopped. Where that is, the cluster knows as the offsets of a consumer group
  (kafka-consumer-groups.sh --describe --group NAME); Kafka forgets them when it has not run for
  offsets.retention.minutes, a week by default.

  The topic must be there. With as many partitions as the input has, a record keeps the number of
  its partition, and with it the order of all of them. Otherwise its key chooses, as with Kafka's
  own clients: the order per key is kept, that of records without a key is not.

  Of one group, one runs at a time: whoever starts takes over, and the older one stops and says so.
  The user needs Read on the topics and the group, and Write on --to and on the transactional id,
  which is the group's name.

Exit code: 0 done or stopped; 1 something failed, or damaged records were passed over; 2 the command
line or the config file is wrong.";

#[derive(Debug, Args)]
#[command(after_help = UNPACKED)]
pub struct Unpack {
    /// The topics to read: from their first record on or, with --to, from where the group stands
    #[arg(required = true, value_name = "TOPIC")]
    pub topics: Vec<String>,
    /// Some of the cluster's brokers, without TLS or a login
    #[arg(
        long,
        value_name = "HOST:PORT",
        value_delimiter = ',',
        conflicts_with = "config"
    )]
    pub brokers: Vec<String>,
    /// The node's config file, for its [kafka] section
    #[arg(long, value_name = "FILE", default_value = CONFIG_DEFAULT)]
    pub config: PathBuf,
    /// Go on as records arrive, until Ctrl-C or SIGTERM
    #[arg(short, long)]
    pub follow: bool,
    /// Write to this topic instead of printing
    #[arg(long, value_name = "TOPIC")]
    pub to: Option<String>,
    /// The consumer group, and transactional id, that tells how far the topics are read
    /// [default: skerry-unpack- and the topic of --to]
    #[arg(long, value_name = "NAME", requires = "to")]
    pub group: Option<String>,
    /// Pass over packed records that are damaged, and say which, instead of stopping there
    #[arg(long, requires = "to")]
    pub skip_damaged: bool,
    /// Begin with the first record although --to has some and the cluster knows of no such group
    #[arg(long, requires = "to")]
    pub from_start: bool,
}

#[derive(Debug, Subcommand)]
pub enum UplinkCommand {
    /// Find out whether what is to leave will arrive and stay, and what to do if not
    Doctor(Doctor),
    /// Choose the kind of link that is in use, or tell which it is
    Link(UplinkLink),
    /// Let a stream go on that is held because its disk is an image or a copy
    Release(Release),
}

/// What the doctor's exit code says.
const DOCTOR: &str = "\
It changes nothing, and may run beside the node. Run it as the node's user: it reads the data
directory for what waits, and the files that [kafka] names. A check that could not be made says why.

Exit code: 0 all well, perhaps with warnings; 1 a problem; 2 the config file is wrong.";

#[derive(Debug, Args)]
#[command(after_help = DOCTOR)]
pub struct Doctor {
    #[command(flatten)]
    pub config: ConfigFile,
    /// Print the findings as JSON
    #[arg(long)]
    pub json: bool,
}

/// What a release means.
const RELEASE: &str = "\
A stream is held where the cluster has other records under its offsets than this disk: the disk was
restored from an image, or a copy of it runs elsewhere. Released, it goes on under an epoch of its
own, from --from on, or from where this disk last knew itself confirmed. What of that the cluster
has already it then has twice, under two epochs; consumers tell by the header skerry-epoch.";

#[derive(Debug, Args)]
#[command(after_help = RELEASE)]
pub struct Release {
    /// The stream that is held
    pub stream: String,
    /// The first offset to deliver
    #[arg(long, value_name = "OFFSET")]
    pub from: Option<u64>,
    /// Where the node answers: its [http] listen address
    #[arg(long, value_name = "HOST:PORT", default_value = crate::config::HTTP_LISTEN_DEFAULT)]
    pub node: String,
}

/// How long a choice holds.
const LINK_CHOICE: &str = "\
Choice:
  A link class is one of [[kafka.link]] in the node's config, or `default`: what [kafka] says. It is
  in use from the next second on, whatever the routes are and over restarts, until another one is
  chosen, or `auto`. With `auto` the node goes by the interface and the address that the route to
  the brokers leaves from.";

#[derive(Debug, Args)]
#[command(after_help = LINK_CHOICE)]
pub struct UplinkLink {
    /// The link class to use, or `auto`; tells the one in use if not given
    #[arg(value_name = "NAME")]
    pub class: Option<String>,
    /// Where the node answers: its [http] listen address
    #[arg(long, value_name = "HOST:PORT", default_value = crate::config::HTTP_LISTEN_DEFAULT)]
    pub node: String,
    /// Print the answer as JSON, as the node gave it
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Subcommand)]
pub enum UserCommand {
    /// Add a user; asks for the password
    Add(UserPassword),
    /// Give a user another password; whoever is connected with the old one is disconnected
    Passwd(UserPassword),
    /// Remove a user; whoever is connected as that user is disconnected
    Remove(UserName),
    /// List the users
    List(UsersFile),
    /// Tell whether a password is the user's; exit code 1 if not
    Check(UserPassword),
}

#[derive(Debug, Args)]
pub struct UserPassword {
    #[command(flatten)]
    pub user: UserName,
    /// Read the password from standard input, its first line, instead of asking for it
    #[arg(long)]
    pub stdin: bool,
}

#[derive(Debug, Args)]
pub struct UserName {
    /// The user's name, as MQTT clients and the ACL give it
    pub name: String,
    #[command(flatten)]
    pub users: UsersFile,
}

/// A running node takes changes over within seconds.
#[derive(Debug, Args)]
pub struct UsersFile {
    /// The users file itself
    #[arg(long, value_name = "FILE", conflicts_with = "config")]
    pub file: Option<PathBuf>,
    /// The node's config file, which names the users file
    #[arg(long, value_name = "FILE", default_value = CONFIG_DEFAULT)]
    pub config: PathBuf,
}

/// A moment, be it named or so long ago.
pub fn moment(text: &str) -> Result<WallNanos, String> {
    if let Ok(ago) = humantime::parse_duration(text) {
        let ago = i64::try_from(ago.as_nanos()).unwrap_or(i64::MAX);
        return Ok(WallNanos(WallNanos::now().0.saturating_sub(ago)));
    }
    let named = DateTime::parse_from_rfc3339(text).map_err(|_| {
        "neither a moment such as 2026-03-01T14:00:00Z nor how long ago, such as 2h".to_owned()
    })?;
    let nanos = named.timestamp_nanos_opt();
    nanos
        .map(WallNanos)
        .ok_or_else(|| "years from 1678 to 2262 only".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_named_in_any_time_zone_or_by_how_long_ago_they_were() {
        let noon = Ok(WallNanos(1_772_366_400_000_000_000));
        assert_eq!(moment("2026-03-01T12:00:00Z"), noon);
        assert_eq!(moment("2026-03-01T14:00:00+02:00"), noon);
        assert_eq!(
            moment("1969-12-31T23:59:59.5Z"),
            Ok(WallNanos(-500_000_000))
        );
        let before = WallNanos::now().0 - 7_200_000_000_000;
        let ago = moment("2h").expect("a duration").0;
        assert!((before..before + 60_000_000_000).contains(&ago));
        for wrong in [
            "",
            "yesterday",
            "2026-03-01",
            "12:00",
            "2026-03-01T12:00:00",
            "5",
        ] {
            let why = moment(wrong).expect_err(wrong);
            assert!(why.contains("2h"), "{why}");
        }
        assert!(moment("9999-01-01T00:00:00Z").is_err());
    }
}
