//! A TCP proxy on loopback that can be cut, stalled and slowed.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use anyhow::Result;

use crate::ports;

/// What the link does with bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// Everything passes, this much later.
    Up { delay: Duration },
    /// Connections stay open and nothing passes: a black hole.
    Stalled,
    /// Connections are reset and refused.
    Cut,
}

struct Shared {
    link: Link,
    open: Vec<TcpStream>,
    closing: bool,
}

pub struct Proxy {
    port: u16,
    shared: Arc<Mutex<Shared>>,
}

impl Proxy {
    /// Forwards a free loopback port to `target` on loopback.
    pub fn start(target: u16) -> Result<Self> {
        Self::start_on(ports::free()?, target)
    }

    pub fn start_on(port: u16, target: u16) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
        let link = Link::Up {
            delay: Duration::ZERO,
        };
        let shared = Arc::new(Mutex::new(Shared {
            link,
            open: Vec::new(),
            closing: false,
        }));
        let accepting = Arc::clone(&shared);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if lock(&accepting).closing {
                    return;
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
        shared.link = link;
        if link == Link::Cut {
            hang_up(&mut shared);
        }
    }

    pub fn cut(&self) {
        self.set(Link::Cut);
    }

    pub fn restore(&self) {
        self.set(Link::Up {
            delay: Duration::ZERO,
        });
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
    {
        let mut shared = lock(shared);
        shared.open.extend(
            [&client, &server]
                .into_iter()
                .flat_map(TcpStream::try_clone),
        );
    }
    for (from, to) in [(client, server_too), (server, client_too)] {
        let shared = Arc::clone(shared);
        thread::spawn(move || forward(&shared, from, to));
    }
}

fn forward(shared: &Mutex<Shared>, mut from: TcpStream, mut to: TcpStream) {
    let mut buffer = [0; 16 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        if !pass(shared) || to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    drop((from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both)));
}

/// Holds the bytes for as long as the link says; false when they are lost.
fn pass(shared: &Mutex<Shared>) -> bool {
    loop {
        let (link, closing) = {
            let shared = lock(shared);
            (shared.link, shared.closing)
        };
        match link {
            _ if closing => return false,
            Link::Cut => return false,
            Link::Stalled => thread::sleep(Duration::from_millis(20)),
            Link::Up { delay } => {
                thread::sleep(delay);
                return true;
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
}
