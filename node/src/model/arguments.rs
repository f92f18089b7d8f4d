//! `skerry model …`: what can be asked of models.

use crate::cli::{CONFIG_DEFAULT, Format, LogDirectory, TIMES, moment};
use clap::{Args, Subcommand};
use skerry_store::WallNanos;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub struct Arguments {
    #[command(subcommand)]
    pub command: ModelCommand,
}

#[derive(Debug, Subcommand)]
pub enum ModelCommand {
    /// List the running node's models: version, state, time and memory
    List(ModelList),
    /// Look at a model file or package: what it is, its golden cases, time and memory
    Check(ModelCheck),
    /// Measure how long a model takes for a window on this box
    Bench(ModelBench),
    /// Run a model over records of the log and print what it would have said
    Replay(ModelReplay),
    /// Have the running node swap to a version, if that passes its golden cases
    Activate(ModelActivate),
    /// Have the running node go back to the version before
    Rollback(ModelNamed),
    /// Have the running node run a version beside the live one, to compare
    Shadow(ModelShadow),
    /// Tell how a shadow compares with the live model, or the version before with one on trial
    Report(ModelReport),
}

/// Where the node answers.
#[derive(Debug, Args)]
pub struct ModelNode {
    /// Where the node answers: its [http] listen address
    #[arg(long, value_name = "HOST:PORT", default_value = crate::config::HTTP_LISTEN_DEFAULT)]
    pub node: String,
}

#[derive(Debug, Args)]
pub struct ModelList {
    #[command(flatten)]
    pub node: ModelNode,
    /// Print the answer as JSON, as the node gave it
    #[arg(long)]
    pub json: bool,
}

/// A model by itself, or as a configured one would be bound.
#[derive(Debug, Args)]
pub struct ModelFile {
    /// An ONNX file, or a package: a folder with model.json
    pub file: PathBuf,
    /// Rows of a window, where neither a package nor a golden file tells
    #[arg(long, value_name = "ROWS", requires = "columns")]
    pub window: Option<usize>,
    /// Columns of a window
    #[arg(long, value_name = "COLUMNS", requires = "window")]
    pub columns: Option<usize>,
    /// Hold it against the binding of this [[model]] of the config
    #[arg(long = "for", value_name = "NAME", conflicts_with = "window")]
    pub bound: Option<String>,
    /// The node's config file, for --for
    #[arg(long, value_name = "FILE", default_value = CONFIG_DEFAULT)]
    pub config: PathBuf,
    /// One JSON object
    #[arg(long)]
    pub json: bool,
}

/// Where a model is looked at.
const CHILD: &str = "\
The file is read in a process of its own, within the time and memory that a node would give it:
whatever is in it, nothing else is hurt. Exit code: 0 it would run, 1 it would not, and why.";

#[derive(Debug, Args)]
#[command(after_help = CHILD)]
pub struct ModelCheck {
    #[command(flatten)]
    pub of: ModelFile,
}

#[derive(Debug, Args)]
#[command(after_help = CHILD)]
pub struct ModelBench {
    #[command(flatten)]
    pub of: ModelFile,
    /// How many windows
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub windows: u32,
}

/// What a replay starts from.
const REPLAY: &str = "\
It reads the log beside a running node, or of a stopped one, and writes nothing. Windows are empty
at the first record. Each line is a score, or an alert, as the node would have written it. The last
line on standard error tells how many, and how many of the scores are those in the log.";

#[derive(Debug, Args)]
#[command(after_help = format!("{TIMES}\n\n{REPLAY}"))]
pub struct ModelReplay {
    /// The [[model]] of the config whose binding is used
    pub name: String,
    /// The node's config file
    #[arg(long, value_name = "FILE", default_value = CONFIG_DEFAULT)]
    pub config: PathBuf,
    /// Run this file or package in place of the configured one
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Run this version of the model
    #[arg(long, value_name = "VERSION", conflicts_with = "file")]
    pub version: Option<String>,
    /// First offset, in each of the model's streams
    #[arg(long, value_name = "OFFSET")]
    pub from: Option<u64>,
    /// Offset to end before, in each of the model's streams
    #[arg(long, value_name = "OFFSET")]
    pub to: Option<u64>,
    /// Only records of this time or later
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub since: Option<WallNanos>,
    /// Only records from before this time
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub until: Option<WallNanos>,
    /// How scores and alerts are written
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = Format::Jsonl)]
    pub format: Format,
    /// The keys to an encrypted log, as in store.encryption_key_file
    #[arg(long, value_name = "FILE")]
    pub key_file: Option<PathBuf>,
}

impl ModelReplay {
    /// The log as `skerry log` names it.
    pub fn log(&self, data_dir: PathBuf) -> LogDirectory {
        LogDirectory {
            data_dir,
            key_file: self.key_file.clone(),
            json: false,
        }
    }
}

/// What a swap means.
const ACTIVATE: &str = "\
The version is DATA_DIR/models/NAME/VERSION, a package. It is loaded and its golden cases are run
beside the live one; what fails there is refused, and nothing changes. Windows, cursors and alerts
stay. The choice holds over restarts. If the version fails in its work, or takes longer or more
memory than it may, or, with `canary` of the [[model]], says something else than the one before, that
one runs again by itself.";

#[derive(Debug, Args)]
#[command(after_help = ACTIVATE)]
pub struct ModelActivate {
    /// The [[model]] of the config
    pub name: String,
    /// A folder of DATA_DIR/models/NAME
    pub version: String,
    #[command(flatten)]
    pub node: ModelNode,
}

#[derive(Debug, Args)]
pub struct ModelNamed {
    /// The [[model]] of the config
    pub name: String,
    #[command(flatten)]
    pub node: ModelNode,
}

#[derive(Debug, Args)]
pub struct ModelShadow {
    /// The [[model]] of the config
    pub name: String,
    /// A folder of DATA_DIR/models/NAME
    #[arg(required_unless_present = "off")]
    pub version: Option<String>,
    /// Run nothing beside it any more
    #[arg(long, conflicts_with = "version")]
    pub off: bool,
    #[command(flatten)]
    pub node: ModelNode,
}

#[derive(Debug, Args)]
pub struct ModelReport {
    #[command(flatten)]
    pub of: ModelNamed,
    /// Print the report as JSON, as the node gave it
    #[arg(long)]
    pub json: bool,
}
