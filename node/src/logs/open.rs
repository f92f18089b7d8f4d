//! A log that nobody runs on is opened by whoever looks into it; else the node that has it open is
//! asked to look.

use super::{Failure, keys, looked_for};
use crate::cli::LogOrNode;
use crate::config::{Config, HTTP_LISTEN_DEFAULT};
use crate::status;
use serde_json::Value;
use skerry_store::{Error, Log, Options, Recovery, inspect};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// A data directory, and where its node answers if one runs.
pub struct Place {
    pub options: Options,
    epoch: String,
    node: String,
    subcommand: &'static str,
}

pub enum Opened {
    /// By this process, which is to close it.
    Here(Log, Recovery),
    /// By the node at this address.
    There(String),
}

impl Place {
    /// `subcommand` is what is being done, as the command line has it.
    pub fn of(args: &LogOrNode, subcommand: &'static str) -> Result<Self, Failure> {
        let config = args.config.as_deref().map(Config::load).transpose()?;
        let http = config.as_ref().map(|config| config.http_listen.to_string());
        let mut options =
            config.map_or_else(|| as_found(&args.log.data_dir), |config| config.store);
        if let Some(keys) = keys(&args.log)? {
            options.keys = Some(keys);
        }
        looked_for(&options.directory)?;
        // Tells a data directory from some other folder, which opening would make one of.
        let epoch = inspect::epoch(&options.directory)?;
        let node = args.node.clone().or(http);
        Ok(Self {
            options,
            epoch: format!("{epoch:016x}"),
            node: node.unwrap_or_else(|| HTTP_LISTEN_DEFAULT.to_owned()),
            subcommand,
        })
    }

    pub fn open(self) -> Result<Opened, Failure> {
        let directory = self.options.directory.clone();
        owned_by_this_user(&directory, self.subcommand)?;
        match Log::open(self.options) {
            Ok((log, recovery)) => Ok(Opened::Here(log, recovery)),
            Err(Error::InUse { .. }) => {
                runs_on(&self.node, &directory, &self.epoch)?;
                Ok(Opened::There(self.node))
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// A log as it is on disk, without a limit that could make it drop anything: no stream has one
/// that is not in the options, nothing has an age, and nothing counts as confirmed.
fn as_found(directory: &Path) -> Options {
    Options {
        allow_volatile: true,
        ..Options::new(directory)
    }
}

/// Files made by another user would keep the node from starting.
fn owned_by_this_user(directory: &Path, subcommand: &str) -> Result<(), Failure> {
    let user = |path: &Path| std::fs::metadata(path).map(|found| found.uid());
    let (owner, own) = (user(directory)?, user(Path::new("/proc/self"))?);
    if owner == own {
        return Ok(());
    }
    let directory = directory.display();
    Err(Failure::Told(format!(
        "{directory} belongs to user {owner}, and what user {own} writes there the node could not \
         open: run this as the node's user (sudo -u '#{owner}' skerry {subcommand} ...)"
    )))
}

/// Whether the node at `address` is the one that runs on `directory`.
fn runs_on(address: &str, directory: &Path, epoch: &str) -> Result<(), Failure> {
    let shown = directory.display();
    let stop_or_name = "name its [http] listen address with --node, or stop it (systemctl stop \
                        skerry) and try again";
    let status = status::fetch(address, "/status").map_err(|why| {
        Failure::Told(format!(
            "{shown} is in use by a running node, and none answers at {address} ({why}): \
             {stop_or_name}"
        ))
    })?;
    let status: Value = serde_json::from_str(&status).unwrap_or_default();
    if status["epoch"] != epoch {
        return Err(Failure::Told(format!(
            "{shown} is in use by a running node, and the one at {address} has another data \
             directory: {stop_or_name}"
        )));
    }
    Ok(())
}
