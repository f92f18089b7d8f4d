//! The judge between what an OPC-UA server says it has set its counters to and what the node has in
//! its log: each value is there, or a gap record covers its time; and none is there twice.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

/// Attribute of a record: a node's value when the subscription to it was made, which may be the
/// same change once more.
const INITIAL: &str = "opcua-initial";
/// Some servers' clocks tick in milliseconds.
const RESOLUTION_NS: i64 = 1_000_000;
/// Named in a complaint.
const SHOWN_MAX: usize = 5;

/// What became of the values that a server has set.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Set while the node was to collect them.
    pub owed: usize,
    /// Of these, covered by a gap record instead of being in the log.
    pub in_gaps: usize,
    /// Gap records there are, of the endpoint and of its nodes.
    pub gaps: usize,
}

/// A value's way into the log.
#[derive(Debug, Default)]
struct Arrivals {
    changes: usize,
    initial: usize,
    source_time: i64,
}

/// A node's values in the log.
#[derive(Debug, Default)]
struct Logged {
    values: BTreeMap<i64, Arrivals>,
    /// Source time of the first of them, and of the last before a gap record that lacks its start.
    first: Option<i64>,
    last: Option<i64>,
}

/// From and to, in nanoseconds since the Unix epoch.
type Span = (i64, i64);

/// Judges one endpoint. `produced` is what its servers have written, `logged` are the records of its
/// stream in their order; a node is named `ENDPOINT/COUNTER`. Owed is everything from the first
/// record of a node on until the time `until`.
///
/// # Errors
/// With the first values that are neither in the log nor in a gap, or twice in it.
pub fn judge(endpoint: &str, produced: &[Value], logged: &[Value], until: i64) -> Result<Verdict> {
    let mut nodes: BTreeMap<&str, Logged> = BTreeMap::new();
    let mut endpoint_gaps: Vec<Span> = Vec::new();
    let mut node_gaps: BTreeMap<&str, Vec<Span>> = BTreeMap::new();
    let mut verdict = Verdict::default();
    for record in logged {
        match record["kind"].as_str() {
            Some("gap") => {
                let gap = &record["payload"];
                let subject = gap["subject"].as_str().context("a gap of nothing")?;
                let to = gap["to"].as_i64().context("a gap without an end")?;
                if subject == endpoint {
                    let from = gap["from"].as_i64().context("a gap without a start")?;
                    endpoint_gaps.push((from, to));
                } else if belongs(subject, endpoint) {
                    let last = nodes.get(subject).and_then(|node| node.last);
                    let from = gap["from"].as_i64().or(last).unwrap_or(i64::MIN);
                    node_gaps.entry(subject).or_default().push((from, to));
                } else {
                    continue;
                }
                verdict.gaps += 1;
            }
            Some("opcua") => {
                let source = record["source"].as_str().context("no source")?;
                if belongs(source, endpoint) {
                    nodes.entry(source).or_default().take(record)?;
                }
            }
            _ => {}
        }
    }
    let (mut lost, mut twice) = (Vec::new(), Vec::new());
    for set in produced.iter().filter(|line| line["event"] == "set") {
        let counter = set["name"].as_str().context("no name")?;
        let value = set["value"].as_i64().context("no value")?;
        let time = set["time"].as_i64().context("no time")?;
        let name = format!("{endpoint}/{counter}");
        let node = nodes.get(name.as_str());
        let node = node.with_context(|| format!("{name} has nothing in the log"))?;
        let since = node.first.context("no value of it has a time")?;
        if time < since || time > until {
            continue;
        }
        verdict.owed += 1;
        match node.values.get(&value) {
            Some(arrivals) => {
                let apart = (arrivals.source_time - time).abs();
                ensure!(
                    apart < RESOLUTION_NS,
                    "{name} {value}: its time is off by {apart} ns"
                );
                if arrivals.changes > 1 {
                    twice.push(format!("{name} {value}: {arrivals:?}"));
                }
            }
            None => {
                let of_node = node_gaps.get(name.as_str()).into_iter().flatten();
                let mut spans = endpoint_gaps.iter().chain(of_node);
                match spans.any(|span| covers(*span, time)) {
                    true => verdict.in_gaps += 1,
                    false => lost.push(format!("{name} {value} at {time}")),
                }
            }
        }
    }
    ensure!(verdict.owed > 0, "{endpoint}: its servers have set nothing");
    for (what, which) in [
        ("in the log nor in a gap", lost),
        ("not twice in the log", twice),
    ] {
        if !which.is_empty() {
            let (count, shown) = (which.len(), &which[..which.len().min(SHOWN_MAX)]);
            bail!(
                "{endpoint}: {count} of {} values are neither {what}: {shown:?}; \
                 gaps of the endpoint {endpoint_gaps:?}, of nodes {node_gaps:?}",
                verdict.owed
            );
        }
    }
    Ok(verdict)
}

