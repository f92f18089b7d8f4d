//! The server connects to us: values flow, also after a restart, and strangers are sent away.

#![expect(clippy::unwrap_used, reason = "in a test, a panic is the report")]

#[expect(dead_code, reason = "it serves other tests too")]
mod plant;

use plant::{Client, World, counts, set};
use skerry_bridge::opcua::{ReverseConnect, State};
use skerry_simulation::opcua_server::APPLICATION;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

async fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap()
}

/// A client that waits for the server to call.
fn waiting(world: &World, url: &str, listen: SocketAddr) -> Client {
    let mut config = world.config(url, &["count"]);
    config.reverse = Some(ReverseConnect {
        listen,
        server_uri: Some(APPLICATION.to_owned()),
    });
    Client::run(world, config)
}

fn reverse_hello(uri: &str, url: &str) -> Vec<u8> {
    let mut body = Vec::new();
    for text in [uri, url] {
        body.extend((text.len() as u32).to_le_bytes());
        body.extend(text.as_bytes());
    }
    let mut message = b"RHEF".to_vec();
    message.extend((8 + body.len() as u32).to_le_bytes());
    message.extend(body);
    message
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_calls_is_read_and_carried_on() {
    let world = World::new();
    let plant = world.plant(0).await;
    let listen = free_address().await;
    // Nobody can be dialled there: what comes was called.
    let url = "opc.tcp://127.0.0.1:9/";
    let first = waiting(&world, url, listen);
    plant.call(listen);
    first
        .until("connected", |s| s.state == State::Connected)
        .await;
    for count in 1..=5 {
        set(&plant, count).await;
    }
    first.until("five values", |s| s.values_total >= 6).await;
    first.crash().await;
    for count in 6..=10 {
        set(&plant, count).await;
    }
    let second = waiting(&world, url, listen);
    world
        .until("what was set meanwhile", |records| {
            counts(records).last() == Some(&10)
        })
        .await;
    second.stop().await;
    assert_eq!(counts(&world.records()), (0..=10).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_are_sent_away_and_keep_nobody_out() {
    let world = World::new();
    let plant = world.plant(0).await;
    let listen = free_address().await;
    let client = waiting(&world, &plant.url(), listen);
    let knock = async || loop {
        if let Ok(stream) = TcpStream::connect(listen).await {
            return stream;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let _mute = knock().await;
    let mut web = knock().await;
    web.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let mut endless = knock().await;
    endless.write_all(b"RHEF\xff\xff\xff\x7f").await.unwrap();
    let mut other = knock().await;
    let hello = reverse_hello("urn:elsewhere", &plant.url());
    other.write_all(&hello).await.unwrap();
    let mut answer = Vec::new();
    other.read_to_end(&mut answer).await.unwrap();
    assert!(answer.starts_with(b"ERRF"), "{}", answer.escape_ascii());
    assert_eq!(answer.len(), usize::from(answer[4]), "as long as it says");
    for stream in [&mut web, &mut endless] {
        let mut rest = Vec::new();
        // Closed, with what it had sent unread: a reset.
        let _ = stream.read_to_end(&mut rest).await;
        assert!(rest.is_empty());
    }
    plant.call(listen);
    client
        .until("connected", |s| s.state == State::Connected)
        .await;
    client.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_taken_port_is_named_and_tried_again() {
    let world = World::new();
    let plant = world.plant(0).await;
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let listen = taken.local_addr().unwrap();
    let client = waiting(&world, &plant.url(), listen);
    client.until("trouble", |s| s.error.is_some()).await;
    let error = client.status.snapshot().error.unwrap();
    assert!(
        error.contains(&format!("cannot listen on {listen}")),
        "{error}"
    );
    drop(taken);
    plant.call(listen);
    client
        .until("connected", |s| s.state == State::Connected)
        .await;
    client.stop().await;
}
