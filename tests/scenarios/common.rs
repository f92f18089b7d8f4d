//! What several stories tell alike.

use std::collections::BTreeMap;

use serde_json::Value;
use skerry_tests::audit::{self, Arrived};
use skerry_tests::node::{self, Node};
use skerry_tests::python::Helper;
use skerry_tests::{Context as _, Result, ensure, wait};

/// Not sent to the cluster, which refused what is in it.
const QUARANTINE: &str = "quarantine";

/// One past the newest durable offset of each stream that the cluster gets.
pub(crate) fn heads(status: &Value) -> Result<BTreeMap<String, u64>> {
    let streams = status["store"]["streams"]
        .as_array()
        .context("no streams in /status")?;
    let mut heads = BTreeMap::new();
    for stream in streams {
        let name = stream["stream"]
            .as_str()
            .or(stream["name"].as_str())
            .context("no name")?;
        let head = stream["head"].as_u64().context("no head")?;
        if !name.starts_with('_') && name != QUARANTINE && head > 0 {
            heads.insert(name.to_owned(), head);
        }
    }
    Ok(heads)
}

/// Waits until the cluster holds everything the log holds, and audits it: each offset of each
/// stream once, none missing, in order per key.
pub(crate) fn drained(node: &Node, consumer: &mut Helper) -> Result<Vec<Arrived>> {
    let arrived = drained_but_for_gaps(node, consumer)?;
    for (stream, account) in audit::accounts(&arrived)? {
        let lost = account.in_gaps.len();
        ensure!(lost == 0, "{stream}: {lost} records were given up");
    }
    Ok(arrived)
}

/// The same where a gap record may stand for what was given up.
pub(crate) fn drained_but_for_gaps(node: &Node, consumer: &mut Helper) -> Result<Vec<Arrived>> {
    let arrived = wait::until("the cluster has everything", wait::DRAIN, || {
        let heads = heads(&node.status()?)?;
        let arrived = audit::arrived(&consumer.lines()?)?;
        let accounts = audit::accounts(&arrived)?;
        for (stream, head) in heads {
            let there = accounts.get(&stream).map_or(0, audit::Account::len);
            ensure!(there >= head, "{stream}: {there} of {head} records");
        }
        Ok(Some(arrived))
    })?;
    audit::offsets(&arrived)?;
    Ok(arrived)
}

/// Waits until a publisher has had `count` more messages acknowledged than when this began.
pub(crate) fn acked_more(publisher: &mut Helper, count: usize) -> Result<()> {
    let acked = |lines: &[Value]| lines.iter().filter(|line| line["event"] == "acked").count();
    let before = acked(&publisher.lines()?);
    let what = format!("{count} more acknowledged messages");
    publisher.wait_for(&what, wait::DRAIN, |lines| acked(lines) >= before + count)?;
    Ok(())
}

/// The log and the cluster agree, record for record: source, payload and kind of every offset.
pub(crate) fn log_agrees(node: &Node, stream: &str, arrived: &[Arrived]) -> Result<()> {
    let logged = audit::logged(stream, &node::log_cat(&node.settings().data, stream)?)?;
    let mut cluster = BTreeMap::new();
    for record in arrived {
        let (origin, offset) = record.origin()?;
        if origin == stream {
            cluster.insert(offset, record);
        }
    }
    for record in &logged {
        let (_, offset) = record.origin()?;
        let delivered = cluster.get(&offset);
        let delivered =
            delivered.with_context(|| format!("{stream} {offset} is not in the cluster"))?;
        let same = record.key == delivered.key
            && record.kind() == delivered.kind()
            && record.json()? == delivered.json()?;
        ensure!(
            same,
            "{stream} {offset} differs: log {record:?}, cluster {delivered:?}"
        );
    }
    let (count, there) = (logged.len(), cluster.len());
    ensure!(
        count == there,
        "{stream}: {count} records in the log, {there} in the cluster"
    );
    Ok(())
}

/// Waits until the link to the cluster is in `state`; the status that says so.
pub(crate) fn link_is(node: &Node, state: &str) -> Result<Value> {
    let what = format!("the uplink is {state}");
    let is = |status: &Value| status["uplink"]["link"]["state"] == state;
    node.wait_for_status(&what, wait::DRAIN, is)
}

/// A run in which nothing went wrong says so by saying nothing.
pub(crate) fn logged_no_complaint(node: &Node) -> Result<()> {
    let output = node.output()?;
    let complaint = output
        .lines()
        .find(|line| line.contains("WARN") || line.contains("ERROR"));
    ensure!(complaint.is_none(), "a normal run logged: {complaint:?}");
    Ok(())
}
