//! The records of topics as they were before they were packed, for people and their scripts.
//!
//! Topics may hold packed records and others; those pass as they are. A damaged one is told and
//! passed over: whoever reads a topic by hand wants to see the rest of it. Into another topic they
//! go by [`copy`], which passes over nothing by itself.

mod copying;

pub use copying::{Copying, Error as CopyError, Told, copy};

use super::config::Config;
use super::wire::{Incoming, Positions, Wire};
use crate::Boxed;
use bytes::Bytes;
use std::io;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// One record, and where the cluster has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unpacked {
    pub topic: Arc<str>,
    pub partition: i32,
    /// The cluster's offset: that of the packed record it came in, if it did.
    pub kafka_offset: i64,
    /// The log's offset, if it was packed; others may have it in a header.
    pub offset: Option<u64>,
    pub timestamp_ms: i64,
    pub key: Option<Bytes>,
    pub value: Option<Bytes>,
    /// Names that are no UTF-8 are shown as well as that goes.
    pub headers: Vec<(String, Option<Bytes>)>,
}

/// What was read.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Account {
    /// Records of the cluster that were packed.
    pub packed: u64,
    /// Records that came out of them.
    pub unpacked: u64,
    /// Records that were not packed.
    pub plain: u64,
    /// Packed records that cannot be unpacked.
    pub damaged: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The cluster does not answer as it should.
    #[error("{0}")]
    Cluster(String),
    #[error("cannot write: {0}")]
    Output(#[from] io::Error),
}

/// A packed record that cannot be unpacked, and why.
#[derive(Debug, thiserror::Error)]
#[error("{topic}, partition {partition}, offset {offset}: {source}")]
pub struct Damaged {
    topic: Arc<str>,
    partition: i32,
    offset: i64,
    source: skerry_pack::Error,
}

/// Hands over every committed record of `topics`, from the first to what was the last when this
/// began, or with `follow` until `stop`. Order is kept within a partition.
///
/// # Errors
/// When the cluster or one of the topics cannot be read, or what takes the records fails.
pub fn unpack<'a>(
    config: Config,
    topics: &'a [String],
    follow: bool,
    stop: CancellationToken,
    each: &'a mut Each<'_>,
) -> Boxed<'a, Result<Account, Error>> {
    Box::pin(hand_over(config, topics, follow, stop, each))
}

/// What takes the records.
pub type Each<'a> = dyn FnMut(Result<Unpacked, Damaged>) -> io::Result<()> + Send + 'a;

async fn hand_over(
    config: Config,
    topics: &[String],
    follow: bool,
    stop: CancellationToken,
    each: &mut Each<'_>,
) -> Result<Account, Error> {
    let cluster = |fault: super::fault::Fault| Error::Cluster(fault.to_string());
    let wire = Wire::connect(&Arc::new(config), None)
        .await
        .map_err(cluster)?;
    let mut reading = wire
        .read(topics, &Positions::new())
        .await
        .map_err(cluster)?;
    let mut account = Account::default();
    let outcome = loop {
        let polled = tokio::select! {
            polled = reading.poll() => polled,
            () = stop.cancelled() => break Ok(()),
        };
        let records = match polled {
            Ok(records) => records,
            Err(fault) => break Err(cluster(fault)),
        };
        let written = records
            .into_iter()
            .try_for_each(|record| account.take(record, each));
        if let Err(error) = written {
            break Err(error.into());
        }
        match reading.is_at_end().await {
            Ok(true) if !follow => break Ok(()),
            Err(fault) if !follow => break Err(cluster(fault)),
            _ => {}
        }
    };
    reading.close().await;
    outcome.map(|()| account)
}

impl Account {
    fn take(&mut self, record: Incoming, each: &mut Each<'_>) -> io::Result<()> {
        match open(&record) {
            Ok(None) => {
                self.plain += 1;
                each(Ok(plain(record)))
            }
            Ok(Some(block)) => {
                self.packed += 1;
                for row in block.rows() {
                    self.unpacked += 1;
                    each(Ok(of_row(&record, row)))?;
                }
                Ok(())
            }
            Err(damaged) => {
                self.damaged += 1;
                each(Err(damaged))
            }
        }
    }
}

