//! skerry's durable log (contract to be completed).

mod append;
mod catalog;
mod directory;
mod disk;
mod error;
mod frame;
pub mod inspect;
mod log;
mod options;
mod plan;
mod queue;
mod reader;
mod record;
mod recovery;
mod retention;
mod segment;
mod stats;
mod stream;
mod track;
mod writer;

pub use append::{APPEND_BYTES_MAX, Append, Change, Committed};
#[doc(hidden)]
pub use disk::{Disk, Fault, Operation};
pub use error::{Class, Error};
pub use log::{Log, Pending};
pub use options::{Options, StreamName, StreamOptions, WhenFull};
pub use reader::{Batch, Reader};
pub use record::{Gap, Kind, Offset, Record, WallNanos};
pub use recovery::Recovery;
pub use stats::{Stats, Storage, StreamStats};
