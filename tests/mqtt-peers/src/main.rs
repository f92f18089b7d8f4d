//! `mqtt-peers PORT`: the unmodified rumqttd with its own server, on loopback, until standard
//! input ends.
//!
//! The settings are those of the `rumqttd.toml` it ships with, but for two: segments are small,
//! because it keeps ten of them per topic in memory, and only the 3.1.1 listener is there.

use std::collections::HashMap;
use std::io::Read as _;
use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context as _, Result};
use rumqttd::{Broker, Config, ConnectionSettings, RouterConfig, ServerSettings};

fn main() -> Result<()> {
    let port = std::env::args().nth(1).context("usage: mqtt-peers PORT")?;
    std::thread::spawn(end_with_input);
    Broker::new(config(port.parse()?)).start()?;
    Ok(())
}

/// Whoever started this holds the other end of the pipe, so nothing outlives a bench that died.
fn end_with_input() {
    let _read = std::io::stdin().read_to_end(&mut Vec::new());
    std::process::exit(0);
}

fn config(port: u16) -> Config {
    let server = ServerSettings {
        name: "v4-1".to_owned(),
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
        tls: None,
        next_connection_delay_ms: 1,
        connections: ConnectionSettings {
            connection_timeout_ms: 60_000,
            max_payload_size: 20_480,
            max_inflight_count: 100,
            auth: None,
            external_auth: None,
            dynamic_filters: true,
        },
    };
    Config {
        router: RouterConfig {
            max_connections: 10_010,
            max_outgoing_packet_count: 200,
            max_segment_size: 1024 * 1024,
            max_segment_count: 10,
            ..RouterConfig::default()
        },
        v4: Some(HashMap::from([("1".to_owned(), server)])),
        ..Config::default()
    }
}
