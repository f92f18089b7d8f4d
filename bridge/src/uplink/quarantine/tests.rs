use super::*;
use skerry_store::{APPEND_BYTES_MAX, Options, StreamOptions, WhenFull};
use std::path::Path;

const STREAM: &str = "telemetry";

fn stream() -> StreamName {
    StreamName::new(STREAM).unwrap()
}

fn open(directory: &Path) -> Log {
    let mut options = Options::new(directory);
    options.allow_volatile = true;
    let quarantine = StreamOptions {
        when_full: WhenFull::DropOldest,
        readers: vec![SETTLED.to_owned()],
        ..StreamOptions::new(quarantine(), 1 << 20)
    };
    options.streams = vec![StreamOptions::new(stream(), 1 << 30), quarantine];
    Log::open(options).unwrap().0
}

fn refused(stream: &StreamName, offset: u64) -> Refused<'_> {
    Refused {
        stream,
        offset: Offset(offset),
        topic: "skerry.telemetry",
        reason: "too large",
    }
}

fn record() -> Record {
    let mut record = Record::new(Kind::Mqtt, "plant/a", "21.5");
    record.source_time = Some(WallNanos(7));
    record.status = 3;
    record.attributes = vec![
        (ABOUT[0].to_owned(), Bytes::from_static(b"somebody else")),
        ("unit".to_owned(), Bytes::from_static(b"C")),
    ];
    record
}

async fn keep(log: &Log, offset: u64, record: Record) -> Keeping {
    let mut quarantine = Quarantine::new(log);
    let kept = quarantine.keep(refused(&stream(), offset), record).await;
    kept.unwrap()
}

#[tokio::test]
async fn there_is_one_copy_however_often_a_record_is_refused() {
    let disk = tempfile::tempdir_in(".").unwrap();
    let log = open(disk.path());
    assert_eq!(keep(&log, 40, record()).await, Keeping::Kept);
    assert_eq!(keep(&log, 40, record()).await, Keeping::Kept);
    log.close().await.unwrap();
    // Killed between the copy and the gap, the node corners the record again.
    let log = open(disk.path());
    assert_eq!(keep(&log, 40, record()).await, Keeping::Kept);
    let all = list(&log, true).unwrap();
    assert_eq!(all.len(), 1);
    assert_eq!(waiting(&log).unwrap(), 1);
    let (kept, original) = find(&log, all[0].id).unwrap().unwrap();
    assert_eq!((kept.stream.as_str(), kept.offset), (STREAM, Offset(40)));
    assert_eq!(kept.epoch, format!("{:016x}", log.epoch()));
    assert_eq!(
        (kept.topic.as_str(), kept.reason.as_str()),
        ("skerry.telemetry", "too large")
    );
    assert!(kept.whole && kept.settled.is_none());
    // Nothing that a publisher calls its properties passes for what the node says.
    let expected = Record {
        ingest_time: original.ingest_time,
        ..record()
    };
    assert_eq!(original, expected);
}

#[tokio::test]
async fn a_retry_happens_once_and_says_what_it_repeats() {
    let disk = tempfile::tempdir_in(".").unwrap();
    let log = open(disk.path());
    keep(&log, 40, record()).await;
    let id = list(&log, false).unwrap()[0].id;
    let settled = retry(&log, id, "ada").await.unwrap();
    assert_eq!((settled.how, settled.by.as_str()), (How::Retried, "ada"));
    let again = retry(&log, id, "bob").await.unwrap_err();
    assert_eq!(
        again.to_string(),
        format!("record {id} was sent again by ada already")
    );
    assert!(matches!(
        drop(&log, id, "bob").await,
        Err(NotSettled::Before { .. })
    ));
    assert_eq!(
        (waiting(&log).unwrap(), list(&log, false).unwrap()),
        (0, vec![])
    );
    let read = log
        .reader(&stream(), Offset::ZERO)
        .unwrap()
        .next(1)
        .unwrap();
    assert_eq!(log.head(&stream()).unwrap().borrow().0, 1);
    let (_, sent) = &read.records[0];
    assert_eq!(
        sent.attributes[0],
        (RETRY_OF.to_owned(), Bytes::from_static(b"telemetry/40"))
    );
    assert_eq!(sent.attributes[1..], record().attributes);
    assert_eq!(sent.source_time, record().source_time);

    // Refused again, it is another record, and what is sent then names that one.
    keep(&log, 0, sent.clone()).await;
    let second = list(&log, false).unwrap()[0].id;
    retry(&log, second, "ada").await.unwrap();
    let read = log.reader(&stream(), Offset(1)).unwrap().next(1).unwrap();
    let marks = &read.records[0].1.attributes;
    let marks: Vec<_> = marks.iter().filter(|(name, _)| name == RETRY_OF).collect();
    assert_eq!(
        marks,
        [&(RETRY_OF.to_owned(), Bytes::from_static(b"telemetry/0"))]
    );
}

