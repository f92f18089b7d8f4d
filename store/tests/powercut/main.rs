//! The power goes at any moment, and again while the log recovers from it: what was acknowledged
//! is there, what was not is there as a whole or not at all, and the log goes on.

#![expect(
    clippy::unwrap_used,
    reason = "a test that panics is a test that fails"
)]

#[path = "../common/mod.rs"]
mod common;
mod disk;
mod history;
mod life;
mod preloaded;
mod recorder;
mod simulated;
mod world;
