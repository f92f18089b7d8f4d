//! Many records of a log stream as the value of one Kafka record, by columns.
//!
//! What a sensor says differs little from what it said before, and what a record carries besides
//! (names of headers, offsets, times) hardly at all. Compression of whole batches pays for saying it
//! again in every record; this does not:
//!
//! ```text
//! {"value":21.4,"unit":"°C"}      literals  {"value":  ,"unit":"  "}      once
//! {"value":21.5,"unit":"°C"}  →   decimals  214 215 215                     differences, in bits
//! {"value":21.5,"unit":"°C"}      texts     °C                              once
//! ```
//!
//! Payloads are taken apart into *shapes* (what payloads of a kind have in common) and columns of
//! the pieces that vary; rows of one key may go together; what is left of the numbers takes as few
//! bits as it needs, and zstd takes the rest. The block describes itself: no schema is agreed upon,
//! registered or guessed. `FORMAT.md` has every byte, `vectors/` blocks to try a decoder with.
//!
//! **Lossless to the byte** for any payload: one that looks like no text of JSON's sort, and one
//! that only almost does, is kept as it is. A number is one only if writing it gives the same text.
//!
//! **Bounded**: [`unpack`] checks every claim of a block against what there is and against
//! [`UNPACKED_BYTES_MAX`], [`COLUMN_BYTES_MAX`], [`ROWS_MAX`] and [`VALUES_MAX`] before it takes
//! memory for it; hostile bytes end in an [`Error`] that says what is wrong and where.
//!
//! **Pure**: bytes in, bytes out; the same rows make the same block. Neither Kafka nor the log is
//! known here.
//!
//! ```
//! # fn main() -> Result<(), skerry_pack::Error> {
//! use skerry_pack::{Header, Options, Packer, Row, Summary, unpack};
//!
//! let mut packer = Packer::new(Options::default());
//! for (offset, value) in [(7, "21.4"), (8, "21.5")] {
//!     let headers = [Header { name: b"unit", value: Some("°C".as_bytes()) }];
//!     let (key, value) = (b"hall", value.as_bytes());
//!     packer.push(Row { offset, timestamp_ms: 0, key, value, headers: headers.into_iter() })?;
//! }
//! let block = packer.finish().expect("two rows");
//! assert_eq!(Summary::read(&block)?.last_offset, 8);
//! let block = unpack(&block)?;
//! let values: Vec<_> = block.rows().map(|row| row.value).collect();
//! assert_eq!(values, [b"21.4", b"21.5"]);
//! # Ok(())
//! # }
//! ```

mod block;
mod codec;
mod coding;
mod columns;
mod error;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod number;
mod order;
mod packer;
mod reader;
mod scan;
mod shape;
mod stamps;
mod text;
mod unpack;

pub use block::{COLUMN_BYTES_MAX, ROWS_MAX, Summary, UNPACKED_BYTES_MAX, VALUES_MAX, is_packed};
pub use error::{Error, Section};
pub use packer::{Options, Packer, Row};
pub use shape::Header;
pub use unpack::{Block, Headers, unpack};
