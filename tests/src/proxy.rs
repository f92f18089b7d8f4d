//! A TCP proxy on loopback that can be cut, stalled and slowed, and that counts what it carries.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::ports;

/// What the link does with bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// Everything passes, this much later, and no faster than this where it says so.
    Up {
        delay: Duration,
        bytes_per_second: Option<u32>,
    },
    /// Connections stay open and nothing passes: a black hole.
    Stalled,
    /// The same, and for good: what is sent is lost, and connections that were there stay dead when
    /// the link is up again, without a word to either side. So does a switch that was restarted.
    Lossy,
    /// Connections are reset and refused.
    Cut,
}

/// Bytes that are sent in one go: few, so that connections share a slow link.
const CHUNK: usize = 4 * 1024;
/// Chunks of one direction of a connection that may be under way.
const FLIGHT_MAX: usize = 1024;

/// Payload bytes that the link has carried since the proxy began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Carried {
    /// To the target.
    pub there: u64,
    /// To the clients.
    pub back: u64,
}

struct Shared {
    link: Link,
    carried: [u64; 2],
    asked: Vec<Instant>,
    /// Until when each direction is busy with what was sent before.
    busy: [Instant; 2],
    open: Vec<TcpStream>,
    /// Connections so far, and how many of the first of them are dead.
    connections: u64,
    dead: u64,
    closing: bool,
}

pub struct Proxy {
    port: u16,
    shared: Arc<Mutex<Shared>>,
}

impl Link {
    /// A good one.
    pub const GOOD: Self = Self::Up {
        delay: Duration::ZERO,
        bytes_per_second: None,
    };

    /// One with a long way to go: `delay` there, and as much back.
    #[must_use]
    pub const fn slow(delay: Duration, bits_per_second: u32) -> Self {
        Self::Up {
            delay,
            bytes_per_second: Some(bits_per_second / 8),
        }
    }
}

impl Proxy {
    /// Forwards a free loopback port to `target` on loopback.
    pub fn start(target: u16) -> Result<Self> {
        Self::start_on(ports::free()?, target)
    }

    pub fn start_on(port: u16, target: u16) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
        let shared = Arc::new(Mutex::new(Shared {
            link: Link::GOOD,
            carried: [0; 2],
            asked: Vec::new(),
            busy: [Instant::now(); 2],
            open: Vec::new(),
            connections: 0,
            dead: 0,
            closing: false,
        }));
        let accepting = Arc::clone(&shared);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                {
                    let mut shared = lock(&accepting);
                    if shared.closing {
                        return;
                    }
                    shared.asked.push(Instant::now());
                }
                connect(&accepting, client, target);
            }
        });
        Ok(Self { port, shared })
    }

    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    #[must_use]
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub fn set(&self, link: Link) {
        let mut shared = lock(&self.shared);
        if shared.link == Link::Lossy {
            shared.dead = shared.connections;
        }
        shared.link = link;
        if link == Link::Cut {
            hang_up(&mut shared);
        }
    }

    #[must_use]
    pub fn carried(&self) -> Carried {
        let [there, back] = lock(&self.shared).carried;
        Carried { there, back }
    }

    /// When each connection was asked for, those that a cut link refused included.
    #[must_use]
    pub fn asked(&self) -> Vec<Instant> {
        lock(&self.shared).asked.clone()
    }

    pub fn cut(&self) {
        self.set(Link::Cut);
    }

    pub fn restore(&self) {
        self.set(Link::GOOD);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        {
            let mut shared = lock(&self.shared);
            shared.closing = true;
            hang_up(&mut shared);
        }
        // Wakes the accepting thread so that it sees `closing`.
        drop(TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)));
    }
}

fn connect(shared: &Arc<Mutex<Shared>>, client: TcpStream, target: u16) {
    if lock(shared).link == Link::Cut {
        return;
    }
    let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, target)) else {
        return;
    };
    let (Ok(client_too), Ok(server_too)) = (client.try_clone(), server.try_clone()) else {
        return;
    };
    // Small packets are passed on as they come.
    drop((client.set_nodelay(true), server.set_nodelay(true)));
    let number = {
        let mut shared = lock(shared);
        shared.open.extend(
            [&client, &server]
                .into_iter()
                .flat_map(TcpStream::try_clone),
        );
        shared.connections += 1;
        shared.connections
    };
    for (direction, (from, to)) in [(client, server_too), (server, client_too)]
        .into_iter()
        .enumerate()
    {
        let shared = Arc::clone(shared);
        thread::spawn(move || forward(&shared, number, direction, from, to));
    }
}

/// Bytes under way: when they arrive, and what they are.
type Flight = (Instant, Vec<u8>);

fn forward(
    shared: &Arc<Mutex<Shared>>,
    number: u64,
    direction: usize,
    mut from: TcpStream,
    to: TcpStream,
) {
    let (send, receive) = mpsc::sync_channel(FLIGHT_MAX);
    let Ok(landing) = to.try_clone() else { return };
    let landing_shared = Arc::clone(shared);
    let lands = thread::spawn(move || land(&landing_shared, &receive, landing));
    let mut buffer = [0; CHUNK];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        if is_lost(shared, number) {
            continue;
        }
        let Some(arrives) = pass(shared, direction, count) else {
            break;
        };
        if send.send((arrives, buffer[..count].to_vec())).is_err() {
            break;
        }
    }
    drop(send);
    if is_lost(shared, number) {
        // Nor does the other side learn that this one has gone.
        return;
    }
    // What was under way before the end still arrives, unless the link is cut.
    drop(lands.join());
    drop((from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both)));
}

/// Whether what is sent on this connection is lost.
fn is_lost(shared: &Mutex<Shared>, number: u64) -> bool {
    let shared = lock(shared);
    !shared.closing && (shared.link == Link::Lossy || number <= shared.dead)
}

