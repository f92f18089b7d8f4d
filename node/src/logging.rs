//! Logs for a person at a terminal, for journald and for a collector.

use std::fmt;
use std::io::IsTerminal;
use std::os::unix::fs::MetadataExt;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::{self, FormatEvent, FormatFields, Writer};
use tracing_subscriber::fmt::{FmtContext, format::Format};
use tracing_subscriber::registry::LookupSpan;

/// Logs to stderr: level from `SKERRY_LOG` (default `info`), JSON lines with
/// `SKERRY_LOG_FORMAT=json`, and no time stamp of our own under journald, which adds one.
pub fn init() {
    // The vendors log as errors what is retried here and costs nothing; what matters of it is in
    // our own lines and in the status.
    const QUIET: &str = "info,opcua_client=off,opcua_core=off,opcua_crypto=off,opcua_types=off,\
                         opcua_server=off,opcua_nodes=off,krafka=off,tract=error,sled=error";
    let filter = EnvFilter::try_from_env("SKERRY_LOG").unwrap_or_else(|_| EnvFilter::new(QUIET));
    let as_json = std::env::var("SKERRY_LOG_FORMAT").is_ok_and(|format| format == "json");
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false);
    if as_json {
        builder.json().flatten_event(true).init();
    } else if is_journald() {
        let plain = format::format().without_time().with_target(false);
        builder.event_format(ForJournald(plain)).init();
    } else {
        builder.init();
    }
}

/// Whether what is written to stderr goes to journald. The variable alone does not tell: it is
/// inherited by whatever a service starts, also where that writes elsewhere.
fn is_journald() -> bool {
    let stream = std::env::var("JOURNAL_STREAM").unwrap_or_default();
    std::fs::metadata("/proc/self/fd/2")
        .is_ok_and(|stderr| stream == format!("{}:{}", stderr.dev(), stderr.ino()))
}

/// Lines that begin with their level as journald knows it, for `journalctl --priority=warning`.
struct ForJournald(Format<format::Full, ()>);

impl<S, N> FormatEvent<S, N> for ForJournald
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let priority = match *event.metadata().level() {
            Level::ERROR => 3,
            Level::WARN => 4,
            Level::INFO => 6,
            Level::DEBUG | Level::TRACE => 7,
        };
        write!(writer, "<{priority}>")?;
        self.0.format_event(context, writer, event)
    }
}
