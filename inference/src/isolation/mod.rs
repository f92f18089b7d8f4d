//! Models run in a process of their own, so that no file can hurt the node.
//!
//! ```text
//!   node                                        children: this binary, `skerry model-host`
//!   ────                                        ────────
//!   a new file ── probe ── Load ──────────────► lives for one load: reads, optimises, runs the
//!                            ◄────── Loaded ──  golden cases, within time and memory; killed
//!
//!   task of a model ─┐                          lives as long as the node: all models that
//!   task of a model ─┼─► keeper ── Run ───────► passed, one window at a time
//!   task of a model ─┘   (host)  ◄── Scored ──
//! ```
//!
//! **Whose fault.** The host runs one window at a time and answers before it takes the next. When
//! it ends, stalls or runs out of memory, the model whose window it had is the culprit: that one
//! gets a [`RunFault`](crate::RunFault) and is not loaded again. The keeper starts the next host,
//! loads the others, and their windows, which were waiting meanwhile, are run as if nothing had
//! been. A host that was killed from outside accuses nobody: the window is run once more first.
//!
//! **Memory.** A process's data is what it may write to alone, `RLIMIT_DATA` to Linux. Before each
//! window the host lowers that limit to what it has now and what the model may still take; after
//! it the growth is booked on the model. An allocation beyond ends the host (Rust aborts), a leak
//! ends the model. Pages of the file and of shared libraries count for nobody.
//!
//! **Death.** A child has the read end of a pipe whose write end only the node has. It watches it
//! on a thread that does nothing else, and ends with it, be it in the middle of an endless run.

mod child;
mod confine;
mod host;
mod process;
mod protocol;

pub use child::serve;
pub(crate) use host::{Host, Worker, probe};
pub use process::HostCommand;
pub(crate) use protocol::{Loaded, Order};

#[cfg(test)]
mod tests;
