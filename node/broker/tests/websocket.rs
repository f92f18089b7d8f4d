//! MQTT in WebSocket frames, with and without TLS below.

#![expect(
    clippy::unwrap_used,
    reason = "a file of tests and of what only they call"
)]

mod common;
#[expect(dead_code, reason = "what TLS itself is tested with")]
#[path = "common/tls.rs"]
mod tls;

use bytes::Bytes;
use common::{Client, Duplex, Hello, Node, PATIENCE, packet};
use futures_util::{Sink, Stream};
use skerry_broker::{Listener, WebSocket};
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use tls::{Authority, listener};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

/// A WebSocket client that shows every frame.
struct Frames<S>(WebSocketStream<S>);

impl<S: Duplex> Frames<S> {
    async fn connect(socket: S) -> Self {
        let mut request = "ws://localhost/mqtt".into_client_request().unwrap();
        let offers = "mqttv3.1, mqtt".parse().unwrap();
        request
            .headers_mut()
            .insert("Sec-WebSocket-Protocol", offers);
        let (stream, response) = client_async(request, socket).await.unwrap();
        assert_eq!(response.headers()["Sec-WebSocket-Protocol"], "mqtt");
        Self(stream)
    }

    async fn send(&mut self, message: Message) {
        let mut stream = Pin::new(&mut self.0);
        poll_fn(|cx| stream.as_mut().poll_ready(cx)).await.unwrap();
        stream.as_mut().start_send(message).unwrap();
        poll_fn(|cx| stream.as_mut().poll_flush(cx)).await.unwrap();
    }

    async fn send_bytes(&mut self, bytes: &[u8]) {
        self.send(Message::Binary(Bytes::copy_from_slice(bytes)))
            .await;
    }

    async fn next(&mut self) -> Option<Result<Message, Error>> {
        let mut stream = Pin::new(&mut self.0);
        let next = poll_fn(|cx| stream.as_mut().poll_next(cx));
        timeout(PATIENCE, next).await.expect("a frame in time")
    }

    /// The bytes of binary frames until there are `count`.
    async fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        while bytes.len() < count {
            match self.next().await.expect("a frame").expect("a good frame") {
                Message::Binary(payload) => bytes.extend_from_slice(&payload),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(bytes.len(), count, "{bytes:x?}");
        bytes
    }

    /// The code that the node closes with.
    async fn closed(&mut self) -> CloseCode {
        loop {
            match self.next().await {
                Some(Ok(Message::Close(Some(frame)))) => return frame.code,
                Some(Ok(_)) => {}
                other => panic!("no close frame but {other:?}"),
            }
        }
    }
}

fn websocket() -> Listener {
    Listener {
        websocket: Some(WebSocket {
            path: Some("/mqtt".to_owned()),
        }),
        ..listener(None)
    }
}

/// Packets cut over frames and joined in one, and pings in between.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_have_no_meaning() {
    let node = Node::start_with(|config| config.listeners.push(websocket())).await;
    let socket = TcpStream::connect(node.tcp(1)).await.unwrap();
    let mut frames = Frames::connect(socket).await;
    for byte in Hello::v4("a").bytes() {
        frames.send_bytes(&[byte]).await;
    }
    assert_eq!(frames.bytes(4).await, b"\x20\x02\0\0");
    frames
        .send(Message::Ping(Bytes::from_static(b"there?")))
        .await;
    assert_eq!(
        frames.next().await.unwrap().unwrap(),
        Message::Pong(Bytes::from_static(b"there?"))
    );
    let subscribe = packet(0x82, b"\0\x01\0\x01#\0");
    let publish = packet(0x32, b"\0\x01a\0\x02hello");
    let joined = [&subscribe[..], &publish, b"\xc0\x00"].concat();
    // The last packet ends in a frame of its own.
    let (most, last) = joined.split_at(joined.len() - 1);
    frames.send_bytes(most).await;
    frames.send_bytes(last).await;
    let delivered = packet(0x30, b"\0\x01ahello");
    let mut answers = frames.bytes(5 + 4 + 2 + delivered.len()).await;
    answers.sort_unstable();
    let mut expected = [
        b"\x90\x03\0\x01\0",
        &b"\x40\x02\0\x02"[..],
        b"\xd0\x00",
        &delivered,
    ]
    .concat();
    expected.sort_unstable();
    assert_eq!(answers, expected);
    frames.send(Message::Close(None)).await;
    assert!(matches!(frames.next().await, Some(Ok(Message::Close(_)))));
    assert_eq!(node.payloads("default"), ["hello"]);
    node.until("the end", |status| status.connections == 0)
        .await;
}

