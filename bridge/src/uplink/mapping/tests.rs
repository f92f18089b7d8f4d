use super::super::late::TimeRules;
use super::*;
use skerry_store::Kind;

fn origin() -> Origin {
    Origin::new("vessel-7", 0xf3, "telemetry", "skerry.telemetry".to_owned())
}

fn origin_with(change: impl FnOnce(&mut Route)) -> Origin {
    let mut origin = origin();
    change(&mut origin.route);
    origin
}

const DAY: i64 = 24 * 3_600 * 1_000_000_000;

fn days_old(days: i64) -> Record {
    let mut record = Record::new(Kind::Mqtt, "plant/a", "1");
    record.ingest_time = WallNanos(record.ingest_time.0 - days * DAY);
    record
}

fn learn(origin: &Origin, topic: &str, retention_ms: &str) {
    let settings = [("cleanup.policy", "delete"), ("retention.ms", retention_ms)];
    let rules = TimeRules::of(Some(&settings.into_iter().collect()));
    origin.topics.learn(topic.to_owned(), rules, 3);
}

fn fit(origin: &Origin, record: &Record) -> (Outgoing, Result<Fitted, Obstacle>) {
    let mut outgoing = origin.record(Offset(1), record.clone());
    let fitted = origin.fit(&mut outgoing, Times::of(record));
    (outgoing, fitted)
}

fn header<'a>(record: &'a Outgoing, name: &str) -> Option<&'a str> {
    let found = record.headers.iter().find(|(n, _)| n == name);
    found.map(|(_, value)| std::str::from_utf8(value).unwrap())
}

#[test]
fn a_record_keeps_its_payload_and_gets_its_name() {
    let mut record = Record::new(Kind::Opcua, "pump1/vibration", "{\"value\":1}");
    record.source_time = Some(WallNanos(1_500_000_000_999_999_999));
    record.status = 0x8034_0000;
    record.attributes = vec![("unit".to_owned(), Bytes::from_static(b"mm/s"))];
    let sent = origin().record(Offset(42), record.clone());
    assert_eq!(
        (&sent.key[..], &sent.value),
        (&b"pump1/vibration"[..], &record.payload)
    );
    assert_eq!(sent.timestamp_ms, 1_500_000_000_999);
    assert_eq!(header(&sent, "skerry-epoch"), Some("00000000000000f3"));
    assert_eq!(header(&sent, "skerry-offset"), Some("42"));
    assert_eq!(header(&sent, "skerry-kind"), Some("opcua"));
    assert_eq!(header(&sent, "skerry-status"), Some("80340000"));
    assert_eq!(
        header(&sent, "skerry-source-time"),
        Some("1500000000999999999")
    );
    assert_eq!(header(&sent, "skerry-server-time"), None);
    assert_eq!(header(&sent, "unit"), Some("mm/s"));
}

#[test]
fn a_publisher_cannot_speak_for_the_node() {
    let mut record = Record::new(Kind::Mqtt, "a", "1");
    record.attributes = vec![("skerry-offset".to_owned(), Bytes::from_static(b"0"))];
    let sent = origin().record(Offset(9), record);
    let named: Vec<_> = sent
        .headers
        .iter()
        .filter(|(n, _)| n == "skerry-offset")
        .collect();
    assert_eq!(named, [&("skerry-offset".into(), Bytes::from_static(b"9"))]);
    assert_eq!(header(&sent, "user-skerry-offset"), Some("0"));
}

#[test]
fn a_source_far_in_the_future_does_not_date_the_record() {
    let mut record = Record::new(Kind::Mqtt, "a", "1");
    record.source_time = Some(WallNanos(i64::MAX));
    let sent = origin().record(Offset(0), record.clone());
    assert_eq!(sent.timestamp_ms, record.ingest_time.millis());
    assert_eq!(
        header(&sent, "skerry-source-time"),
        Some("9223372036854775807")
    );
}

#[test]
fn gaps_say_what_they_stand_for() {
    let gap = origin().missing(Offset(5), Offset(9));
    assert_eq!(header(&gap, "skerry-kind"), Some("gap"));
    assert_eq!(header(&gap, "skerry-offset"), Some("5"));
    let text = std::str::from_utf8(&gap.value).unwrap();
    assert!(
        text.contains("\"offsets\":[5,9]") && text.contains("\"count\":4"),
        "{text}"
    );

    let refused = origin().record(Offset(7), Record::new(Kind::Mqtt, "a/b", vec![0; 100]));
    let gap = origin().quarantined(Offset(7), &refused, "too large");
    assert_eq!(header(&gap, "skerry-kind"), Some("gap"));
    assert_eq!(gap.key, refused.key);
    let refused = origin().record(Offset(7), Record::new(Kind::Mqtt, "x".repeat(9_000), ""));
    assert!(
        origin()
            .quarantined(Offset(7), &refused, &"y".repeat(9_000))
            .size()
            < 2_000
    );
}

