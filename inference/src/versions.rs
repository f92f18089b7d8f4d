//! Which version of a model runs: what commands said, kept in the catalog.

use crate::canary::Progress;
use crate::config::Model;
use crate::encoding;
use crate::error::Error;
use crate::isolation::{Loaded, Order};
use crate::manifest::{FOLDER_RULE, is_folder_name};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::json;
use skerry_store::{Change, Kind, Log, Record};
use std::fmt;
use std::path::{Path, PathBuf};
use tokio::sync::oneshot;

/// One entry per model, under its name.
pub(crate) const BUCKET: &str = "model-version";
/// The same, for those whose version is on trial.
const CANARY_BUCKET: &str = "model-canary";

/// What an operator may want of a running model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "snake_case", deny_unknown_fields)]
pub enum Command {
    /// Run this version from the next window on.
    Activate { version: String },
    /// Run again what ran before.
    Rollback,
    /// Run this version beside the live one, or none any more.
    Shadow { version: Option<String> },
}

/// Why a command was not followed. Nothing changed then.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Refused {
    #[error("there is no model `{0}`; the configuration names them")]
    UnknownModel(String),
    #[error("the model is stopping or starting again: try again")]
    NotNow,
    #[error("{0:?} is no version: {FOLDER_RULE}")]
    NoName(String),
    #[error("no folder for versions is configured")]
    NoFolder,
    #[error("nothing ran before, so there is nothing to go back to")]
    NothingBefore,
    #[error("{found} is in the folder of version {wanted}")]
    OtherVersion { wanted: String, found: String },
    #[error(transparent)]
    Model(#[from] Error),
}

/// A command, and where to say what came of it.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) command: Command,
    pub(crate) reply: oneshot::Sender<Result<String, Refused>>,
}

/// What there can be to run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Version {
    /// `file` of the configuration.
    #[default]
    Configured,
    /// A folder of the models' folder.
    Named(String),
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Configured => f.write_str("the configured file"),
            Self::Named(version) => write!(f, "version {version}"),
        }
    }
}

/// What is kept of a model's commands.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Choice {
    pub(crate) active: Version,
    pub(crate) previous: Option<Version>,
    pub(crate) shadow: Option<String>,
    /// If the active version is on trial against the previous one. In a bucket of its own.
    #[serde(skip)]
    pub(crate) canary: Option<Progress>,
    /// Nothing is to run beside it, whatever the configuration names. Until the next start.
    #[serde(skip)]
    pub(crate) is_shadow_off: bool,
}

impl Choice {
    /// What was chosen last; the configured file where nothing was.
    pub(crate) fn read(log: &Log, model: &Model) -> Result<Self, skerry_store::Error> {
        let kept = log.get(BUCKET, model.name.as_bytes())?;
        let read = kept.as_deref().map(encoding::read);
        if read == Some(None) {
            tracing::error!(
                model = model.name,
                "which version ran is not readable; the configured file runs"
            );
        }
        let mut choice: Self = read.flatten().unwrap_or_default();
        // Who takes the trial out of the configuration ends it.
        if model.canary.is_some() && choice.previous.is_some() {
            let kept = log.get(CANARY_BUCKET, model.name.as_bytes())?;
            choice.canary = kept.map(|kept| encoding::read(&kept).unwrap_or_default());
        }
        Ok(choice)
    }

    pub(crate) fn changes(&self, model: &Model) -> Vec<Change> {
        vec![put(BUCKET, model, self), self.canary_change(model)]
    }

    /// What keeps how far the trial is.
    pub(crate) fn canary_change(&self, model: &Model) -> Change {
        match &self.canary {
            Some(progress) => put(CANARY_BUCKET, model, progress),
            None => Change::Delete {
                bucket: CANARY_BUCKET.to_owned(),
                key: key(model),
            },
        }
    }

    /// With `on_trial`, what ran before goes on beside it for a while. A version that is on trial
    /// itself is nothing to be measured by, or to come back to: what ran before it stays that.
    pub(crate) fn activated(&self, version: Version, on_trial: bool) -> Self {
        let now_live = |shadow: &String| Version::Named(shadow.clone()) == version;
        // Whoever activates what runs already, to have it read anew, keeps the way back.
        let keeps = version == self.active || self.canary.is_some();
        let previous = match keeps {
            true => self.previous.clone(),
            false => Some(self.active.clone()),
        };
        let previous = previous.filter(|previous| *previous != version);
        Self {
            shadow: self.shadow.clone().filter(|shadow| !now_live(shadow)),
            canary: (on_trial && previous.is_some()).then(Progress::default),
            previous,
            active: version,
            ..self.clone()
        }
    }

    /// Back to what ran before, and no further: what failed is nothing to come back to.
    pub(crate) fn rolled_back(&self) -> Option<Self> {
        Some(Self {
            active: self.previous.clone()?,
            previous: None,
            canary: None,
            ..self.clone()
        })
    }

    /// What is to run beside the active version: what a command chose, else what is configured.
    pub(crate) fn wanted_shadow(&self, model: &Model) -> Option<String> {
        let configured = model.shadow.as_ref().filter(|_| !self.is_shadow_off);
        let wanted = self.shadow.as_ref().or(configured)?;
        (label(&self.active) != Some(wanted)).then(|| wanted.clone())
    }
}

fn key(model: &Model) -> Bytes {
    Bytes::copy_from_slice(model.name.as_bytes())
}

fn put(bucket: &str, model: &Model, value: &impl Serialize) -> Change {
    Change::Put {
        bucket: bucket.to_owned(),
        key: key(model),
        value: encoding::write(value).into(),
    }
}

impl Version {
    /// Refuses a package that is of another version than its folder's name says.
    pub(crate) fn expect(&self, loaded: &Loaded) -> Result<(), Refused> {
        match self {
            Self::Named(wanted) if loaded.version.as_ref() != Some(wanted) => {
                let found = loaded.version.clone();
                Err(Refused::OtherVersion {
                    wanted: wanted.clone(),
                    found: found.unwrap_or_else(|| "no package".to_owned()),
                })
            }
            Self::Named(_) | Self::Configured => Ok(()),
        }
    }
}

/// How to load a version of a model.
pub(crate) fn order_of(
    model: &Model,
    folder: Option<&Path>,
    version: &Version,
) -> Result<Order, Refused> {
    let mut order = model.order();
    if let Version::Named(version) = version {
        order.file = folder_of(model, folder, version)?;
    }
    Ok(order)
}

fn folder_of(model: &Model, folder: Option<&Path>, version: &str) -> Result<PathBuf, Refused> {
    for name in [version, model.name.as_str()] {
        if !is_folder_name(name) {
            return Err(Refused::NoName(name.to_owned()));
        }
    }
    let folder = folder.ok_or(Refused::NoFolder)?;
    Ok(folder.join(&model.name).join(version))
}

/// The node's own record of what happened to a model.
pub(crate) fn event(model: &Model, what: &str, choice: &Choice, why: Option<&str>) -> Record {
    let details = json!({
        "model": model.name,
        "active": label(&choice.active),
        "previous": choice.previous.as_ref().map(label),
        "shadow": choice.shadow,
        "reason": why,
    });
    let payload = json!({ "event": what, "details": details }).to_string();
    Record::new(Kind::Node, format!("model/{}", model.name), payload)
}

/// As commands name it; the configured file has no name.
pub(crate) fn label(version: &Version) -> Option<&str> {
    match version {
        Version::Configured => None,
        Version::Named(version) => Some(version),
    }
}