/// A stream of bytes over WebSocket, for the ordinary client.
async fn tunnel(socket: impl Duplex + 'static, hello: &Hello<'_>) -> Client {
    let mut frames = Frames::connect(socket).await;
    let (near, mut far) = tokio::io::duplex(1 << 20);
    tokio::spawn(async move {
        let mut buffer = vec![0; 50_000];
        loop {
            tokio::select! {
                read = far.read(&mut buffer) => match read {
                    Ok(count) if count > 0 => frames.send_bytes(&buffer[..count]).await,
                    _ => return frames.send(Message::Close(None)).await,
                },
                message = poll_fn(|cx| Pin::new(&mut frames.0).poll_next(cx)) => match message {
                    Some(Ok(Message::Binary(bytes))) => far.write_all(&bytes).await.unwrap(),
                    Some(Ok(_)) => {}
                    _ => return,
                },
            }
        }
    });
    Client::greet(near, hello).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_versions_work_over_ws_and_wss() {
    let authority = Authority::new();
    authority.issue("node", 4000);
    let layer = authority.layer("node");
    let node = Node::start_with(|config| {
        config.listeners.push(websocket());
        config.listeners.push(Listener {
            tls: Some(layer),
            ..websocket()
        });
    })
    .await;
    for hello in [Hello::v4("a"), Hello::v5("a")] {
        for secure in [false, true] {
            let mut client = match secure {
                false => tunnel(TcpStream::connect(node.tcp(1)).await.unwrap(), &hello).await,
                true => tunnel(authority.connect(node.tcp(2)).await, &hello).await,
            };
            // More than a frame, a TLS record and a socket buffer hold.
            let payload = "x".repeat(200_000);
            client.publish_retained("a", &payload, 1).await;
            assert_eq!(client.subscribe("a", 2).await, 2);
            assert_eq!(client.got().await.payload, payload);
            client.leave().await;
        }
    }
    let transports: Vec<_> = node
        .status()
        .listeners
        .iter()
        .map(|it| it.transport)
        .collect();
    assert_eq!(transports, ["tcp", "ws", "wss"]);
    assert_eq!(node.payloads("default").len(), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_that_are_not_mqtts_close_with_the_reason() {
    let node = Node::start_with(|config| {
        config.packet_bytes_max = 1024;
        config.listeners.push(websocket());
    })
    .await;
    for (index, (message, code)) in [
        (Message::Text("hello".into()), CloseCode::Unsupported),
        (Message::Binary(vec![0; 70_000].into()), CloseCode::Size),
    ]
    .into_iter()
    .enumerate()
    {
        let mut frames = Frames::connect(TcpStream::connect(node.tcp(1)).await.unwrap()).await;
        frames.send_bytes(&Hello::v5("a").bytes()).await;
        assert!(matches!(frames.next().await, Some(Ok(Message::Binary(_)))));
        frames.send(message).await;
        assert_eq!(frames.closed().await, code);
        node.until("the end", |status| {
            status.connections_closed_total.get("transport") == Some(&(index as u64 + 1))
        })
        .await;
    }
    // Before CONNECT as well.
    let mut frames = Frames::connect(TcpStream::connect(node.tcp(1)).await.unwrap()).await;
    frames.send(Message::Text("hello".into())).await;
    assert_eq!(frames.closed().await, CloseCode::Unsupported);
    node.until_turned_away(1, "transport", 1).await;
}

/// What a request gets for an answer, to the end of the connection.
async fn ask(address: SocketAddr, request: &str) -> String {
    let mut socket = TcpStream::connect(address).await.unwrap();
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    let read = socket.read_to_string(&mut answer);
    timeout(PATIENCE, read)
        .await
        .expect("an end")
        .expect("an answer");
    answer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http_that_does_not_lead_to_mqtt_is_answered_with_a_sentence() {
    const UPGRADE: &str = "Host: a\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n\
                           Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let node = Node::start_with(|config| config.listeners.push(websocket())).await;
    let version = "Sec-WebSocket-Version: 13\r\n";
    for (index, (request, status, sentence, reason)) in [
        (
            "GET /mqtt HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
            "426 Upgrade Required\r\nUpgrade: websocket\r\n",
            "MQTT over WebSocket",
            "not_websocket",
        ),
        (
            format!("GET /mqtt HTTP/1.1\r\n{UPGRADE}Sec-WebSocket-Version: 8\r\n\r\n"),
            "426 Upgrade Required\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n",
            "MQTT over WebSocket, version 13",
            "not_websocket",
        ),
        (
            "POST /mqtt HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
            "400 Bad Request\r\n",
            "MQTT over WebSocket",
            "not_websocket",
        ),
        (
            format!("GET /mqtt HTTP/1.1\r\n{UPGRADE}{version}\r\n"),
            "400 Bad Request\r\n",
            "must offer the subprotocol \"mqtt\"",
            "websocket_subprotocol",
        ),
        (
            format!("GET /mqtt HTTP/1.1\r\n{UPGRADE}{version}Sec-WebSocket-Protocol: chat, mqttv3.1\r\n\r\n"),
            "400 Bad Request\r\n",
            "must offer the subprotocol \"mqtt\"",
            "websocket_subprotocol",
        ),
        (
            format!("GET /other HTTP/1.1\r\n{UPGRADE}{version}Sec-WebSocket-Protocol: mqtt\r\n\r\n"),
            "404 Not Found\r\n",
            "another path",
            "websocket_path",
        ),
        (
            format!("GET /mqtt HTTP/1.1\r\nCookie: {}", "x".repeat(8192)),
            "400 Bad Request\r\n",
            "larger than 8192 bytes",
            "http_too_large",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let answer = ask(node.tcp(1), &request).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{index}: {answer}");
        assert!(answer.contains(sentence), "{index}: {answer}");
        node.until(reason, |status| {
            let refused = &status.listeners[1].refused_total;
            refused.contains_key(reason) && refused.values().sum::<u64>() == index as u64 + 1
        })
        .await;
    }
}