impl Logged {
    fn take(&mut self, record: &Value) -> Result<()> {
        // Without a value it tells of an outage or of a refusal.
        let Some(value) = record["payload"]["value"].as_i64() else {
            return Ok(());
        };
        let time = record["source_time_ns"]
            .as_i64()
            .context("no source time")?;
        let attributes = record["attributes"].as_array().into_iter().flatten();
        let initial = attributes.into_iter().any(|pair| pair[0] == INITIAL);
        let arrivals = self.values.entry(value).or_default();
        arrivals.source_time = time;
        match initial {
            true => arrivals.initial += 1,
            false => arrivals.changes += 1,
        }
        self.first = self.first.or(Some(time));
        self.last = Some(time);
        Ok(())
    }
}

fn belongs(source: &str, endpoint: &str) -> bool {
    source
        .strip_prefix(endpoint)
        .is_some_and(|rest| rest.starts_with('/'))
}

fn covers((from, to): Span, time: i64) -> bool {
    from.saturating_sub(RESOLUTION_NS) <= time && time <= to.saturating_add(RESOLUTION_NS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const MS: i64 = 1_000_000;

    fn set(value: i64) -> Value {
        json!({"event": "set", "name": "Counter0", "value": value, "time": value * 100 * MS})
    }

    fn record(value: i64) -> Value {
        json!({"kind": "opcua", "source": "plc/Counter0", "payload": {"value": value},
               "source_time_ns": value * 100 * MS, "attributes": []})
    }

    fn initial(value: i64) -> Value {
        let mut record = record(value);
        record["attributes"] = json!([[INITIAL, "true"]]);
        record
    }

    fn gap(subject: &str, from: impl Into<Value>, to: i64) -> Value {
        json!({"kind": "gap", "payload": {"subject": subject, "from": from.into(), "to": to}})
    }

    fn judged(logged: &[Value]) -> Result<Verdict> {
        let produced: Vec<Value> = (0..8).map(set).collect();
        judge("plc", &produced, logged, 6 * 100 * MS)
    }

    fn complaint(logged: &[Value]) -> String {
        judged(logged).unwrap_err().to_string()
    }

    #[test]
    fn every_value_from_the_first_record_to_the_end_is_owed_once() {
        let whole: Vec<Value> = (2..7).map(record).collect();
        let verdict = judged(&whole).unwrap();
        assert_eq!((verdict.owed, verdict.in_gaps, verdict.gaps), (5, 0, 0));
        let without: Vec<Value> = [2, 3, 5, 6].map(record).into();
        assert!(complaint(&without).contains("plc/Counter0 4"));
        let doubled: Vec<Value> = [2, 3, 4, 4, 5, 6].map(record).into();
        assert!(complaint(&doubled).contains("twice"));
    }

    #[test]
    fn a_gap_stands_for_what_it_covers_and_for_nothing_else() {
        let with =
            |gap: Value| -> Vec<Value> { vec![record(2), record(3), gap, record(5), record(6)] };
        assert_eq!(
            judged(&with(gap("plc", 350 * MS, 450 * MS)))
                .unwrap()
                .in_gaps,
            1
        );
        assert_eq!(
            judged(&with(gap("plc/Counter0", Value::Null, 450 * MS)))
                .unwrap()
                .in_gaps,
            1
        );
        complaint(&with(gap("plc", 410 * MS, 450 * MS)));
        complaint(&with(gap("plc", 350 * MS, 390 * MS)));
        complaint(&with(gap("plc/Counter1", 350 * MS, 450 * MS)));
        complaint(&with(gap("other", 350 * MS, 450 * MS)));
    }

    #[test]
    fn a_first_value_of_a_subscription_may_repeat_a_change() {
        let logged = [2, 3, 4].map(record).into_iter();
        let again = [initial(4), record(5), record(6)];
        let logged: Vec<Value> = logged.chain(again).collect();
        assert_eq!(judged(&logged).unwrap().owed, 5);
    }

    #[test]
    fn a_value_keeps_its_time() {
        let mut logged: Vec<Value> = (2..7).map(record).collect();
        logged[2]["source_time_ns"] = json!(0);
        assert!(complaint(&logged).contains("its time is off"));
    }
}
