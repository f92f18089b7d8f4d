//! What the server says of our nodes, learned before their values come.

use super::error::Error;
use super::ingest::Taken;
use super::link::Link;
use super::wire::Session;
use futures_util::future::BoxFuture;
use std::convert::Infallible;

impl Link {
    /// Gives `learning` a head start. A subscription that is carried on was made in another
    /// session: this one has to be told of its nodes.
    pub(super) async fn learn_first(
        &self,
        session: &Session,
        learning: &mut BoxFuture<'_, Infallible>,
    ) -> Result<Taken, Error> {
        if !session.knows_variables() {
            let all: Vec<u32> = (0..).take(self.ingest.config.nodes.len()).collect();
            let (items, _) = self.items(session, &all).await?;
            session.want(&items);
        }
        tokio::select! {
            () = self.ingest.stop.cancelled() => Ok(Taken::Stopped),
            () = session.learn_first(learning) => Ok(Taken::Durable),
        }
    }
}
