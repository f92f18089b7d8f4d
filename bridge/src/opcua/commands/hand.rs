//! One order from beginning to end.

use super::order::{Order, Stale};
use super::report::{Deed, Outcome};
use super::wish::{Hindrance, Ready, Wish};
use super::{Current, Desk, Told};
use crate::opcua::error::Error;
use crate::opcua::ingest::Taken;
use crate::opcua::wire::Session;
use serde_json::Value as Json;
use std::sync::Arc;
use std::time::Duration;

/// After a connection broke, until the link has noticed too.
const BROKEN_WAIT: Duration = Duration::from_millis(200);

/// What asking the server comes to.
enum Asked {
    Ready(Arc<Session>, Ready),
    Settled(Outcome, Deed),
    Stopped,
}

impl Desk {
    pub(super) async fn carry_out(&mut self, order: Order) -> Result<Taken, Error> {
        let is_done = order.offset < self.entries[order.command].next;
        let is_cleared = order.retained && order.payload.is_empty();
        if is_done || is_cleared {
            return Ok(Taken::Durable);
        }
        let commands = Arc::clone(&self.commands);
        let command = &commands[order.command];
        let (wish, id) = match Wish::parse(&command.action, &order.payload) {
            Ok(parsed) => parsed,
            Err(why) => {
                let refused = Outcome::Refused(why.to_string());
                return self
                    .tell(told(&order, None), &refused, &Deed::default())
                    .await;
            }
        };
        let (session, ready) = match self.ask(&order, &wish).await {
            Asked::Ready(session, ready) => (session, ready),
            Asked::Settled(outcome, deed) => {
                return self.tell(told(&order, id), &outcome, &deed).await;
            }
            // It is not passed: the next run finds it, and looks at its age.
            Asked::Stopped => return Ok(Taken::Stopped),
        };
        let about_to = self.tell(told(&order, id.clone()), &Outcome::Sending, &ready.deed);
        if about_to.await? == Taken::Stopped {
            return Ok(Taken::Stopped);
        }
        // The log may have made us wait.
        let outcome = match order.deadline(command.max_age) {
            Err(stale) => Outcome::Refused(stale.to_string()),
            Ok(_) if session.ended() => {
                Outcome::Refused("the connection broke before it was sent".to_owned())
            }
            Ok(_) => ready.send(&session).await,
        };
        self.tell(told(&order, id), &outcome, &ready.deed).await
    }

    /// Waits for the server, as long as the order may wait, and asks it what it takes.
    async fn ask(&mut self, order: &Order, wish: &Wish) -> Asked {
        let commands = Arc::clone(&self.commands);
        let command = &commands[order.command];
        let stop = self.stop.clone();
        let mut away: Option<String> = None;
        loop {
            let deadline = match order.deadline(command.max_age) {
                Ok(deadline) => deadline,
                Err(stale) => return Asked::Settled(refused(stale, away), Deed::default()),
            };
            let asking = async {
                let session = connected(&mut self.current).await;
                let ready = wish.prepare(&session, command).await;
                (session, ready)
            };
            let asked = tokio::select! {
                () = stop.cancelled() => return Asked::Stopped,
                () = tokio::time::sleep_until(deadline) => {
                    away.get_or_insert_with(|| "there is no connection to the server".to_owned());
                    continue;
                }
                asked = asking => asked,
            };
            match asked {
                (session, Ok(ready)) => return Asked::Ready(session, ready),
                (_, Err(Hindrance::Settled(outcome, deed))) => {
                    return Asked::Settled(outcome, deed);
                }
                (_, Err(Hindrance::Connection(error))) => {
                    away = Some(error.to_string());
                    tokio::time::sleep(BROKEN_WAIT).await;
                }
            }
        }
    }
}

/// The link's session, as soon as it has one.
async fn connected(current: &mut Current) -> Arc<Session> {
    loop {
        let session = current.borrow_and_update().clone();
        if let Some(session) = session.filter(|session| !session.ended()) {
            return session;
        }
        if current.changed().await.is_err() {
            // The link has ended, and with it whoever waits for it.
            std::future::pending::<()>().await;
        }
    }
}

fn refused(stale: Stale, away: Option<String>) -> Outcome {
    Outcome::Refused(match (stale, away) {
        (Stale::Old(_), Some(away)) => format!("{stale}: {away}"),
        _ => stale.to_string(),
    })
}

fn told(order: &Order, id: Option<Json>) -> Told<'_> {
    Told {
        index: order.command,
        offset: order.offset,
        id,
        order: Some(order),
        reply: order.reply.clone(),
    }
}
