//! What was published, what arrived, and whether the two agree.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

/// One record of the cluster, as the independent consumer saw it.
#[derive(Debug, Clone)]
pub struct Arrived {
    pub topic: String,
    pub partition: i64,
    pub kafka_offset: i64,
    pub key: String,
    pub value: String,
    pub timestamp_ms: i64,
    pub headers: BTreeMap<String, String>,
}

impl Arrived {
    fn parse(line: &Value) -> Result<Self> {
        let text = |name: &str| -> Result<String> {
            let value = line[name]
                .as_str()
                .with_context(|| format!("no {name} in {line}"))?;
            Ok(value.to_owned())
        };
        let number = |name: &str| {
            line[name]
                .as_i64()
                .with_context(|| format!("no {name} in {line}"))
        };
        let headers = line["headers"].as_object().context("no headers")?;
        Ok(Self {
            topic: text("topic")?,
            partition: number("partition")?,
            kafka_offset: number("offset")?,
            key: text("key")?,
            value: text("value")?,
            timestamp_ms: number("timestamp")?,
            headers: headers
                .iter()
                .map(|(name, value)| (name.clone(), value.as_str().unwrap_or("").to_owned()))
                .collect(),
        })
    }

    /// The stream the node says it comes from, and its offset there.
    pub fn origin(&self) -> Result<(String, u64)> {
        let stream = self.header("skerry-stream")?.to_owned();
        Ok((stream, self.header("skerry-offset")?.parse()?))
    }

    pub fn header(&self, name: &str) -> Result<&str> {
        let value = self.headers.get(name);
        value
            .map(String::as_str)
            .with_context(|| format!("no header {name} in {self:?}"))
    }

    #[must_use]
    pub fn kind(&self) -> &str {
        self.headers.get("skerry-kind").map_or("", String::as_str)
    }

    pub fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.value).with_context(|| format!("no JSON: {self:?}"))
    }
}

/// Records of the log itself, as `skerry log cat --json` prints them, in the consumer's form.
pub fn logged(stream: &str, lines: &[Value]) -> Result<Vec<Arrived>> {
    let record = |line: &Value| {
        let payload = &line["payload"];
        let value = payload
            .as_str()
            .map_or_else(|| payload.to_string(), str::to_owned);
        let kind = line["kind"]
            .as_str()
            .with_context(|| format!("no kind in {line}"))?;
        let key = line["source"]
            .as_str()
            .with_context(|| format!("no source in {line}"))?;
        let offset = line["offset"]
            .as_i64()
            .with_context(|| format!("no offset in {line}"))?;
        let headers = [
            ("skerry-stream", stream.to_owned()),
            ("skerry-offset", offset.to_string()),
            ("skerry-kind", kind.to_owned()),
        ];
        Ok(Arrived {
            topic: stream.to_owned(),
            partition: 0,
            kafka_offset: offset,
            key: key.to_owned(),
            value,
            timestamp_ms: 0,
            headers: headers.map(|(name, value)| (name.to_owned(), value)).into(),
        })
    };
    lines.iter().map(record).collect()
}

/// Everything the consumer has written, in the order of each partition.
pub fn arrived(lines: &[Value]) -> Result<Vec<Arrived>> {
    lines.iter().map(Arrived::parse).collect()
}

/// A message as its publisher's journal tells it.
#[derive(Debug, Clone, Default)]
struct Message {
    topic: String,
    sent_on: u64,
    acked_on: Option<u64>,
}

/// One publisher's journal.
#[derive(Debug, Default)]
pub struct Journal {
    name: String,
    messages: BTreeMap<u64, Message>,
    connections: u64,
}

impl Journal {
    pub fn read(name: &str, lines: &[Value]) -> Result<Self> {
        let mut journal = Self {
            name: name.to_owned(),
            ..Self::default()
        };
        for line in lines {
            let number = |field: &str| {
                line[field]
                    .as_u64()
                    .with_context(|| format!("no {field} in {line}"))
            };
            match line["event"].as_str() {
                Some("connected") => journal.connections = number("connection")?,
                Some("sent") => {
                    let topic = line["topic"].as_str().context("no topic")?.to_owned();
                    let sent_on = number("connection")?;
                    let message = Message {
                        topic,
                        sent_on,
                        acked_on: None,
                    };
                    journal.messages.insert(number("id")?, message);
                }
                Some("acked") => {
                    let message = journal.messages.get_mut(&number("id")?);
                    message.context("acked but never sent")?.acked_on = Some(number("connection")?);
                }
                Some("done") => {}
                _ => bail!("{name}: unexpected in the journal: {line}"),
            }
        }
        Ok(journal)
    }

    #[must_use]
    pub fn sent(&self) -> usize {
        self.messages.len()
    }

