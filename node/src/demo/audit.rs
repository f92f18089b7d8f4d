//! The audit at the end of the demo: every record that entered, held against every record that
//! arrived. Pure: it is given both sides and says what it finds.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::ops::Range;

/// A record as one of the two sides has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub stream: String,
    pub offset: u64,
    /// The record's source; order is promised per source.
    pub source: String,
    pub payload: Vec<u8>,
}

/// A reading that the simulated plant published over MQTT and the broker acknowledged. Each
/// payload carries its `sequence` on its topic.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Acknowledged {
    pub topic: String,
    pub sequence: u64,
    /// QoS 2: must be in the log once, not at least once.
    pub exactly_once: bool,
}

/// What the audit is told.
#[derive(Debug, Default)]
pub struct Evidence {
    /// Every record in the node's log.
    pub logged: Vec<Entry>,
    /// Offsets per stream that a gap record in the log accounts for.
    pub gaps: Vec<(String, Range<u64>)>,
    /// Every record in the cluster, in the order of its partition.
    pub delivered: Vec<Entry>,
    pub acknowledged: Vec<Acknowledged>,
}

/// What the audit found.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Verdict {
    pub entered: u64,
    pub delivered: u64,
    pub gaps: u64,
    pub duplicates: u64,
    /// In neither the cluster nor a gap, first few by name.
    pub missing: Vec<String>,
    /// In the cluster with other bytes or another source than in the log, or not in the log.
    pub altered: Vec<String>,
    /// Arrived after a later record of the same source.
    pub disordered: Vec<String>,
    /// Acknowledged to a publisher, and not in the log (or, QoS 2, there more than once).
    pub broken_acknowledgements: Vec<String>,
}

impl Verdict {
    /// Whether every promise held.
    pub fn holds(&self) -> bool {
        self.entered == self.delivered + self.gaps
            && self.duplicates == 0
            && self.missing.is_empty()
            && self.altered.is_empty()
            && self.disordered.is_empty()
            && self.broken_acknowledgements.is_empty()
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "in {} = delivered {} + gaps {}, duplicates {}",
            self.entered, self.delivered, self.gaps, self.duplicates
        )
    }
}

/// Holds what arrived against what entered.
pub fn audit(evidence: &Evidence) -> Verdict {
    let logged: HashMap<(&str, u64), &Entry> = evidence
        .logged
        .iter()
        .map(|entry| ((entry.stream.as_str(), entry.offset), entry))
        .collect();
    let mut verdict = Verdict::default();
    let arrived = judge_arrivals(evidence, &logged, &mut verdict);
    judge_coverage(evidence, &arrived, &mut verdict);
    judge_acknowledgements(evidence, &mut verdict);
    verdict
}

/// Each record that arrived: known, unaltered, once, and after what came before it.
fn judge_arrivals<'e>(
    evidence: &'e Evidence,
    logged: &HashMap<(&str, u64), &Entry>,
    verdict: &mut Verdict,
) -> BTreeSet<(&'e str, u64)> {
    let mut arrived = BTreeSet::new();
    let mut newest: HashMap<(&str, &str), u64> = HashMap::new();
    for entry in &evidence.delivered {
        let place = (entry.stream.as_str(), entry.offset);
        if !arrived.insert(place) {
            verdict.duplicates += 1;
            continue;
        }
        if logged.get(&place).is_none_or(|original| *original != entry) {
            verdict.altered.push(named(place));
        }
        let newest = newest
            .entry((entry.stream.as_str(), entry.source.as_str()))
            .or_insert(entry.offset);
        if entry.offset < *newest {
            verdict.disordered.push(named(place));
        }
        *newest = entry.offset.max(*newest);
    }
    verdict.delivered = arrived.len() as u64;
    arrived
}

/// Each offset that was ever given out: arrived, or covered by a gap record.
fn judge_coverage(evidence: &Evidence, arrived: &BTreeSet<(&str, u64)>, verdict: &mut Verdict) {
    let mut heads: BTreeMap<&str, u64> = BTreeMap::new();
    for entry in &evidence.logged {
        let head = heads.entry(&entry.stream).or_default();
        *head = (*head).max(entry.offset + 1);
    }
    for (stream, range) in &evidence.gaps {
        let head = heads.entry(stream).or_default();
        *head = (*head).max(range.end);
    }
    for (stream, head) in heads {
        verdict.entered += head;
        for offset in 0..head {
            if arrived.contains(&(stream, offset)) {
                continue;
            }
            let covered = evidence
                .gaps
                .iter()
                .any(|(of, range)| of == stream && range.contains(&offset));
            match covered {
                true => verdict.gaps += 1,
                false => verdict.missing.push(named((stream, offset))),
            }
        }
    }
}

