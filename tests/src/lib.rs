//! What the scenarios stand on: the node under test, the real parts around it, and the audit.
//!
//! ```text
//!  paho (Python) ──► Proxy ──► Node ──► Proxy ──► Kafka (JVM) ──► consumer (Python)
//!       │                       ▲                                      │
//!       │ journal             asyncua (Python)                         │ JSON lines
//!       └──────────────────────────► audit ◄───────────────────────────┘
//! ```
//!
//! Rules of the house:
//! - Every scenario owns its world: free ports, its own directory on a real disk, its own
//!   processes, which end with it. Nothing outside `target/` is written.
//! - Nothing waits by sleeping: [`wait::until`] polls a condition until a deadline.
//! - What publishes, what serves OPC-UA and what reads Kafka is never our code; but [`mqtt`] is,
//!   since no client of others keeps its session's ids where a test sees them at a kill.
//! - No timing is asserted. A deadline here says "hung", never "slow".

pub mod audit;
pub mod backlog;
pub mod certificates;
pub mod cgroup;
pub mod chance;
pub mod cluster;
pub mod disk;
pub mod foreign;
pub mod http;
pub mod kafka;
pub mod load;
pub mod machine;
pub mod mqtt;
pub mod node;
pub mod opcua;
pub mod ports;
pub mod process;
pub mod proxy;
pub mod python;
pub mod runner;
pub mod stick;
pub mod wait;
pub mod workspace;
pub mod world;

pub use anyhow::{Context, Error, Result, anyhow, bail, ensure};
