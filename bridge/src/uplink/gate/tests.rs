//! The gate as its users have it: real sockets on loopback, a stand-in for the broker.

mod caps;
mod ends;
mod namespace;
mod proxies;
mod real_proxies;

use super::socks::{self, Host, Target};
use super::*;
use std::time::Instant;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A gate with a class that a test may change.
struct World {
    settings: watch::Sender<Arc<LinkSettings>>,
    ledger: Arc<Ledger>,
    gate: Gate,
}

impl World {
    fn new(class: LinkClass) -> Self {
        let why = Why::Default;
        let settings = watch::Sender::new(Arc::new(LinkSettings { class, why }));
        let ledger = Arc::new(Ledger::new(Usages::default()));
        let gate = Gate::open(settings.subscribe(), Arc::clone(&ledger)).unwrap();
        Self {
            settings,
            ledger,
            gate,
        }
    }

    fn ticket(&self, priority: u8, weight: u32) -> Ticket {
        let weight = NonZeroU32::new(weight).unwrap();
        self.gate.ticket(Priority(priority), weight).unwrap()
    }

    fn set(&self, change: impl FnOnce(&mut LinkClass)) {
        self.settings
            .send_modify(|settings| change(&mut Arc::make_mut(settings).class));
    }

    fn snapshot(&self) -> Snapshot {
        self.ledger.snapshot(UnixSeconds::now())
    }
}

/// Through the gate to `port` on loopback.
async fn through(ticket: &Ticket, port: u16) -> Result<TcpStream, String> {
    let login = (ticket.user.as_str(), ticket.password.as_str());
    through_as(ticket.address, login, port).await
}

async fn through_as(gate: SocketAddr, login: (&str, &str), port: u16) -> Result<TcpStream, String> {
    let mut stream = TcpStream::connect(gate).await.unwrap();
    let host = Host::Address(Ipv4Addr::LOCALHOST.into());
    let asked = socks::connect(&mut stream, &Target { host, port }, Some(login)).await;
    asked.map(|()| stream).map_err(|why| why.to_string())
}

/// A broker's port, and what connects to it.
async fn broker() -> (TcpListener, u16) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

/// A connection from its client's end to its broker's.
async fn connection(ticket: &Ticket) -> (TcpStream, TcpStream) {
    let (listener, port) = broker().await;
    let (near, far) = tokio::join!(through(ticket, port), listener.accept());
    (near.unwrap(), far.unwrap().0)
}

/// Bytes that are different wherever they are.
fn pattern(bytes: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    (0..bytes).map(|_| next().to_le_bytes()[0]).collect()
}

#[tokio::test]
async fn every_byte_arrives_both_ways_and_each_side_may_end_first() {
    let world = World::new(LinkClass::new("harbour"));
    let (mut near, mut far) = connection(&world.ticket(1, 1)).await;
    let (request, answer) = (pattern(3_000_001), pattern(2_000_003));
    let client = async {
        let (mut read, mut write) = near.split();
        let sent = async {
            write.write_all(&request).await.unwrap();
            write.shutdown().await.unwrap();
        };
        let mut heard = Vec::new();
        let (received, ()) = tokio::join!(read.read_to_end(&mut heard), sent);
        received.unwrap();
        heard
    };
    let server = async {
        let mut heard = Vec::new();
        far.read_to_end(&mut heard).await.unwrap();
        // Only after the client has said that it is done.
        far.write_all(&answer).await.unwrap();
        far.shutdown().await.unwrap();
        heard
    };
    let (received, asked) = tokio::join!(client, server);
    assert!(asked == request && received == answer);
    let snapshot = world.snapshot();
    let (sent, got) = (snapshot.sent_bytes_total, snapshot.received_bytes_total);
    let (least_sent, least_got) = (request.len() as u64, answer.len() as u64);
    assert!((least_sent..least_sent * 21 / 20).contains(&sent), "{sent}");
    assert!((least_got..least_got * 21 / 20).contains(&got), "{got}");
}

#[tokio::test]
async fn a_broken_side_breaks_the_other() {
    let world = World::new(LinkClass::new("harbour"));
    let ticket = world.ticket(1, 1);
    let (mut near, far) = connection(&ticket).await;
    far.set_zero_linger().unwrap();
    drop(far);
    let error = near.read_u8().await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    let (near, mut far) = connection(&ticket).await;
    near.set_zero_linger().unwrap();
    drop(near);
    let error = far.read_u8().await.unwrap_err();
    let gone = [io::ErrorKind::ConnectionReset, io::ErrorKind::UnexpectedEof];
    assert!(gone.contains(&error.kind()), "{error}");
}

#[tokio::test]
async fn only_a_ticket_that_is_held_gets_through() {
    let world = World::new(LinkClass::new("harbour"));
    let (_listener, port) = broker().await;
    let ticket = world.ticket(1, 1);
    let (user, password) = (ticket.user.clone(), ticket.password.clone());
    assert!(through(&ticket, port).await.is_ok());
    assert!(!format!("{ticket:?}").contains(&password));
    // The beginning of a password is not the whole.
    for guess in ["guess", &password[..31], &format!("{password}0")] {
        let gate = ticket.address;
        let why = through_as(gate, (&user, guess), port).await.unwrap_err();
        assert!(why.contains("does not know the user"), "{why}");
    }
    let gate = ticket.address;
    drop(ticket);
    assert!(through_as(gate, (&user, &password), port).await.is_err());
}
