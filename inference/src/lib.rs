//! ONNX models over the log: what the machines say in, scores and alerts out.
//!
//! ```text
//!   records of     ┌ per asset ─────────────────────────┐   window    ┌ child ─┐
//!   the input ───► │ hold ─► gate ─► row ─► window      │ ──────────► │ tract  │
//!   streams        │ last    bad,    per    32 rows,    │             └───┬────┘
//!   (cursors)      │ value   stale   clock  step 8      │                 │ score
//!                  │                        alert state │ ◄───────────────┘
//!                  └────────────────────────────────────┘
//!                     │ one append: scores + state + cursors  ──► stream `scores`
//!                     └ then: alerts, out of the outbox       ──► stream `alerts`
//! ```
//!
//! **Binding.** A column is a source's numbers, scaled: of an MQTT topic, an OPC-UA node, or of
//! another model's scores; or features of the bursts that a source sends. Rows are made with each
//! value of the first column, in which the others hold what they last had; or on a grid, see
//! `resample`. A value whose StatusCode is not Good, that is not finite, unreadable or older than
//! `stale_after` never reaches the tensor: no row is made until it is replaced, and why is
//! counted. A window never spans a hole longer than that either. The tensor is the window's rows,
//! or features of its columns, see `feature`.
//!
//! **Alerts.** Levels with hysteresis, a hold, and a limit to how often somebody is told, see
//! `alert`; whether the inputs still look as in training, see `drift`.
//!
//! **Exactly once.** State, cursors and scores change in one append. Through kill -9 each window
//! is scored once, and each alert is raised and cleared once; see `engine`. That holds for chains of
//! models, too: each is a reader of the log.
//!
//! **Isolation.** Models are read and run in processes of their own, within time and memory, their
//! golden cases first; see `isolation`. A model that is none, panics, stalls, grows, ends its
//! process or answers NaN is disabled with its reason in the [`Status`]; its cursors stay, so after
//! the next start it goes on where it was.
//!
//! **Versions.** A model can be swapped while the node runs, compared with a candidate beside it, and
//! goes back by itself when a version fails, or says something else than the one before; see
//! `lifecycle`, `shadow`, `canary`, and `manifest` for what a package has.
//!
//! **Memory.** Windows are set aside from the configuration: [`Model::memory_bytes`].

mod alert;
mod asset;
mod binding;
mod canary;
mod chain;
mod config;
mod derived;
mod drift;
mod driver;
mod encoding;
mod engine;
mod error;
mod feature;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod golden;
mod graph;
mod input;
mod isolation;
mod lifecycle;
mod manifest;
mod merge;
#[cfg(feature = "nets")]
mod net;
mod output;
mod package;
mod resample;
mod runner;
mod scorer;
mod shadow;
mod spectrum;
mod state;
mod status;
#[cfg(feature = "nets")]
mod tract;
#[cfg(not(feature = "nets"))]
#[path = "no_tract.rs"]
mod tract;
mod trial;
mod versions;
mod window;

#[cfg(test)]
mod fixture;

pub use alert::{
    Alerting, Direction, Hold, LEVELS_MAX, Level, RATE_ALERTS_MAX, RateLimit, Severity,
};
pub use canary::{CANARY_WINDOWS_MAX, Canary, CanaryReport, Difference};
pub use chain::chain_problems;
pub use config::{
    ASSET, ASSETS_MAX, Budget, COLUMNS_MAX, Config, Grid, Model, ModelOptions, OutputKind, Pace,
    Problem, ROWS_MAX, STALE_AFTER_DEFAULT, Span, WINDOW_VALUES_MAX,
};
pub use drift::{ColumnReference, DriftOptions, Hysteresis, Reference};
pub use driver::run;
pub use error::{Error, RunFault};
pub use feature::Feature;
pub use input::{BURST_SAMPLES_MAX, Burst, FEATURES_MAX, Fill, Input, Scaling, Source};
pub use isolation::{HostCommand, serve as serve_host};
pub use output::{Output, Pick, Reconstruction};
pub use package::ModelInfo;
pub use scorer::Scorer;
pub use shadow::ShadowReport;
pub use status::{
    AssetSnapshot, ModelSnapshot, RowsSkipped, Snapshot, State, Status, ValuesLeftOut, WindowsUnfit,
};
pub use trial::{Bench, Said, Trial};
pub use versions::{Command, Refused};
