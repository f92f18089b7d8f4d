//! Logins for the gate. The only file that names `getrandom`.

use super::queue::{Lane, Priority};
use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::io;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Enough that nobody guesses.
const SECRET_BYTES: usize = 16;

/// What a Kafka client is given to get through: a SOCKS5 proxy and the login there. Not good any
/// more once dropped; connections that are open stay.
pub struct Ticket {
    pub address: SocketAddr,
    pub user: String,
    pub password: String,
    tickets: Arc<Tickets>,
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ticket({} at {})", self.user, self.address)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.tickets.lock().logins.remove(self.user.as_bytes());
    }
}

#[derive(Debug, Default)]
pub(super) struct Tickets {
    issued: Mutex<Issued>,
}

#[derive(Default)]
struct Issued {
    logins: BTreeMap<Vec<u8>, (String, Lane)>,
    count: u64,
}

impl fmt::Debug for Issued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} logins", self.logins.len())
    }
}

impl Tickets {
    pub(super) fn issue(
        tickets: &Arc<Self>,
        address: SocketAddr,
        priority: Priority,
        weight: NonZeroU32,
    ) -> io::Result<Ticket> {
        let mut secret = [0; SECRET_BYTES];
        getrandom::fill(&mut secret).map_err(io::Error::other)?;
        let password = secret.iter().fold(String::new(), |mut text, byte| {
            write!(text, "{byte:02x}").expect("a String takes every write");
            text
        });
        let mut issued = tickets.lock();
        issued.count += 1;
        let id = issued.count;
        let user = format!("lane-{id}");
        let lane = Lane {
            id,
            priority,
            weight,
        };
        let login = (password.clone(), lane);
        issued.logins.insert(user.clone().into_bytes(), login);
        Ok(Ticket {
            address,
            user,
            password,
            tickets: Arc::clone(tickets),
        })
    }

    /// Whose login it is. Takes as long for a wrong password that begins right as for another.
    pub(super) fn lane(&self, user: &[u8], password: &[u8]) -> Option<Lane> {
        let issued = self.lock();
        let (secret, lane) = issued.logins.get(user)?;
        let pairs = secret.bytes().zip(password);
        let different = pairs.fold(0, |sum, (wanted, given)| sum | (wanted ^ given));
        (different == 0 && password.len() == secret.len()).then_some(*lane)
    }

    fn lock(&self) -> MutexGuard<'_, Issued> {
        self.issued.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
