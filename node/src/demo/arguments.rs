//! `skerry demo`: how long, and against what.

use clap::Args;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub struct Arguments {
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
