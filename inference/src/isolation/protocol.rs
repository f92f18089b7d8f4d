//! What node and child say to each other: frames of a length (`u32`, little-endian) and a message
//! in postcard, after a greeting from the child.

use crate::config::Budget;
use crate::encoding;
use crate::error::{Error, RunFault};
use crate::output::Output;
use crate::runner::{Answer, Score};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::Duration;

/// What a child says first. Whatever comes before it is no part of the conversation.
pub(super) const GREETING: &[u8] = b"skerry model host 1\n";

/// Long enough for a large model on a slow board; a file that takes longer is most likely one
/// that never finishes (one changed byte is enough for that).
const LOAD_TIME_MAX: Duration = Duration::from_secs(30);

/// A window has at most 64 KiB; nothing else comes near this.
pub(super) const FRAME_BYTES_MAX: usize = 1024 * 1024;
pub(super) const LENGTH_BYTES: usize = size_of::<u32>();
const _: () = assert!(FRAME_BYTES_MAX >= 4 * size_of::<f32>() * crate::config::WINDOW_VALUES_MAX);

/// One model in a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Slot(pub(crate) u32);

/// Everything a child must know to load a model.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) file: PathBuf,
    /// Rows and columns of a window; `None` takes them from what lies beside the model.
    pub(crate) shape: Option<(usize, usize)>,
    pub(crate) output: Output,
    /// The file must be this one.
    pub(crate) sha256: Option<String>,
    pub(crate) load_time_max: Duration,
    /// For one window.
    pub(crate) time_max: Duration,
    /// For the loaded model and the window it works on.
    pub(crate) memory_max_bytes: u64,
}

impl Order {
    /// One without a file, which its caller fills in.
    pub(crate) fn of(budget: Budget) -> Self {
        Self {
            file: PathBuf::new(),
            shape: None,
            output: Output::default(),
            sha256: None,
            load_time_max: LOAD_TIME_MAX,
            time_max: budget.time_max,
            memory_max_bytes: budget.memory_max_bytes,
        }
    }
}

/// What loading a model told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Loaded {
    pub(crate) sha256: String,
    pub(crate) version: Option<String>,
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    /// What the inputs looked like in training: JSON, as the package has it.
    pub(crate) reference: Option<String>,
    /// What it may take, by its package or else as ordered.
    pub(crate) time_max: Duration,
    pub(crate) memory_max_bytes: u64,
    pub(crate) file_bytes: u64,
    pub(crate) golden_cases: Option<usize>,
    /// The slowest golden case but the first, which warms up what all others use.
    pub(crate) golden_time_max: Option<Duration>,
    pub(crate) load_time: Duration,
    /// What its host grew by.
    pub(crate) held_bytes: u64,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Request {
    /// Loads a model that nobody waits for, and keeps nothing of it.
    Probe {
        order: Order,
    },
    Load {
        slot: Slot,
        order: Order,
    },
    Run {
        slot: Slot,
        window: Vec<f32>,
    },
    Unload {
        slot: Slot,
    },
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Reply {
    Loaded(Result<Loaded, Error>),
    Scored(Result<Scored, RunFault>),
    Unloaded,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Scored {
    value: f32,
    class: Option<String>,
    took: Duration,
}

impl From<Answer> for Scored {
    fn from(Answer { score, took }: Answer) -> Self {
        Self {
            value: score.value,
            class: score.class.map(|class| class.as_ref().to_owned()),
            took,
        }
    }
}

impl From<Scored> for Answer {
    fn from(Scored { value, class, took }: Scored) -> Self {
        let class = class.map(Into::into);
        Self {
            score: Score { value, class },
            took,
        }
    }
}

/// A message as it goes through the pipe, so that one write sends it.
pub(super) fn frame(message: &impl Serialize) -> Vec<u8> {
    let mut frame = encoding::extend(vec![0; LENGTH_BYTES], message);
    let length = u32::try_from(frame.len() - LENGTH_BYTES).expect("messages are small");
    frame[..LENGTH_BYTES].copy_from_slice(&length.to_le_bytes());
    frame
}

/// How long the message after this length is; an error if no message is.
pub(super) fn length(bytes: [u8; LENGTH_BYTES]) -> std::io::Result<usize> {
    let length = u32::from_le_bytes(bytes) as usize;
    if length > FRAME_BYTES_MAX {
        let why = format!("a message of {length} bytes, which nobody sends");
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, why));
    }
    Ok(length)
}
