//! Records on their way in, encoded one by one as they come.
//!
//! A source that sends thousands of values at once would make a [`Record`] of each, with a string,
//! a buffer and a list of its own, only to have it turned into bytes and thrown away: that costs
//! more than everything else until it is on disk.

use crate::frame::{Times, widen};
use crate::{Kind, Record, WallNanos, view};

/// Any number of records, as a frame will hold them. What they took is kept for the next ones.
#[derive(Debug, Default)]
pub struct Records {
    pub(crate) bytes: Vec<u8>,
    pub(crate) count: u32,
    pub(crate) times: Times,
    pub(crate) has_gaps: bool,
}

/// A [`Record`] whose parts are still where they came from, without its attributes.
#[derive(Debug, Clone, Copy)]
pub struct Fresh<'a> {
    pub kind: Kind,
    pub source: &'a str,
    pub payload: &'a [u8],
    pub source_time: Option<WallNanos>,
    pub server_time: Option<WallNanos>,
    pub ingest_time: WallNanos,
    pub status: u32,
}

impl Records {
    #[must_use]
    pub fn with_capacity(bytes: usize) -> Self {
        Self {
            bytes: Vec::with_capacity(bytes),
            ..Self::default()
        }
    }

    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// What they will take in a frame, before compression.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes.len()
    }

    pub fn clear(&mut self) {
        self.bytes.clear();
        (self.count, self.times, self.has_gaps) = (0, None, false);
    }

    /// Adds a record with these attributes; see [`Record::attributes`].
    pub fn add<'a>(
        &mut self,
        fresh: Fresh<'_>,
        attributes: impl Iterator<Item = (&'a str, &'a [u8])> + Clone,
    ) {
        view::append(&fresh, attributes, &mut self.bytes);
        self.count += 1;
        self.has_gaps |= fresh.kind == Kind::Gap;
        let time = fresh.event_time();
        self.times = widen(self.times, time, time);
    }

    pub fn push(&mut self, record: &Record) {
        self.add(Fresh::from(record), record.attribute_pairs());
    }
}

impl<'a> From<&'a Record> for Fresh<'a> {
    fn from(record: &'a Record) -> Self {
        Self {
            kind: record.kind,
            source: &record.source,
            payload: &record.payload,
            source_time: record.source_time,
            server_time: record.server_time,
            ingest_time: record.ingest_time,
            status: record.status,
        }
    }
}

impl Fresh<'_> {
    /// See [`Record::event_time`].
    fn event_time(&self) -> WallNanos {
        self.source_time
            .or(self.server_time)
            .unwrap_or(self.ingest_time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Encoded;

    #[test]
    fn records_encode_as_they_do_in_a_list() {
        let mut gap = Record::new(Kind::Gap, "plant", "{}");
        gap.attributes = vec![("unit".into(), "bar".into()), ("late".into(), "".into())];
        let mut value = Record::new(Kind::Opcua, "plant/pump", r#"{"value":1}"#);
        (value.source_time, value.status) = (Some(WallNanos(-7)), 0x8000_0000);
        let list = [value, gap];

        let mut records = Records::default();
        records.push(&list[1]);
        records.clear();
        assert!(records.is_empty() && Encoded::of(&records, Vec::new()).bytes() == 0);
        list.iter().for_each(|record| records.push(record));
        assert_eq!(
            format!("{:?}", Encoded::of(&records, Vec::new())),
            format!("{:?}", Encoded::new(&list, Vec::new()))
        );
    }
}
