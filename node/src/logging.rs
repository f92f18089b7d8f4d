//! Logs for a person at a terminal, for journald and for a collector.

use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;

/// Logs to stderr: level from `SKERRY_LOG` (default `info`), JSON lines with
/// `SKERRY_LOG_FORMAT=json`, and no time stamp of our own under journald, which adds one.
pub fn init() {
    // The vendors log as errors what is retried here and costs nothing; what matters of it is in
    // our own lines and in the status.
    const QUIET: &str = "info,opcua_client=off,opcua_core=off,opcua_crypto=off,opcua_types=off,\
                         opcua_server=off,opcua_nodes=off,krafka=off,tract=error,sled=error";
    let filter = EnvFilter::try_from_env("SKERRY_LOG").unwrap_or_else(|_| EnvFilter::new(QUIET));
    let under_journald = std::env::var_os("JOURNAL_STREAM").is_some();
    let as_json = std::env::var("SKERRY_LOG_FORMAT").is_ok_and(|format| format == "json");
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false);
    if as_json {
        builder.json().flatten_event(true).init();
    } else if under_journald {
        builder.without_time().init();
    } else {
        builder.init();
    }
}
