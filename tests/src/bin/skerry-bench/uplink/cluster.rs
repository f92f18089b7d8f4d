//! The broker that everything is sent to.

use std::path::Path;
use std::time::Duration;

use skerry_tests::kafka::{Extra, Kafka};
use skerry_tests::proxy::{Link, Proxy};
use skerry_tests::{Result, ports};

/// Of a satellite: half of 600 ms each way.
pub(super) const DELAY: Duration = Duration::from_millis(300);
pub(super) const BITS_PER_SECOND: u32 = 256_000;

pub(super) struct Cluster {
    pub(super) kafka: Kafka,
    /// Another way to the same broker, for those who come in by it.
    pub(super) link: Proxy,
}

impl Cluster {
    pub(super) fn start(folder: &Path) -> Result<Self> {
        let [detour, advertised] = [ports::free()?, ports::free()?];
        let extra = Extra {
            detour: Some([detour, advertised]),
            // As an installation has it: compiled as well as can be, and with room.
            java: ["-Xmx1g", "-XX:TieredStopAtLevel=4"]
                .map(str::to_owned)
                .into(),
            // Nobody reads a backlog back, so the broker may give it up soon.
            properties: "log.segment.bytes=67108864
log.retention.bytes=134217728
log.retention.check.interval.ms=5000
log.segment.delete.delay.ms=1000
"
            .to_owned(),
            ..Extra::default()
        };
        Ok(Self {
            kafka: Kafka::start_extended(folder, folder, &extra)?,
            link: Proxy::start_on(advertised, detour)?,
        })
    }

    /// From now on the link is the satellite's.
    pub(super) fn narrow(&self) {
        self.link.set(Link::slow(DELAY, BITS_PER_SECOND));
    }

    /// As far away, and as wide as this machine is.
    pub(super) fn wide(&self) {
        self.link.set(Link::Up {
            delay: DELAY,
            bytes_per_second: None,
        });
    }
}