/// What is packed in the record; nothing where it is none of ours.
fn open(record: &Incoming) -> Result<Option<skerry_pack::Block>, Damaged> {
    let packed = record.value.as_deref();
    let Some(packed) = packed.filter(|value| skerry_pack::is_packed(value)) else {
        return Ok(None);
    };
    let damaged = |source| Damaged {
        topic: Arc::clone(&record.topic),
        partition: record.partition,
        offset: record.offset,
        source,
    };
    skerry_pack::unpack(packed).map(Some).map_err(damaged)
}

fn plain(record: Incoming) -> Unpacked {
    Unpacked {
        topic: record.topic,
        partition: record.partition,
        kafka_offset: record.offset,
        offset: None,
        timestamp_ms: record.timestamp_ms,
        key: record.key,
        value: record.value,
        headers: record.headers,
    }
}

fn of_row(record: &Incoming, row: skerry_pack::Row<'_, skerry_pack::Headers<'_>>) -> Unpacked {
    let headers = row.headers.map(|header| {
        let name = String::from_utf8_lossy(header.name).into_owned();
        (name, header.value.map(Bytes::copy_from_slice))
    });
    Unpacked {
        topic: Arc::clone(&record.topic),
        partition: record.partition,
        kafka_offset: record.offset,
        offset: Some(row.offset),
        timestamp_ms: row.timestamp_ms,
        key: Some(Bytes::copy_from_slice(row.key)),
        value: Some(Bytes::copy_from_slice(row.value)),
        headers: headers.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use skerry_pack::{Header, Options, Packer, Row};

    fn incoming(value: Vec<u8>) -> Incoming {
        Incoming {
            topic: "skerry.telemetry".into(),
            partition: 2,
            offset: 9,
            timestamp_ms: 1,
            key: None,
            value: Some(value.into()),
            headers: vec![("a".to_owned(), None)],
        }
    }

    fn taken(record: Incoming) -> (Account, Vec<Result<Unpacked, String>>) {
        let (mut account, mut taken) = (Account::default(), Vec::new());
        let mut each = |record: Result<Unpacked, Damaged>| {
            taken.push(record.map_err(|damaged| damaged.to_string()));
            Ok(())
        };
        account.take(record, &mut each).unwrap();
        (account, taken)
    }

    fn block() -> Vec<u8> {
        let mut packer = Packer::new(Options::default());
        for offset in [40, 42] {
            let headers = [Header {
                name: b"unit",
                value: Some(b"mm/s"),
            }];
            let row = Row {
                offset,
                timestamp_ms: 1_000,
                key: b"pump1",
                value: b"{\"value\":1}",
                headers: headers.into_iter(),
            };
            packer.push(row).unwrap();
        }
        packer.finish().unwrap().to_vec()
    }

    #[test]
    fn packed_records_come_apart_and_others_pass() {
        let (account, records) = taken(incoming(block()));
        assert_eq!((account.packed, account.unpacked, account.plain), (1, 2, 0));
        let last = records[1].as_ref().unwrap();
        assert_eq!((last.offset, last.kafka_offset), (Some(42), 9));
        assert_eq!(last.key.as_deref(), Some(&b"pump1"[..]));
        assert_eq!(last.value.as_deref(), Some(&b"{\"value\":1}"[..]));
        let unit = ("unit".to_owned(), Some(Bytes::from_static(b"mm/s")));
        assert_eq!(last.headers, [unit]);

        let (account, records) = taken(incoming(b"{}".to_vec()));
        assert_eq!((account.packed, account.plain), (0, 1));
        let record = records[0].as_ref().unwrap();
        assert_eq!((record.offset, record.kafka_offset), (None, 9));
        assert_eq!(record.headers, [("a".to_owned(), None)]);
    }

    #[test]
    fn a_damaged_one_is_told_with_its_place() {
        let mut block = block();
        let middle = block.len() / 2;
        block[middle] ^= 1;
        let (account, records) = taken(incoming(block));
        assert_eq!((account.damaged, account.packed), (1, 0));
        let told = records[0].as_ref().unwrap_err();
        let place = "skerry.telemetry, partition 2, offset 9: the block is damaged";
        assert!(told.starts_with(place), "{told}");
    }
}
