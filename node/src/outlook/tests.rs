use super::*;

const DAY: f64 = 86_400.0;
const MIB: u64 = 1024 * 1024;

/// A node with one stream, second by second.
struct Site {
    begin: Instant,
    seconds: u64,
    head: u64,
    position: u64,
    linked: bool,
    sent: u64,
    outlook: Outlook,
}

/// Bytes of a record on the disk.
const RECORD: u64 = 100;

impl Site {
    fn new() -> Self {
        Self {
            begin: Instant::now(),
            seconds: 0,
            head: 0,
            position: 0,
            linked: true,
            sent: 0,
            outlook: Outlook::new(Sent::default()),
        }
    }

    /// So many seconds in which so many records come and go each.
    fn live(&mut self, seconds: u64, come: u64, go: u64) {
        for _ in 0..seconds {
            self.seconds += 1;
            self.head += come;
            let gone = go.min(self.head - self.position);
            (self.position, self.sent) = (self.position + gone, self.sent + gone * RECORD * 2);
            let wall = self.wall();
            // As if one had come every second since the position.
            let late = (self.head - self.position).checked_div(come.max(1));
            let late = late.unwrap_or(0) * 1_000_000_000;
            let lane = Lane {
                position: Offset(self.position),
                bytes: (self.head - self.position) * RECORD,
                oldest: (self.head > self.position)
                    .then(|| WallNanos(wall.0 - i64::try_from(late).unwrap_or(0))),
                sent_bytes_total: self.sent,
            };
            let stream = Stream {
                name: "telemetry".to_owned(),
                head: Offset(self.head),
                bytes: self.head * RECORD,
                bytes_max: 10 * 1024 * MIB,
                grown_bytes: come * RECORD,
                lane: Some(lane),
            };
            self.outlook.observe(Sample {
                at: self.begin + Duration::from_secs(self.seconds),
                wall,
                linked: self.linked,
                room_bytes: 1024 * 1024 * MIB,
                streams: vec![stream],
            });
        }
    }

    fn wall(&self) -> WallNanos {
        WallNanos(i64::try_from(self.seconds).unwrap_or(0) * 1_000_000_000)
    }

    fn figures(&self) -> Figures {
        self.outlook.figures().expect("something was seen")
    }
}

fn close(found: Option<f64>, expected: f64) -> bool {
    found.is_some_and(|found| (found - expected).abs() <= expected * 0.05)
}

#[test]
fn a_node_that_was_just_started_makes_no_number_up() {
    let outlook = Outlook::new(Sent::default());
    assert_eq!(outlook.figures(), None);
    let mut site = Site::new();
    site.linked = false;
    site.live(3, 100, 0);
    let figures = site.figures();
    assert_eq!(
        (figures.lag_records, figures.lag_bytes),
        (300, 300 * RECORD)
    );
    assert_eq!(figures.ingest_records_per_second, None);
    assert_eq!(figures.drain_records_per_second, None);
    assert_eq!(
        (figures.drain_eta_seconds, figures.rto_seconds),
        (None, None)
    );
    assert_eq!(
        (figures.autonomy_seconds, figures.autonomy_limit),
        (None, None)
    );
}

#[test]
fn a_node_that_keeps_up_is_current() {
    let mut site = Site::new();
    site.live(300, 100, 100);
    let figures = site.figures();
    assert_eq!(figures.rpo_seconds, Some(0.0));
    assert_eq!(
        (figures.rto_seconds, figures.drain_eta_seconds),
        (Some(0.0), Some(0.0))
    );
    assert!(
        close(figures.ingest_records_per_second, 100.0),
        "{figures:?}"
    );
    // Nothing was behind, so what the link could do was not seen.
    assert_eq!(figures.drain_records_per_second, None);
    assert_eq!(figures.sent_today_bytes, 300 * 100 * RECORD * 2);
}

#[test]
fn the_disk_lasts_until_the_first_limit_that_is_reached() {
    let mut site = Site::new();
    site.live(59, 100, 0);
    assert_eq!(site.figures().autonomy_seconds, None);
    site.live(600, 100, 0);
    let figures = site.figures();
    let room = lossy(10 * 1024 * MIB - site.head * RECORD);
    assert!(
        close(figures.autonomy_seconds, room / 10_000.0),
        "{figures:?}"
    );
    assert!(figures.autonomy_seconds > Some(12.0 * DAY));
    assert_eq!(figures.autonomy_limit.as_deref(), Some("telemetry"));
    // The disk itself may be the narrower place.
    let mut last = site.outlook.last.clone().expect("a sample");
    (last.at, last.room_bytes) = (last.at + Duration::from_secs(1), 1_000_000);
    site.outlook.observe(last);
    let figures = site.figures();
    assert!(close(figures.autonomy_seconds, 100.0), "{figures:?}");
    assert_eq!(figures.autonomy_limit.as_deref(), Some("disk"));
}