#[tokio::test]
async fn what_is_settled_outlives_a_restart_and_makes_room() {
    let disk = tempfile::tempdir_in(".").unwrap();
    let log = open(disk.path());
    for offset in 0..3 {
        keep(&log, offset, record()).await;
    }
    let ids: Vec<_> = list(&log, false).unwrap().iter().map(|k| k.id).collect();
    drop(&log, ids[0], "ada").await.unwrap();
    drop(&log, ids[2], "ada").await.unwrap();
    release(&log).await.unwrap();
    assert_eq!(log.cursor(SETTLED, &quarantine()).unwrap(), Some(ids[1]));
    log.close().await.unwrap();

    let log = open(disk.path());
    let left: Vec<_> = list(&log, false).unwrap().iter().map(|k| k.id).collect();
    assert_eq!(left, [ids[1]]);
    let all = list(&log, true).unwrap();
    assert_eq!(all[0].settled.as_ref().unwrap().how, How::Dropped);
    drop(&log, ids[1], "ada").await.unwrap();
    release(&log).await.unwrap();
    let end = ids[2].plus(1);
    assert_eq!(log.cursor(SETTLED, &quarantine()).unwrap(), Some(end));
    let none = retry(&log, end, "ada").await.unwrap_err();
    assert!(none.to_string().contains("skerry quarantine ls"), "{none}");
}

#[tokio::test]
async fn a_record_as_large_as_one_can_be_is_kept_without_its_payload() {
    let disk = tempfile::tempdir_in(".").unwrap();
    let log = open(disk.path());
    let bytes = APPEND_BYTES_MAX - 100;
    let largest = Record::new(Kind::Mqtt, "plant/a", vec![0; bytes]);
    assert_eq!(keep(&log, 0, largest).await, Keeping::Kept);
    let kept = list(&log, false).unwrap().remove(0);
    assert_eq!((kept.whole, kept.payload_bytes), (false, bytes as u64));
    let told = retry(&log, kept.id, "ada").await.unwrap_err().to_string();
    assert!(told.contains("skerry log cat telemetry --from 0"), "{told}");
    drop(&log, kept.id, "ada").await.unwrap();
}

#[tokio::test]
async fn entries_go_with_their_copies() {
    let disk = tempfile::tempdir_in(".").unwrap();
    let log = open(disk.path());
    // What does not compress.
    let noise: Vec<u8> = std::iter::successors(Some(1_u64), |state| {
        let mixed = state ^ (state << 13);
        let mixed = mixed ^ (mixed >> 7);
        Some(mixed ^ (mixed << 17))
    })
    .map(|state| (state >> 32) as u8)
    .take(100_000)
    .collect();
    let mut quarantine = Quarantine::new(&log);
    for offset in 0..30 {
        let record = Record::new(Kind::Mqtt, "plant/a", noise.clone());
        let kept = quarantine.keep(refused(&stream(), offset), record).await;
        assert_eq!(kept.unwrap(), Keeping::Kept);
    }
    let (held, entries) = (list(&log, true).unwrap(), log.scan(BUCKET, b"").unwrap());
    assert!(held.len() < 20, "{} copies in 1 MiB", held.len());
    // Those that the last one displaced go with the next.
    let segment = 3;
    assert!(
        entries.len() <= held.len() + segment,
        "{} entries for {} copies",
        entries.len(),
        held.len()
    );
}

#[tokio::test]
async fn a_cluster_that_refuses_everything_is_not_believed_for_ever() {
    let disk = tempfile::tempdir_in(".").unwrap();
    let log = open(disk.path());
    let mut quarantine = Quarantine::new(&log);
    quarantine.pruned_at = Some(Offset::ZERO);
    let entries = (0..WAITING_MAX as u64).map(|n| put(key(STREAM, Offset(n)), None));
    log.append(Append {
        stream: stream(),
        records: Vec::new(),
        changes: entries.collect(),
    })
    .await
    .unwrap();
    let next = Offset(WAITING_MAX as u64);
    let name = stream();
    let more = quarantine.keep(refused(&name, next.0), record()).await;
    assert_eq!(more.unwrap(), Keeping::Overrun(WAITING_MAX));
    let settled = Settled {
        how: How::Dropped,
        by: "ada".to_owned(),
        at: WallNanos(0),
    };
    log.append(Append {
        stream: stream(),
        records: Vec::new(),
        changes: vec![put(key(STREAM, Offset(0)), Some(&settled))],
    })
    .await
    .unwrap();
    let more = quarantine.keep(refused(&name, next.0), record()).await;
    assert_eq!(more.unwrap(), Keeping::Kept);
}
