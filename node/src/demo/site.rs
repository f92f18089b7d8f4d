//! The site of the demo: the simulated plant, its OPC-UA server and its MQTT sensors.

use super::audit::Acknowledged;
use super::place::{Place, Ports};
use skerry_simulation::opcua_server::{OpcuaServer, TagValue};
use skerry_simulation::plant::{Plant, Route, SAMPLING};
use skerry_simulation::sensors::{Entries, Sensors};
use std::error::Error;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

/// How long the sensors may take to get their last readings acknowledged.
const ACKNOWLEDGED_WITHIN: Duration = Duration::from_secs(30);

pub struct Site {
    plant: Option<Plant>,
    opcua_tags: Vec<String>,
    machines: Arc<OpcuaServer>,
    broker: SocketAddr,
    stop: CancellationToken,
    running: Option<JoinHandle<Sensors>>,
    ledger: Option<Entries>,
}

impl Site {
    /// Builds the plant and starts its server; nothing moves before [`Site::run`].
    pub async fn build(
        place: &Place,
        ports: &Ports,
        seed: u64,
        total: Duration,
    ) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let plant = Plant::new(seed, Plant::acceleration_for(total));
        let over_opcua = plant
            .readings()
            .iter()
            .filter(|reading| reading.route == Route::Opcua);
        let tags: Vec<(String, TagValue)> = over_opcua
            .map(|reading| (reading.tag.clone(), TagValue::Number(reading.value)))
            .collect();
        let opcua_tags = tags.iter().map(|(tag, _)| tag.clone()).collect();
        let machines = OpcuaServer::start(0, &place.directory.join("plant"), tags).await?;
        let broker = SocketAddr::from((Ipv4Addr::LOCALHOST, ports.mqtt));
        Ok(Self {
            plant: Some(plant),
            opcua_tags,
            machines: Arc::new(machines),
            broker,
            stop: CancellationToken::new(),
            running: None,
            ledger: None,
        })
    }

    pub fn opcua_url(&self) -> String {
        self.machines.url()
    }

    pub fn opcua_tags(&self) -> &[String] {
        &self.opcua_tags
    }

    /// Lets the plant run.
    pub fn run(&mut self) {
        if let Some(plant) = self.plant.take() {
            let sensors = Sensors::new(self.broker);
            let machines = Arc::clone(&self.machines);
            self.running = Some(tokio::spawn(drive(
                plant,
                machines,
                sensors,
                self.stop.clone(),
            )));
        }
    }

    /// Stops the plant and waits until the broker has acknowledged every reading.
    ///
    /// # Errors
    /// When some were not acknowledged in time.
    pub async fn stop(&mut self) -> io::Result<()> {
        self.stop.cancel();
        let Some(running) = self.running.take() else {
            return Ok(());
        };
        let sensors = running.await.map_err(io::Error::other)?;
        let ledger = sensors.finish(ACKNOWLEDGED_WITHIN).await;
        let open = ledger.sent.len() - ledger.acknowledged.len();
        self.ledger = Some(ledger);
        match open {
            0 => Ok(()),
            open => Err(io::Error::other(format!(
                "the broker left {open} readings unacknowledged"
            ))),
        }
    }

    /// What the broker acknowledged, known once the plant has stopped.
    pub fn acknowledged(&self) -> Vec<Acknowledged> {
        let Some(ledger) = &self.ledger else {
            return Vec::new();
        };
        let acknowledged = ledger.acknowledged.iter();
        acknowledged
            .map(|(topic, sequence)| Acknowledged {
                topic: topic.clone(),
                sequence: *sequence,
                exactly_once: ledger.exactly_once.contains(topic),
            })
            .collect()
    }

    /// Messages the sensors sent more than once, having had no answer.
    pub fn resent(&self) -> u64 {
        self.ledger.as_ref().map_or(0, |ledger| ledger.resent)
    }
}

/// Steps the plant in real time and hands its readings out.
async fn drive(
    mut plant: Plant,
    machines: Arc<OpcuaServer>,
    mut sensors: Sensors,
    stop: CancellationToken,
) -> Sensors {
    let mut tick = tokio::time::interval(SAMPLING);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return sensors,
            _ = tick.tick() => {}
        }
        let now = SystemTime::now();
        let millis = now
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_millis();
        let readings = plant.step(SAMPLING);
        for reading in readings
            .iter()
            .filter(|reading| reading.route == Route::Opcua)
        {
            let value = TagValue::Number(reading.value);
            if let Err(error) = machines.set(&reading.tag, value, now) {
                tracing::error!("the plant cannot set {}: {error}", reading.tag);
            }
        }
        sensors.publish(readings, i64::try_from(millis).unwrap_or(i64::MAX));
    }
}
