//! The story of `tests/python/story.py`, told by rumqttc, which has a client for each version.

use std::time::Duration;

use rumqttc::Outgoing;
use skerry_tests::{Context as _, Result, ensure, wait};
use tokio::time::timeout;

const KEEP_ALIVE: Duration = Duration::from_secs(30);
const REQUESTS: usize = 16;
const SESSION_EXPIRY_SECS: u32 = 3600;

pub(super) async fn story(port: u16, root: &str, protocol: u8) -> Result<()> {
    match protocol {
        5 => told_by::<new::Client>(port, root).await,
        _ => told_by::<old::Client>(port, root).await,
    }
}

/// Payload, QoS and retain flag.
type Message = (String, u8, bool);

/// The little the story needs of either.
trait Client: Sized {
    async fn connect(port: u16, name: &str, clean: bool, will: Option<&str>) -> Result<Self>;
    fn session_present(&self) -> bool;
    async fn subscribe(&mut self, filter: &str, qos: u8) -> Result<()>;
    async fn publish(&mut self, topic: &str, payload: &str, qos: u8, retain: bool) -> Result<()>;
    async fn message(&mut self) -> Result<Message>;
    async fn leave(self) -> Result<()>;
}

async fn expect(client: &mut impl Client, payload: &str, qos: u8, retain: bool) -> Result<()> {
    let expected = (payload.to_owned(), qos, retain);
    let message = timeout(wait::START, client.message()).await;
    let message = message.with_context(|| format!("no {expected:?}"))??;
    ensure!(
        message == expected,
        "got {message:?}, expected {expected:?}"
    );
    Ok(())
}

async fn told_by<C: Client>(port: u16, root: &str) -> Result<()> {
    let named = |name: &str| format!("{root}-{name}");
    let at = |rest: &str| format!("{root}/{rest}");
    let mut publisher = C::connect(port, &named("publisher"), true, None).await?;
    let mut lasting = C::connect(port, &named("lasting"), false, None).await?;
    ensure!(!lasting.session_present(), "a session that never was");
    lasting.subscribe(&at("+/state/#"), 2).await?;
    publisher
        .publish(&at("a/other"), "unwanted", 1, false)
        .await?;
    for qos in 0..=2 {
        let payload = qos.to_string();
        publisher
            .publish(&at("a/state/deep"), &payload, qos, false)
            .await?;
        expect(&mut lasting, &payload, qos, false).await?;
    }

    publisher.publish(&at("kept"), "kept", 1, true).await?;
    let mut late = C::connect(port, &named("late"), true, None).await?;
    late.subscribe(&at("kept"), 1).await?;
    expect(&mut late, "kept", 1, true).await?;
    publisher.publish(&at("kept"), "", 1, true).await?;
    expect(&mut late, "", 1, false).await?;
    let mut later = C::connect(port, &named("later"), true, None).await?;
    later.subscribe(&at("kept"), 1).await?;
    publisher.publish(&at("kept"), "first", 1, false).await?;
    expect(&mut later, "first", 1, false).await?;

    let will = at("will");
    later.subscribe(&will, 1).await?;
    drop(C::connect(port, &named("mortal"), true, Some(&will)).await?);
    expect(&mut later, "gone", 1, false).await?;

    lasting.leave().await?;
    let missed = (0..10_u8).map(|number| (number.to_string(), 1 + number / 5));
    for (payload, qos) in missed.clone() {
        publisher
            .publish(&at("b/state"), &payload, qos, false)
            .await?;
    }
    let mut lasting = C::connect(port, &named("lasting"), false, None).await?;
    ensure!(lasting.session_present(), "the session is gone");
    for (payload, qos) in missed {
        expect(&mut lasting, &payload, qos, false).await?;
    }
    Ok(())
}

