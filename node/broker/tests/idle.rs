//! What a connection costs that does nothing. Alone in its process: it measures memory.

#![expect(
    clippy::unwrap_used,
    reason = "a file of tests and of what only they call"
)]

mod common;

use common::{Client, Hello, Node};

/// The aim for a connection all in all. Here the client's side of it is in it too.
const BYTES_MAX: usize = 12 * 1024;
const CONNECTIONS: usize = 400;

/// Resident memory of this process.
fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}

async fn connect(node: &Node, count: usize, tag: &str) -> Vec<Client> {
    let mut clients = Vec::with_capacity(count);
    for index in 0..count {
        let id = format!("{tag}-{index}");
        let mut client = Client::connect(node, &Hello::v5(&id)).await;
        client.subscribe(&format!("to/{id}"), 1).await;
        client.publish("from", "hello", 1, 1).await;
        client.expect(0x40, 1).await;
        clients.push(client);
    }
    clients
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_connection_costs_little() {
    let node = Node::start().await;
    // What is allocated once, and kept by the allocator.
    let warm = connect(&node, CONNECTIONS / 4, "warm").await;
    let before = resident_bytes();
    let clients = connect(&node, CONNECTIONS, "idle").await;
    let each = resident_bytes().saturating_sub(before) / CONNECTIONS;
    println!("{each} bytes for each connection");
    assert!(each <= BYTES_MAX, "{each}");
    assert_eq!(warm.len() + clients.len(), CONNECTIONS + CONNECTIONS / 4);
}
