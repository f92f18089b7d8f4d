//! The broker behind TLS and Unix sockets: who gets in, who is told why not, and what changes while
//! it runs.

mod common;
#[path = "common/tls.rs"]
mod tls;

use common::{Client, Hello, Node, PATIENCE};
use skerry_broker::{Address, Broker, Config, Error, Listener, UnixSocket};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};
use tls::{Authority, connect, listener, pem};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{ALL_VERSIONS, ProtocolVersion};

/// Publishes and waits until it is on disk.
async fn publish(client: &mut Client, payload: &str) {
    client.publish("a/b", payload, 1, 1).await;
    assert_eq!(client.expect(0x40, 1).await, 0);
}

/// The node closes without a word of MQTT.
async fn expect_turned_away(mut client: Client) {
    assert!(client.expect_closed().await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_tls_versions_carry_both_mqtt_versions() {
    let authority = Authority::new();
    authority.issue("node", 4000);
    let layer = authority.layer("node");
    let node = Node::start_with(|config| config.listeners.push(listener(Some(layer)))).await;
    for (offered, spoken) in [
        (&TLS12, ProtocolVersion::TLSv1_2),
        (&TLS13, ProtocolVersion::TLSv1_3),
    ] {
        for hello in [Hello::v4("a"), Hello::v5("a")] {
            let stream = connect(node.tcp(1), authority.config(&[offered], None)).await;
            assert_eq!(stream.get_ref().1.protocol_version(), Some(spoken));
            let mut client = Client::greet(stream, &hello).await;
            assert_eq!(client.subscribe("a/#", 1).await, 1);
            // Several TLS records, and several reads.
            let payload = "x".repeat(100_000);
            publish(&mut client, &payload).await;
            assert_eq!(client.got().await.payload, payload);
            client.leave().await;
        }
    }
    let mut plain = Client::connect(&node, &Hello::v4("b")).await;
    publish(&mut plain, "plain").await;
    assert_eq!(node.payloads("default").len(), 5);
    let listeners = node.status().listeners;
    assert_eq!(listeners[1].transport, "tls");
    assert_eq!(listeners[1].connections_total, 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn alpn_is_agreed_on_where_it_can_be() {
    let authority = Authority::new();
    authority.issue("node", 4000);
    let layer = authority.layer("node");
    let node = Node::start_with(|config| config.listeners.push(listener(Some(layer)))).await;
    for (offers, agreed) in [
        (vec!["http/1.1", "mqtt"], Some(&b"mqtt"[..])),
        (vec!["http/1.1"], None),
        (vec![], None),
    ] {
        let mut config = authority.config(ALL_VERSIONS, None);
        config.alpn_protocols = offers.into_iter().map(|offer| offer.into()).collect();
        let stream = connect(node.tcp(1), config).await;
        assert_eq!(stream.get_ref().1.alpn_protocol(), agreed);
        Client::greet(stream, &Hello::v5("a")).await.leave().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn client_certificates_are_proven() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    authority.issue("node", 4000);
    authority.issue("device", 4000);
    authority.issue("expired", 2024);
    authority.issue("revoked", 4000);
    authority.revoke("revoked");
    stranger.issue("device", 4000);
    let mut layers = [authority.layer("node"), authority.layer("node")];
    layers[0].clients = authority.clients(true);
    layers[1].clients = authority.clients(false);
    if let Some(clients) = &mut layers[0].clients {
        clients.crl_file = Some(authority.file("crl.pem"));
    }
    let node = Node::start_with(|config| {
        config
            .listeners
            .extend(layers.map(|layer| listener(Some(layer))));
    })
    .await;
    let (required, optional) = (1, 2);
    let mut turned_away = 0;
    for version in [&TLS12, &TLS13] {
        // A client that proves itself with another authority's certificate still trusts ours.
        let mut forged = authority.config(&[version], None);
        forged.client_auth_cert_resolver = stranger
            .config(&[version], Some("device"))
            .client_auth_cert_resolver;
        let mine = |name| authority.config(&[version], name);
        for (listener, config, refused) in [
            (required, mine(Some("device")), None),
            (required, mine(None), Some("tls_no_certificate")),
            (required, forged.clone(), Some("tls_certificate_refused")),
            (
                required,
                mine(Some("expired")),
                Some("tls_certificate_expired"),
            ),
            (
                required,
                mine(Some("revoked")),
                Some("tls_certificate_revoked"),
            ),
            (optional, mine(Some("device")), None),
            (optional, mine(None), None),
            (optional, forged.clone(), Some("tls_certificate_refused")),
        ] {
            let rounds = if *version == TLS12 { 1 } else { 2 };
            let socket = TcpStream::connect(node.tcp(listener)).await.unwrap();
            let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config));
            let name = "localhost".try_into().unwrap();
            let connected = connector.connect(name, socket).await;
            let Some(reason) = refused else {
                let mut client = Client::greet(connected.unwrap(), &Hello::v5("a")).await;
                publish(&mut client, "proven").await;
                client.leave().await;
                continue;
            };
            turned_away += 1;
            // In TLS 1.3 the client is through before it is judged.
            if let Ok(stream) = connected {
                let mut client = Client::over(stream, 5);
                client.send(&Hello::v5("a").bytes()).await;
                expect_turned_away(client).await;
            }
            node.until_turned_away(listener, reason, rounds).await;
        }
    }
    assert_eq!(node.payloads("default").len(), 6);
    let refused = node.status().connections_refused_total;
    assert_eq!(refused.values().sum::<u64>(), turned_away);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_certificate_is_taken_up_and_a_broken_one_is_told_of() {
    let authority = Authority::new();
    authority.issue("node", 3000);
    let layer = authority.layer("node");
    let (cert_file, key_file) = (layer.cert_file.clone(), layer.key_file.clone());
    let node = Node::start_with(|config| config.listeners.push(listener(Some(layer)))).await;
    let first = pem(&cert_file);
    let seen = |stream: &tokio_rustls::client::TlsStream<TcpStream>| {
        stream.get_ref().1.peer_certificates().unwrap()[0].clone()
    };
    let stream = authority.connect(node.tcp(1)).await;
    assert_eq!(seen(&stream), first);
    let mut old = Client::greet(stream, &Hello::v5("old")).await;

    let certificate = |status: &skerry_broker::Snapshot| {
        status.listeners[1].certificate.clone().expect("it has TLS")
    };
    let days_left = certificate(&node.status()).days_left.expect("in use");
    authority.issue("node", 4000);
    node.until("the new certificate", |status| {
        certificate(status).days_left > Some(days_left)
    })
    .await;
    let second = pem(&cert_file);
    assert_eq!(seen(&authority.connect(node.tcp(1)).await), second);
    publish(&mut old, "over the old certificate").await;

    authority.issue("other", 4000);
    fs::copy(authority.file("other.key"), &key_file).unwrap();
    node.until("the mismatch", |status| {
        let error = certificate(status).error.unwrap_or_default();
        error.contains("does not belong") && error.contains(&key_file.display().to_string())
    })
    .await;
    fs::write(&cert_file, "-----BEGIN CERTIFICATE-----\nhalf").unwrap();
    node.until("the broken file", |status| {
        certificate(status)
            .error
            .is_some_and(|error| error.contains("is not PEM"))
    })
    .await;
    assert!(!certificate(&node.status()).current);
    assert_eq!(seen(&authority.connect(node.tcp(1)).await), second);

    authority.issue("node", 3500);
    node.until("the mended files", |status| certificate(status).current)
        .await;
    let third = pem(&cert_file);
    assert_eq!(seen(&authority.connect(node.tcp(1)).await), third);
    publish(&mut old, "still").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_without_a_certificate_starts_and_serves_once_there_is_one() {
    let authority = Authority::new();
    let layer = authority.layer("node");
    let node = Node::start_with(|config| config.listeners.push(listener(Some(layer)))).await;
    let mut plain = Client::connect(&node, &Hello::v4("plain")).await;
    publish(&mut plain, "meanwhile").await;
    expect_turned_away(Client::over(
        TcpStream::connect(node.tcp(1)).await.unwrap(),
        4,
    ))
    .await;
    node.until_turned_away(1, "tls_files", 1).await;
    let certificate = node.status().listeners[1]
        .certificate
        .clone()
        .expect("it has TLS");
    assert_eq!((certificate.days_left, certificate.current), (None, false));
    authority.issue("node", 4000);
    node.until("the certificate", |status| {
        status.listeners[1]
            .certificate
            .as_ref()
            .is_some_and(|it| it.current)
    })
    .await;
    let stream = authority.connect(node.tcp(1)).await;
    Client::greet(stream, &Hello::v5("a")).await.leave().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handshake_that_drags_on_holds_up_nobody_and_ends_in_time() {
    let authority = Authority::new();
    authority.issue("node", 4000);
    let layer = authority.layer("node");
    let connect_timeout = Duration::from_millis(1500);
    let node = Node::start_with(|config| {
        config.listeners.push(listener(Some(layer)));
        config.listeners.push(Listener {
            websocket: Some(skerry_broker::WebSocket::default()),
            ..listener(None)
        });
        config.connect_timeout = connect_timeout;
        config.connections_max = 6;
    })
    .await;
    let start = Instant::now();
    let mut slow = Vec::new();
    for (listener, bytes) in [
        (0, &b"\x10\x20"[..]),
        (1, b"\x16\x03\x01\x02\x00\x01"),
        (2, b"GET /mqtt HTTP/1.1\r\nHost: "),
        (1, b""),
    ] {
        let mut socket = TcpStream::connect(node.tcp(listener)).await.unwrap();
        socket.write_all(bytes).await.unwrap();
        slow.push(socket);
    }
    let stream = authority.connect(node.tcp(1)).await;
    let tls = Client::greet(stream, &Hello::v5("a")).await;
    let plain = Client::connect(&node, &Hello::v5("b")).await;
    assert!(start.elapsed() < connect_timeout, "{:?}", start.elapsed());
    // Handshakes count as connections: a seventh is one too many.
    let seventh = TcpStream::connect(node.tcp(2)).await.unwrap();
    expect_turned_away(Client::over(seventh, 5)).await;
    assert!(start.elapsed() < connect_timeout, "{:?}", start.elapsed());
    for (number, mut socket) in slow.into_iter().enumerate() {
        // A byte now and then changes nothing; to the silent one it would be no TLS.
        if number < 3 {
            let _ = socket.write_all(b"a").await;
        }
        let mut rest = Vec::new();
        let closed = timeout(PATIENCE, socket.read_to_end(&mut rest)).await;
        assert!(closed.is_ok(), "still open");
    }
    assert!(
        start.elapsed() < 3 * connect_timeout,
        "{:?}",
        start.elapsed()
    );
    node.until("three ends", |status| {
        status.connections_refused_total.get("handshake_timeout") == Some(&3)
    })
    .await;
    let refused = node.status().connections_refused_total;
    assert_eq!(refused.get("connect_timeout"), Some(&1), "{refused:?}");
    assert_eq!(refused.get("connections_max"), Some(&1), "{refused:?}");
    tls.leave().await;
    plain.leave().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_wrong_protocol_is_counted_by_what_it_is() {
    let authority = Authority::new();
    authority.issue("node", 4000);
    let layer = authority.layer("node");
    let node = Node::start_with(|config| {
        config.listeners.push(listener(Some(layer)));
        config.listeners.push(Listener {
            websocket: Some(skerry_broker::WebSocket::default()),
            ..listener(None)
        });
    })
    .await;
    let mqtt = Hello::v4("a").bytes();
    let tls = b"\x16\x03\x01\x00\x05hello";
    let http = b"GET / HTTP/1.1\r\n\r\n";
    for (listener, bytes, reason) in [
        (0, &tls[..], "tls_on_plain_port"),
        (0, &http[..], "http_on_mqtt_port"),
        (1, &mqtt[..], "not_tls_on_tls_port"),
        (2, &tls[..], "tls_on_plain_port"),
        (2, &mqtt[..], "mqtt_on_websocket_port"),
    ] {
        let mut socket = TcpStream::connect(node.tcp(listener)).await.unwrap();
        socket.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        let _ = timeout(PATIENCE, socket.read_to_end(&mut answer))
            .await
            .unwrap();
        // TLS has an alert for it.
        assert!(answer.is_empty() || answer[0] == 0x15, "{answer:x?}");
        node.until_turned_away(listener, reason, 1).await;
    }
    // A port scan: connects and goes.
    for listener in 0..3 {
        drop(TcpStream::connect(node.tcp(listener)).await.unwrap());
    }
    node.until_turned_away(1, "closed_in_handshake", 1).await;
    node.until_turned_away(2, "closed_in_handshake", 1).await;
    let mut client = Client::connect(&node, &Hello::v4("a")).await;
    publish(&mut client, "well").await;
}

fn unix(path: &std::path::Path) -> Listener {
    Listener::at(Address::Unix(UnixSocket {
        path: path.to_owned(),
        mode: 0o640,
    }))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_unix_socket_comes_and_goes_with_the_node() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mqtt.sock");
    // What a node leaves behind that was killed.
    drop(UnixListener::bind(&path).unwrap());
    let node = Node::start_with(|config| config.listeners.push(unix(&path))).await;
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o640);
    for hello in [Hello::v4("a"), Hello::v5("a")] {
        let stream = UnixStream::connect(&path).await.unwrap();
        let mut client = Client::greet(stream, &hello).await;
        client.subscribe("a/#", 0).await;
        publish(&mut client, "local").await;
        assert_eq!(client.got().await.payload, "local");
        client.leave().await;
    }
    let config = Config::on(vec![unix(&path)], common::stream("default"));
    let refused = Broker::bind(config).await.unwrap_err();
    assert!(
        matches!(&refused, Error::Bind { source, .. } if source.kind() == std::io::ErrorKind::AddrInUse),
        "{refused}"
    );
    assert!(
        refused.to_string().contains(&path.display().to_string()),
        "{refused}"
    );
    UnixStream::connect(&path)
        .await
        .expect("the node still listens");
    node.stop().await;
    assert!(!path.exists());

    fs::write(&path, "mine").unwrap();
    let config = Config::on(vec![unix(&path)], common::stream("default"));
    let refused = Broker::bind(config).await.unwrap_err().to_string();
    assert!(refused.contains("no socket"), "{refused}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
}
