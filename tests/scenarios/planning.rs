//! The figures an operator plans by, while the cluster is away and while the backlog drains.

use std::time::{Duration, Instant};

use serde_json::Value;
use skerry_tests::kafka::Kafka;
use skerry_tests::node::{Node, metric, skerry};
use skerry_tests::proxy::{Link, Proxy};
use skerry_tests::world::{Publishing, World};
use skerry_tests::{Context as _, Result, bail, ensure, wait};

use crate::common::link_is;

/// Far enough for a drain of many transactions, so that it can be watched.
const DELAY: Duration = Duration::from_millis(100);

/// One of the figures; none where it is not known.
fn figure(status: &Value, name: &str) -> Option<f64> {
    status["uplink"][name].as_f64()
}

fn known(status: &Value, name: &str) -> Result<f64> {
    figure(status, name).with_context(|| format!("{name} is not known: {}", status["uplink"]))
}

fn unknown(status: &Value, name: &str) -> Result<()> {
    let found = figure(status, name);
    ensure!(found.is_none(), "{name} is {found:?}, made up from nothing");
    Ok(())
}

/// What is told agrees within a factor with what is seen from outside.
fn plausible(what: &str, told: f64, seen: f64, factor: f64) -> Result<()> {
    let ratio = told / seen;
    ensure!(
        (1.0 / factor..=factor).contains(&ratio),
        "{what}: {told} is told, {seen} seen"
    );
    Ok(())
}

/// Waits until a figure is known and above a bound.
fn above(node: &Node, name: &str, least: f64) -> Result<Value> {
    let what = format!("{name} is above {least}");
    node.wait_for_status(&what, wait::DRAIN, |status| {
        figure(status, name).is_some_and(|told| told > least)
    })
}

fn stream<'s>(status: &'s Value, pointer: &str, key: &str) -> Result<&'s Value> {
    let list = status.pointer(pointer).and_then(Value::as_array);
    let found = list.and_then(|list| list.iter().find(|entry| entry[key] == "telemetry"));
    found.with_context(|| format!("no telemetry in {pointer}"))
}

fn printed(node: &Node) -> Result<String> {
    let address = format!("127.0.0.1:{}", node.settings().http_port);
    Ok(skerry(&["status", &address])?.text())
}

pub(crate) fn figures(world: &World) -> Result<()> {
    let (port, advertised) = (world.port()?, world.port()?);
    let kafka = Kafka::start_advertising(world.folder(), world.logs(), port, advertised)?;
    let proxy = Proxy::start_on(advertised, kafka.port())?;
    let mut settings = world.settings()?;
    settings.kafka = Some(proxy.address());
    let mut node = world.started(settings)?;
    let publishing = Publishing {
        interval_ms: 2,
        pad: 400,
        ..Publishing::default()
    };
    let publisher = world.publisher(node.mqtt_port(), publishing)?;
    link_is(&node, "up")?;
    above(&node, "sent_today_bytes", 0.0)?;

    proxy.cut();
    let cut = Instant::now();
    link_is(&node, "down")?;
    let status = above(&node, "rpo_seconds", 15.0)?;
    let away = cut.elapsed().as_secs_f64();
    plausible("rpo_seconds", known(&status, "rpo_seconds")?, away, 1.5)?;
    // Nothing was ever drained, so nobody knows how long that takes, let alone from when on.
    unknown(&status, "rto_seconds")?;
    unknown(&status, "drain_eta_seconds")?;
    let lag = known(&status, "lag_records")?;
    let lane = stream(&status, "/uplink/streams", "stream")?;
    let oldest = lane["lag_seconds"].as_f64().context("no lag_seconds")?;
    ensure!(oldest >= 15.0, "telemetry is {oldest} s behind");
    let record = lane["lag_bytes"].as_f64().context("no lag_bytes")?
        / lane["lag_records"].as_f64().context("no lag_records")?;
    ensure!(
        (50.0..1_000.0).contains(&record),
        "{record} bytes per record on the disk"
    );
    let rate = known(&status, "ingest_records_per_second")?;
    plausible("records of the outage", rate * away, lag, 2.0)?;
    let text = printed(&node)?;
    for part in ["records behind", "no backlog was drained", "sent today"] {
        ensure!(text.contains(part), "{part} is not in {text}");
    }

    // The disk is filled by what comes in, up to the stream's own limit or its own end.
    let status = above(&node, "autonomy_seconds", 0.0)?;
    let kept = stream(&status, "/store/streams", "name")?;
    let bytes = |value: &Value| value.as_f64().context("no bytes");
    let room = match status["uplink"]["autonomy_limit"].as_str() {
        Some("telemetry") => bytes(&kept["bytes_max"])? - bytes(&kept["bytes"])?,
        Some("disk") => bytes(&status["store"]["disk_free_bytes"])?,
        other => bail!("the disk lasts until {other:?}"),
    };
    let rate = known(&status, "ingest_bytes_per_second")?;
    plausible(
        "autonomy_seconds",
        known(&status, "autonomy_seconds")?,
        room / rate,
        1.5,
    )?;
    ensure!(
        printed(&node)?.contains("without the cluster the disk lasts"),
        "nothing of autonomy"
    );

    proxy.set(Link::Up {
        delay: DELAY,
        bytes_per_second: None,
    });
    // What is confirmed first may have been written before the cut, so the mean begins low.
    let is_measured = |status: &Value| {
        let rate = |name| figure(status, name);
        rate("drain_records_per_second") > rate("ingest_records_per_second")
    };
    let status = node.wait_for_status("the drain is measured", wait::DRAIN, is_measured)?;
    let draining = known(&status, "drain_records_per_second")?;
    let coming = known(&status, "ingest_records_per_second")?;
    if known(&status, "lag_records")? > 1_000.0 && status["uplink"]["link"]["state"] == "up" {
        let eta = known(&status, "drain_eta_seconds")?;
        ensure!(
            figure(&status, "rto_seconds") == Some(eta),
            "another RTO than {eta}"
        );
        let expected = known(&status, "lag_records")? / (draining - coming);
        ensure!(
            eta == 0.0 || (eta / expected - 1.0).abs() < 0.1,
            "{eta} s for {expected} s"
        );
    }
    let current = |status: &Value| figure(status, "rto_seconds") == Some(0.0);
    let status = node.wait_for_status("the cluster is current", wait::DRAIN, current)?;
    ensure!(known(&status, "rpo_seconds")? < 15.0, "current, and late");

    // Away again, the link is remembered as it was.
    proxy.cut();
    link_is(&node, "down")?;
    // The figures are made anew every few seconds, the link's state at once.
    let remembered = |status: &Value| {
        let eta = figure(status, "drain_eta_seconds");
        figure(status, "rto_seconds").is_none() && eta.is_some_and(|eta| eta > 0.0)
    };
    node.wait_for_status("when is not known, how long is", wait::DRAIN, remembered)?;
    let metrics = node.metrics()?;
    for name in [
        "rpo_seconds",
        "lag_bytes",
        "autonomy_seconds",
        "drain_eta_seconds",
    ] {
        let told = metric(&metrics, &format!("skerry_uplink_{name}"));
        ensure!(
            told.is_some_and(|told| told > 0.0),
            "/metrics has {told:?} for {name}"
        );
    }
    proxy.restore();
    publisher.finish(wait::START)?;
    ensure!(node.terminate()?.success(), "the node did not stop cleanly");
    Ok(())
}