/// Each acknowledgement: its reading is in the log, and with QoS 2 only once.
fn judge_acknowledgements(evidence: &Evidence, verdict: &mut Verdict) {
    let mut copies: HashMap<(&str, u64), u64> = HashMap::new();
    for entry in &evidence.logged {
        if let Some(sequence) = sequence_of(&entry.payload) {
            *copies.entry((&entry.source, sequence)).or_default() += 1;
        }
    }
    for reading in &evidence.acknowledged {
        let found = copies.get(&(reading.topic.as_str(), reading.sequence));
        let kept = match found.copied().unwrap_or(0) {
            0 => false,
            1 => true,
            _ => !reading.exactly_once,
        };
        if !kept {
            let Acknowledged {
                topic, sequence, ..
            } = reading;
            verdict
                .broken_acknowledgements
                .push(format!("{topic} #{sequence}"));
        }
    }
}

fn sequence_of(payload: &[u8]) -> Option<u64> {
    let value: serde_json::Value = serde_json::from_slice(payload).ok()?;
    value.get("sequence")?.as_u64()
}

fn named((stream, offset): (&str, u64)) -> String {
    format!("{stream}@{offset}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(offset: u64, source: &str) -> Entry {
        Entry {
            stream: "s".to_owned(),
            offset,
            source: source.to_owned(),
            payload: format!(r#"{{"sequence":{offset}}}"#).into_bytes(),
        }
    }

    fn good() -> Evidence {
        let logged = vec![entry(0, "a"), entry(1, "b"), entry(2, "a")];
        Evidence {
            delivered: logged.clone(),
            acknowledged: vec![Acknowledged {
                topic: "a".to_owned(),
                sequence: 0,
                exactly_once: true,
            }],
            logged,
            gaps: Vec::new(),
        }
    }

    #[test]
    fn a_whole_delivery_holds_in_any_order_across_sources() {
        let mut evidence = good();
        evidence.delivered.swap(0, 1);
        let verdict = audit(&evidence);
        assert!(verdict.holds(), "{verdict:?}");
        assert_eq!(
            verdict.to_string(),
            "in 3 = delivered 3 + gaps 0, duplicates 0"
        );
    }

    #[test]
    fn a_lost_record_breaks_it_and_a_gap_record_mends_it() {
        let mut evidence = good();
        evidence.delivered.remove(1);
        assert_eq!(audit(&evidence).missing, ["s@1"]);
        assert!(!audit(&evidence).holds());
        evidence.gaps.push(("s".to_owned(), 1..2));
        assert!(audit(&evidence).holds());
        assert_eq!(audit(&evidence).gaps, 1);
    }

    #[test]
    fn a_record_twice_is_a_duplicate() {
        let mut evidence = good();
        evidence.delivered.push(entry(2, "a"));
        assert_eq!(audit(&evidence).duplicates, 1);
        assert!(!audit(&evidence).holds());
    }

    #[test]
    fn order_within_a_source_counts() {
        let mut evidence = good();
        evidence.delivered.swap(0, 2);
        assert_eq!(audit(&evidence).disordered, ["s@0"]);
        assert!(!audit(&evidence).holds());
    }

    #[test]
    fn other_bytes_and_unknown_records_are_alterations() {
        let mut evidence = good();
        evidence.delivered[0].payload.push(b' ');
        assert_eq!(audit(&evidence).altered, ["s@0"]);
        let mut evidence = good();
        evidence.delivered.push(entry(9, "a"));
        assert_eq!(audit(&evidence).altered, ["s@9"]);
        assert!(!audit(&evidence).holds());
    }

    #[test]
    fn an_acknowledged_reading_must_be_in_the_log_and_with_qos_2_once() {
        let mut evidence = good();
        evidence.acknowledged[0].sequence = 7;
        assert!(!audit(&evidence).holds());
        let mut evidence = good();
        let mut again = evidence.logged[0].clone();
        again.offset = 3;
        evidence.logged.push(again.clone());
        evidence.delivered.push(again);
        assert!(!audit(&evidence).holds(), "QoS 2 twice in the log");
        evidence.acknowledged[0].exactly_once = false;
        assert!(audit(&evidence).holds(), "QoS 1 may be twice");
    }
}