fn land(shared: &Mutex<Shared>, flights: &mpsc::Receiver<Flight>, mut to: TcpStream) {
    for (arrives, bytes) in flights {
        thread::sleep(arrives.saturating_duration_since(Instant::now()));
        while lock(shared).link == Link::Stalled && !lock(shared).closing {
            thread::sleep(Duration::from_millis(20));
        }
        if lock(shared).link == Link::Cut || to.write_all(&bytes).is_err() {
            return;
        }
    }
}

/// Holds the bytes for as long as it takes to send them; then says when they arrive. `None` when
/// they are lost.
fn pass(shared: &Mutex<Shared>, direction: usize, count: usize) -> Option<Instant> {
    loop {
        let mut state = lock(shared);
        match state.link {
            _ if state.closing => return None,
            Link::Cut => return None,
            // Until a moment ago it was not; the bytes are the last to pass.
            Link::Lossy => return Some(Instant::now()),
            Link::Stalled => {
                drop(state);
                thread::sleep(Duration::from_millis(20));
            }
            Link::Up {
                delay,
                bytes_per_second,
            } => {
                let takes = bytes_per_second.map_or(Duration::ZERO, |rate| {
                    Duration::from_secs(1).mul_f64(count as f64 / f64::from(rate))
                });
                let sent = state.busy[direction].max(Instant::now()) + takes;
                state.busy[direction] = sent;
                state.carried[direction] += count as u64;
                drop(state);
                thread::sleep(sent.saturating_duration_since(Instant::now()));
                return Some(sent + delay);
            }
        }
    }
}

fn hang_up(shared: &mut Shared) {
    for stream in shared.open.drain(..) {
        drop(stream.shutdown(Shutdown::Both));
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared
        .lock()
        .expect("no thread panics while holding the link")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that sends every byte back.
    fn echo() -> u16 {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                thread::spawn(move || {
                    let mut byte = [0];
                    while stream.read_exact(&mut byte).is_ok() {
                        stream.write_all(&byte).unwrap();
                    }
                });
            }
        });
        port
    }

    fn ask(stream: &mut TcpStream) -> std::io::Result<u8> {
        stream.write_all(b"x")?;
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        Ok(byte[0])
    }

    #[test]
    fn passes_bytes_until_it_is_cut_and_again_when_restored() {
        let proxy = Proxy::start(echo()).unwrap();
        let mut first = TcpStream::connect(proxy.address()).unwrap();
        assert_eq!(ask(&mut first).unwrap(), b'x');
        proxy.cut();
        assert!(ask(&mut first).is_err());
        let refused = TcpStream::connect(proxy.address()).and_then(|mut stream| ask(&mut stream));
        assert!(refused.is_err());
        proxy.restore();
        assert_eq!(
            ask(&mut TcpStream::connect(proxy.address()).unwrap()).unwrap(),
            b'x'
        );
    }

    #[test]
    fn a_long_way_costs_time_once_and_a_narrow_one_for_every_byte() {
        let proxy = Proxy::start(echo()).unwrap();
        proxy.set(Link::slow(Duration::from_millis(100), 80_000));
        let mut stream = TcpStream::connect(proxy.address()).unwrap();
        let asked = Instant::now();
        // A second's worth there; the echo comes back while it is still being sent.
        let sent = vec![0; 10_000];
        stream.write_all(&sent).unwrap();
        let mut back = vec![0; sent.len()];
        stream.read_exact(&mut back).unwrap();
        let took = asked.elapsed();
        assert!(took >= Duration::from_millis(1_200), "{took:?}");
    }

    #[test]
    fn counts_bytes_each_way_and_who_asked_in_vain() {
        let proxy = Proxy::start(echo()).unwrap();
        let mut stream = TcpStream::connect(proxy.address()).unwrap();
        stream.write_all(&[7; 10]).unwrap();
        stream.read_exact(&mut [0; 10]).unwrap();
        let both_ways = Carried {
            there: 10,
            back: 10,
        };
        assert_eq!(proxy.carried(), both_ways);
        proxy.cut();
        let refused = TcpStream::connect(proxy.address()).and_then(|mut stream| ask(&mut stream));
        assert!(refused.is_err());
        assert_eq!(proxy.carried(), both_ways);
        assert_eq!(proxy.asked().len(), 2);
    }

    #[test]
    fn a_stalled_link_holds_bytes_and_delivers_them_later() {
        let proxy = Proxy::start(echo()).unwrap();
        let mut stream = TcpStream::connect(proxy.address()).unwrap();
        assert_eq!(ask(&mut stream).unwrap(), b'x');
        proxy.set(Link::Stalled);
        stream.write_all(b"y").unwrap();
        stream
            .set_read_timeout(Some(Duration::from_millis(200)))
            .unwrap();
        assert!(stream.read_exact(&mut [0]).is_err());
        proxy.restore();
        stream.set_read_timeout(None).unwrap();
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        assert_eq!(&byte, b"y");
    }

    #[test]
    fn a_lossy_link_leaves_its_connections_dead_and_new_ones_are_fine() {
        let proxy = Proxy::start(echo()).unwrap();
        let mut old = TcpStream::connect(proxy.address()).unwrap();
        assert_eq!(ask(&mut old).unwrap(), b'x');
        proxy.set(Link::Lossy);
        let timeout = Some(Duration::from_millis(200));
        old.set_read_timeout(timeout).unwrap();
        assert!(ask(&mut old).is_err());
        proxy.restore();
        assert!(ask(&mut old).is_err(), "it was lost for good");
        let mut new = TcpStream::connect(proxy.address()).unwrap();
        assert_eq!(ask(&mut new).unwrap(), b'x');
    }
}