#[test]
fn a_late_record_is_marked_and_a_prompt_one_is_not() {
    let (sent, fitted) = fit(&origin(), &days_old(0));
    assert_eq!(fitted, Ok(Fitted::default()));
    assert_eq!(header(&sent, "skerry-backfill"), None);
    let mut record = days_old(0);
    record.ingest_time = WallNanos(record.ingest_time.0 - 61 * 1_000_000_000);
    let (sent, fitted) = fit(&origin(), &record);
    assert!(fitted.unwrap().late);
    assert_eq!(header(&sent, "skerry-backfill"), Some("1"));
    assert_eq!(sent.timestamp_ms, record.ingest_time.millis());
}

#[test]
fn what_the_topic_would_delete_is_held_dated_anew_or_sent_elsewhere() {
    let record = days_old(3);
    let held = origin_with(|route| route.late = Late::Hold);
    learn(&held, "skerry.telemetry", "3600000");
    let Err(Obstacle::Held(why)) = fit(&held, &record).1 else {
        panic!("it would be deleted")
    };
    for part in [
        "`skerry.telemetry`",
        "3d old",
        "retention.ms=3600000",
        "kafka-configs.sh",
        "`late`",
    ] {
        assert!(why.contains(part), "{part}: {why}");
    }
    let restamp = origin();
    learn(&restamp, "skerry.telemetry", "3600000");
    let (sent, fitted) = fit(&restamp, &record);
    assert!(fitted.unwrap().restamped);
    assert!(sent.timestamp_ms >= record.ingest_time.millis() + 3 * 86_400_000);
    let event = record.ingest_time.0.to_string();
    assert_eq!(header(&sent, "skerry-event-time"), Some(&*event));
    assert_eq!(header(&sent, "skerry-backfill"), Some("1"));

    let backfill = origin_with(|route| route.late = Late::BackfillTopic);
    learn(&backfill, "skerry.telemetry", "3600000");
    let unseen = Obstacle::Unseen(vec!["skerry.backfill.telemetry".to_owned()]);
    assert_eq!(fit(&backfill, &record).1, Err(unseen));
    learn(&backfill, "skerry.backfill.telemetry", "-1");
    let (sent, fitted) = fit(&backfill, &record);
    assert!(fitted.unwrap().backfilled);
    assert_eq!(&*sent.topic, "skerry.backfill.telemetry");
    assert_eq!(sent.timestamp_ms, record.ingest_time.millis());
    learn(&backfill, "skerry.backfill.telemetry", "3600000");
    assert!(matches!(fit(&backfill, &record).1, Err(Obstacle::Held(_))));
}

#[test]
fn a_record_that_fits_is_left_as_it_is_under_every_policy() {
    for late in [Late::Hold, Late::Restamp, Late::BackfillTopic] {
        let origin = origin_with(|route| route.late = late);
        learn(&origin, "skerry.telemetry", "604800000");
        let record = days_old(3);
        let (sent, fitted) = fit(&origin, &record);
        assert_eq!(
            fitted,
            Ok(Fitted {
                late: true,
                ..Fitted::default()
            })
        );
        assert_eq!(&*sent.topic, "skerry.telemetry");
        assert_eq!(sent.timestamp_ms, record.ingest_time.millis());
        assert_eq!(header(&sent, "skerry-event-time"), None);
    }
}

#[test]
fn levels_of_the_source_name_the_topic_but_never_the_positions() {
    let origin = origin_with(|route| {
        route.topic = TopicTemplate::new("skerry.{topic}").unwrap();
    });
    let sent = |source: &str| {
        origin
            .record(Offset(0), Record::new(Kind::Mqtt, source, ""))
            .topic
    };
    assert_eq!(&*sent("plant/a b"), "skerry.plant.a_b");
    assert_eq!(&*sent("positions/vessel-7"), "s-skerry.positions.vessel-7");
    assert_eq!(&*sent("positions/vessel-8"), "s-skerry.positions.vessel-8");
    let record = Record::new(Kind::Mqtt, "plant/a", "");
    assert_eq!(
        fit(&origin, &record).1,
        Err(Obstacle::Unseen(vec!["skerry.plant.a".to_owned()]))
    );
    assert_eq!(origin.first_topics(), Vec::<String>::new());
}

#[test]
fn another_key_leaves_the_source_in_a_header() {
    for (key, expected) in [(Key::Node, "vessel-7"), (Key::Stream, "telemetry")] {
        let origin = origin_with(|route| route.key = key);
        let sent = origin.record(Offset(0), Record::new(Kind::Mqtt, "a/b", ""));
        assert_eq!(sent.key, expected);
        assert_eq!(header(&sent, "skerry-source"), Some("a/b"));
        let gap = origin.quarantined(Offset(0), &sent, "too large");
        assert_eq!(gap.key, expected);
        assert_eq!(header(&gap, "skerry-source"), Some("a/b"));
    }
    let sent = origin().record(Offset(0), Record::new(Kind::Mqtt, "a/b", ""));
    assert_eq!(header(&sent, "skerry-source"), None);
}

#[test]
fn the_ingest_time_may_be_the_timestamp() {
    let origin = origin_with(|route| route.timestamp = Timestamp::Ingest);
    let mut record = Record::new(Kind::Mqtt, "a", "1");
    record.source_time = Some(WallNanos(1));
    let sent = origin.record(Offset(0), record.clone());
    assert_eq!(sent.timestamp_ms, record.ingest_time.millis());
}