/// The two clients of rumqttc are alike but for their types' paths.
macro_rules! client {
    () => {
        pub(super) struct Client {
            client: AsyncClient,
            events: EventLoop,
            present: bool,
            /// Messages that came while something else was waited for.
            waiting: VecDeque<Message>,
            /// QoS 2 messages handed out, and PUBRELs that came.
            taken: usize,
            released: usize,
        }

        impl Client {
            async fn poll(&mut self) -> Result<Event> {
                let event = timeout(wait::START, self.events.poll()).await;
                let event = event.context("it hangs")??;
                match &event {
                    Event::Incoming(Packet::Publish(publish)) => {
                        let payload = String::from_utf8(publish.payload.to_vec())?;
                        let message = (payload, publish.qos as u8, publish.retain);
                        self.waiting.push_back(message);
                    }
                    Event::Incoming(Packet::PubRel(_)) => self.released += 1,
                    _ => {}
                }
                Ok(event)
            }

            async fn until(&mut self, wanted: impl Fn(&Event) -> bool) -> Result<Event> {
                loop {
                    let event = self.poll().await?;
                    if wanted(&event) {
                        return Ok(event);
                    }
                }
            }
        }

        impl super::Client for Client {
            async fn connect(
                port: u16,
                name: &str,
                clean: bool,
                will: Option<&str>,
            ) -> Result<Self> {
                let (client, events) = AsyncClient::new(options(port, name, clean, will), REQUESTS);
                let mut connected = Self {
                    client,
                    events,
                    present: false,
                    waiting: VecDeque::new(),
                    taken: 0,
                    released: 0,
                };
                let is_connack =
                    |event: &Event| matches!(event, Event::Incoming(Packet::ConnAck(_)));
                if let Event::Incoming(Packet::ConnAck(connack)) =
                    connected.until(is_connack).await?
                {
                    connected.present = connack.session_present;
                }
                Ok(connected)
            }

            fn session_present(&self) -> bool {
                self.present
            }

            async fn subscribe(&mut self, filter: &str, qos: u8) -> Result<()> {
                self.client.subscribe(filter, quality(qos)).await?;
                let is_suback = |event: &Event| matches!(event, Event::Incoming(Packet::SubAck(_)));
                self.until(is_suback).await?;
                Ok(())
            }

            async fn publish(
                &mut self,
                topic: &str,
                payload: &str,
                qos: u8,
                retain: bool,
            ) -> Result<()> {
                let payload = payload.as_bytes().to_vec();
                self.client
                    .publish(topic, quality(qos), retain, payload)
                    .await?;
                self.until(|event| match qos {
                    0 => matches!(event, Event::Outgoing(Outgoing::Publish(_))),
                    1 => matches!(event, Event::Incoming(Packet::PubAck(_))),
                    _ => matches!(event, Event::Incoming(Packet::PubComp(_))),
                })
                .await?;
                Ok(())
            }

            /// A QoS 2 message only once it is released, so that a session is left settled.
            async fn message(&mut self) -> Result<Message> {
                loop {
                    if let Some(message) = self.waiting.pop_front() {
                        self.taken += usize::from(message.1 == 2);
                        while self.released < self.taken {
                            self.poll().await?;
                        }
                        return Ok(message);
                    }
                    self.poll().await?;
                }
            }

            async fn leave(mut self) -> Result<()> {
                self.client.disconnect().await?;
                // The loop sends that, and fails once the connection is closed.
                while self.events.poll().await.is_ok() {}
                Ok(())
            }
        }
    };
}

/// MQTT 3.1.1.
mod old {
    use std::collections::VecDeque;

    use rumqttc::{AsyncClient, Event, EventLoop, LastWill, MqttOptions, Packet, QoS};

    use super::*;

    fn options(port: u16, name: &str, clean: bool, will: Option<&str>) -> MqttOptions {
        let mut options = MqttOptions::new(name, "localhost", port);
        options.set_keep_alive(KEEP_ALIVE).set_clean_session(clean);
        if let Some(topic) = will {
            options.set_last_will(LastWill::new(topic, "gone", QoS::AtLeastOnce, false));
        }
        options
    }

    fn quality(qos: u8) -> QoS {
        [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce][usize::from(qos)]
    }

    client!();
}

/// MQTT 5.
mod new {
    use std::collections::VecDeque;

    use rumqttc::v5::mqttbytes::QoS;
    use rumqttc::v5::mqttbytes::v5::{ConnectProperties, LastWill, Packet};
    use rumqttc::v5::{AsyncClient, Event, EventLoop, MqttOptions};

    use super::*;

    fn options(port: u16, name: &str, clean: bool, will: Option<&str>) -> MqttOptions {
        let mut options = MqttOptions::new(name, "localhost", port);
        options.set_keep_alive(KEEP_ALIVE).set_clean_start(clean);
        let mut properties = ConnectProperties::new();
        properties.session_expiry_interval = (!clean).then_some(SESSION_EXPIRY_SECS);
        options.set_connect_properties(properties);
        if let Some(topic) = will {
            options.set_last_will(LastWill::new(topic, "gone", QoS::AtLeastOnce, false, None));
        }
        options
    }

    fn quality(qos: u8) -> QoS {
        [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce][usize::from(qos)]
    }

    client!();
}