#[test]
fn what_is_confirmed_is_room() {
    let mut site = Site::new();
    site.live(600, 100, 100);
    let figures = site.figures();
    let all = lossy(10 * 1024 * MIB) / 10_000.0;
    assert!(close(figures.autonomy_seconds, all), "{figures:?}");
}

#[test]
fn nothing_that_comes_in_fills_nothing() {
    let mut site = Site::new();
    site.live(100, 0, 0);
    let figures = site.figures();
    assert_eq!(figures.ingest_bytes_per_second, Some(0.0));
    assert_eq!(figures.autonomy_seconds, None);
}

#[test]
fn a_backlog_is_drained_at_the_measured_rate_less_what_comes_in() {
    let mut site = Site::new();
    site.linked = false;
    site.live(1_000, 100, 0);
    let away = site.figures();
    assert_eq!(away.lag_records, 100_000);
    assert!(close(away.rpo_seconds, 1_000.0), "{away:?}");
    assert_eq!((away.rto_seconds, away.drain_eta_seconds), (None, None));

    site.linked = true;
    site.live(30, 100, 600);
    let draining = site.figures();
    assert!(
        close(draining.drain_records_per_second, 600.0),
        "{draining:?}"
    );
    assert!(
        close(draining.rto_seconds, 85_000.0 / 500.0),
        "{draining:?}"
    );
    assert_eq!(draining.rto_seconds, draining.drain_eta_seconds);

    // Away again: what the link could do is remembered, when it comes back is not known.
    site.linked = false;
    site.live(100, 100, 0);
    let away = site.figures();
    assert!(close(away.drain_eta_seconds, 95_000.0 / 500.0), "{away:?}");
    assert_eq!(away.rto_seconds, None);

    site.linked = true;
    site.live(400, 100, 600);
    assert_eq!(site.figures().rto_seconds, Some(0.0));
}

#[test]
fn a_link_that_is_gone_before_it_is_noticed_says_nothing_of_what_it_carried() {
    let mut site = Site::new();
    site.linked = false;
    site.live(1_000, 100, 0);
    site.linked = true;
    site.live(30, 100, 600);
    site.live(40, 100, 0);
    let stalled = site.figures().drain_records_per_second;
    site.linked = false;
    site.live(10, 100, 0);
    assert_eq!(site.figures().drain_records_per_second, stalled);
    assert!(close(stalled, 600.0), "{stalled:?}");
    // Nor does what was confirmed before the cut and is heard of with it.
    site.linked = true;
    site.live(30, 100, 600);
    site.live(40, 100, 0);
    site.live(1, 100, 600);
    site.linked = false;
    site.live(10, 100, 0);
    assert!(close(site.figures().drain_records_per_second, 600.0));
    // Long transactions are no stalls: what they carry took as long as they did.
    let mut slow = Site::new();
    slow.linked = false;
    slow.live(1_000, 100, 0);
    slow.linked = true;
    for _ in 0..20 {
        slow.live(4, 100, 0);
        slow.live(1, 100, 2_000);
    }
    assert!(close(slow.figures().drain_records_per_second, 400.0));
}

#[test]
fn a_link_slower_than_what_comes_in_never_gets_there() {
    let mut site = Site::new();
    site.live(600, 100, 40);
    let figures = site.figures();
    assert!(close(figures.drain_records_per_second, 40.0), "{figures:?}");
    assert_eq!(
        (figures.rto_seconds, figures.drain_eta_seconds),
        (None, None)
    );
}

#[test]
fn a_day_begins_at_nothing_and_goes_on_where_a_restart_left_it() {
    let mut site = Site::new();
    let before = Sent { day: 0, bytes: 7 };
    site.outlook = Outlook::new(before);
    site.live(10, 100, 100);
    let today = 7 + 10 * 100 * RECORD * 2;
    assert_eq!(
        site.outlook.sent(),
        Sent {
            day: 0,
            bytes: today
        }
    );
    site.seconds = 86_400;
    site.live(1, 100, 100);
    let tomorrow = Sent {
        day: 1,
        bytes: 100 * RECORD * 2,
    };
    assert_eq!(site.outlook.sent(), tomorrow);
}