    #[must_use]
    pub fn acked(&self) -> usize {
        self.messages
            .values()
            .filter(|message| message.acked_on.is_some())
            .count()
    }

    #[must_use]
    pub fn connections(&self) -> u64 {
        self.connections
    }

    fn last_connection(&self, message: &Message) -> u64 {
        message.acked_on.unwrap_or(self.connections)
    }
}

/// How often a message may stand in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Copies {
    /// QoS 2, or a publisher that was never interrupted.
    One,
    /// QoS 1: once more for every connection it was sent again on.
    OnePerConnection,
}

/// Every acknowledged message arrived, under its topic as key, in the order it was sent, and no
/// more often than `copies` allows; nothing arrived that was never sent.
pub fn messages(journal: &Journal, arrived: &[Arrived], copies: Copies) -> Result<()> {
    let name = &journal.name;
    let mut seen: BTreeMap<u64, u64> = BTreeMap::new();
    let mut newest: BTreeMap<&str, u64> = BTreeMap::new();
    for record in arrived.iter().filter(|record| record.kind() == "mqtt") {
        let Ok(payload) = record.json() else { continue };
        if payload["by"] != name.as_str() {
            continue;
        }
        let id = payload["id"].as_u64().context("a message without an id")?;
        let message = journal.messages.get(&id);
        let message = message.with_context(|| format!("{name} never sent {id}"))?;
        ensure!(
            record.key == message.topic,
            "{name} {id}: key {:?}",
            record.key
        );
        let times = seen.entry(id).or_default();
        *times += 1;
        if *times == 1 {
            let before = newest.insert(&message.topic, id);
            let in_order = before.is_none_or(|before| before < id);
            ensure!(
                in_order,
                "{name} {}: {id} came after {before:?}",
                message.topic
            );
        }
    }
    for (id, message) in &journal.messages {
        let times = seen.get(id).copied().unwrap_or(0);
        ensure!(
            times > 0 || message.acked_on.is_none(),
            "{name}: {id} was acknowledged and lost"
        );
        let allowed = match copies {
            Copies::One => 1,
            Copies::OnePerConnection => {
                1 + journal
                    .last_connection(message)
                    .saturating_sub(message.sent_on)
            }
        };
        ensure!(
            times <= allowed,
            "{name}: {id} is there {times} times, {allowed} allowed"
        );
    }
    Ok(())
}

/// What became of a stream's records.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Account {
    /// Offsets that arrived as records.
    pub delivered: BTreeSet<u64>,
    /// Offsets that did not, and that a gap record names.
    pub in_gaps: BTreeSet<u64>,
}

impl Account {
    /// How many offsets are accounted for.
    #[must_use]
    pub fn len(&self) -> u64 {
        (self.delivered.len() + self.in_gaps.len()) as u64
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Accounts for the offsets of each stream, without judging.
pub fn accounts(arrived: &[Arrived]) -> Result<BTreeMap<String, Account>> {
    let mut accounts: BTreeMap<String, Account> = BTreeMap::new();
    let mut gaps = Vec::new();
    for record in arrived {
        let (stream, offset) = record.origin()?;
        match missing_offsets(record)? {
            // It stands in the place of what it tells of: of records of its stream, or of the one
            // that was refused and had its key.
            Some((subject, first, next))
                if first == offset && (subject == stream || subject == record.key) =>
            {
                gaps.push((stream, first, next));
            }
            gap => {
                accounts.entry(stream).or_default().delivered.insert(offset);
                gaps.extend(gap);
            }
        }
    }
    for (stream, first, next) in gaps {
        let account = accounts.entry(stream).or_default();
        let missing = (first..next).filter(|offset| !account.delivered.contains(offset));
        account.in_gaps.extend(missing.collect::<Vec<_>>());
    }
    Ok(accounts)
}

/// The stream and its offsets, first and one past the last, that a gap record speaks of.
fn missing_offsets(record: &Arrived) -> Result<Option<(String, u64, u64)>> {
    if record.kind() != "gap" {
        return Ok(None);
    }
    let gap = record.json()?;
    let subject = gap["subject"]
        .as_str()
        .context("a gap without a subject")?
        .to_owned();
    let range = gap["offsets"][0].as_u64().zip(gap["offsets"][1].as_u64());
    Ok(range.map(|(first, next)| (subject, first, next)))
}

/// Each offset of each stream from 0 on arrived once or stands in a gap, in order per key.
pub fn offsets(arrived: &[Arrived]) -> Result<BTreeMap<String, Account>> {
    let mut seen = BTreeSet::new();
    let mut newest: BTreeMap<(String, String, String), u64> = BTreeMap::new();
    for record in arrived {
        let (stream, offset) = record.origin()?;
        let fresh = seen.insert((stream.clone(), offset));
        ensure!(fresh, "{stream} {offset} is in the cluster twice");
        let key = (record.topic.clone(), stream.clone(), record.key.clone());
        let before = newest.insert(key, offset);
        let in_order = before.is_none_or(|before| before < offset);
        ensure!(
            in_order,
            "{stream}, key {:?}: {offset} came after {before:?}",
            record.key
        );
    }
    let accounts = accounts(arrived)?;
    for (stream, account) in &accounts {
        let known =
            |offset: &u64| account.delivered.contains(offset) || account.in_gaps.contains(offset);
        let hole = (0..account.len()).find(|offset| !known(offset));
        ensure!(
            hole.is_none(),
            "{stream}: {hole:?} is missing in the cluster"
        );
    }
    Ok(accounts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn record(id: u64, offset: u64, topic: &str) -> Value {
        json!({
            "topic": "skerry.telemetry", "partition": 0, "offset": offset, "key": topic,
            "value": json!({"by": "p", "id": id}).to_string(), "timestamp": 0,
            "headers": {
                "skerry-stream": "telemetry", "skerry-offset": offset.to_string(),
                "skerry-kind": "mqtt",
            },
        })
    }

    fn journal() -> Journal {
        let sent = |id: u64, connection: u64| json!({"event": "sent", "id": id, "topic": "t", "connection": connection});
        let acked = |id: u64, connection: u64| json!({"event": "acked", "id": id, "connection": connection});
        let lines = [
            json!({"event": "connected", "connection": 1}),
            sent(0, 1),
            sent(1, 1),
            acked(0, 1),
            json!({"event": "connected", "connection": 2}),
            acked(1, 2),
            sent(2, 2),
        ];
        Journal::read("p", &lines).unwrap()
    }

    fn check(records: &[Value], copies: Copies) -> Result<()> {
        let arrived = arrived(records).unwrap();
        offsets(&arrived)?;
        messages(&journal(), &arrived, copies)
    }

    #[test]
    fn accepts_every_acknowledged_message_once_and_in_order() {
        let records = [record(0, 0, "t"), record(1, 1, "t"), record(2, 2, "t")];
        check(&records, Copies::One).unwrap();
        // The last was never acknowledged.
        check(&records[..2], Copies::One).unwrap();
    }

    #[test]
    fn finds_loss_duplicates_disorder_and_strangers() {
        let complaint = |records: &[Value], copies| check(records, copies).unwrap_err().to_string();
        let lost = complaint(&[record(1, 0, "t")], Copies::One);
        assert_eq!(lost, "p: 0 was acknowledged and lost");
        let twice = [record(0, 0, "t"), record(1, 1, "t"), record(1, 2, "t")];
        assert!(complaint(&twice, Copies::One).contains("1 is there 2 times"));
        // 1 was sent on the first connection and acknowledged on the second: resent, so allowed.
        check(&twice, Copies::OnePerConnection).unwrap();
        let not_resent = [record(0, 0, "t"), record(0, 1, "t"), record(1, 2, "t")];
        assert!(complaint(&not_resent, Copies::OnePerConnection).contains("0 is there 2 times"));
        let swapped = [record(1, 0, "t"), record(0, 1, "t")];
        assert!(complaint(&swapped, Copies::One).contains("0 came after Some(1)"));
        let stranger = [record(0, 0, "t"), record(7, 1, "t")];
        assert!(complaint(&stranger, Copies::One).contains("never sent 7"));
        let elsewhere = [record(0, 0, "u"), record(1, 1, "t")];
        assert!(complaint(&elsewhere, Copies::One).contains("key \"u\""));
    }

    #[test]
    fn finds_holes_repeats_and_disorder_of_offsets() {
        let complaint = |records: &[Value]| check(records, Copies::One).unwrap_err().to_string();
        let hole = complaint(&[record(0, 0, "t"), record(1, 2, "t")]);
        assert!(hole.contains("Some(1) is missing"), "{hole}");
        let again = complaint(&[record(0, 0, "t"), record(1, 0, "t")]);
        assert!(again.contains("twice"), "{again}");
        let late = complaint(&[record(0, 1, "t"), record(1, 0, "t")]);
        assert!(late.contains("came after"), "{late}");
    }

    #[test]
    fn a_gap_accounts_for_what_it_names() {
        let mut gap = record(0, 1, "telemetry");
        gap["headers"]["skerry-kind"] = json!("gap");
        gap["value"] = json!(json!({"subject": "telemetry", "offsets": [1, 4]}).to_string());
        let arrived = arrived(&[record(0, 0, "t"), gap, record(1, 4, "t")]).unwrap();
        let accounts = offsets(&arrived).unwrap();
        assert_eq!(accounts["telemetry"].delivered, BTreeSet::from([0, 4]));
        assert_eq!(accounts["telemetry"].in_gaps, BTreeSet::from([1, 2, 3]));
    }
}
