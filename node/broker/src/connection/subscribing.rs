//! SUBSCRIBE and UNSUBSCRIBE. In a lasting session they are answered once they are on disk.

use super::Connection;
use crate::backlog::OwedRetained;
use crate::codec::{
    Outgoing, PacketId, RetainHandling, Subscribe, SubscribeOptions, Unsubscribe, Version, reason,
};
use crate::config::SUBSCRIPTIONS_MAX;
use crate::saved;
use crate::shared;
use crate::topic::TopicFilter;
use crate::uncommitted::{Owed, OwedSubAck};
use skerry_store::{Append, Change, StreamName};
use std::sync::Arc;

/// SUBACK failure in 3.1.1.
const FAILURE_V311: u8 = 0x80;

/// A filter that may be subscribed to.
struct Checked {
    filter: TopicFilter,
    shared: bool,
}

impl Connection {
    pub(super) fn subscribe(&mut self, subscribe: Subscribe) {
        let mut changes = Vec::new();
        let mut suback = OwedSubAck {
            id: subscribe.id,
            codes: Vec::with_capacity(subscribe.filters.len()),
            retained: Vec::new(),
            new: Vec::new(),
        };
        for (text, options) in subscribe.filters {
            match self.check_filter(&text) {
                Ok(checked) => {
                    let identifier = subscribe.subscription_id;
                    let change =
                        self.subscribe_one(&text, checked, options, identifier, &mut suback);
                    changes.push(change);
                    suback.codes.push(options.qos as u8);
                }
                Err(code) => suback.codes.push(self.failure(code)),
            }
        }
        self.subscriptions_changed();
        if self.agreed.is_lasting() && !changes.is_empty() {
            self.note(changes, Owed::Subscribed(suback));
        } else {
            self.settle_subscribed(suback, Ok(()));
        }
    }

    fn check_filter(&self, text: &str) -> Result<Checked, u8> {
        if self.seat.subscriptions() >= SUBSCRIPTIONS_MAX {
            return Err(reason::QUOTA_EXCEEDED);
        }
        match shared::filter_of(text) {
            Ok((filter, shared)) if self.access.may_subscribe(&filter) => {
                Ok(Checked { filter, shared })
            }
            // Which of its filters exist for others is not this client's to know.
            Ok(_) => Err(reason::UNSPECIFIED),
            Err(_) => Err(reason::FILTER_INVALID),
        }
    }

    fn failure(&self, code: u8) -> u8 {
        match self.agreed.version {
            Version::V311 => FAILURE_V311,
            Version::V5 => code,
        }
    }

    fn subscribe_one(
        &mut self,
        text: &str,
        checked: Checked,
        options: SubscribeOptions,
        identifier: Option<u32>,
        suback: &mut OwedSubAck,
    ) -> Change {
        let retained = &self.ingest.retained;
        let subscribed = self.seat.subscribe(
            text,
            checked.filter,
            checked.shared,
            options,
            identifier,
            retained,
        );
        let wants_retained = match options.retain_handling {
            RetainHandling::Always => true,
            RetainHandling::IfNew => subscribed.new,
            RetainHandling::Never => false,
        };
        if wants_retained {
            let owed = subscribed.retained.into_iter().map(|topic| OwedRetained {
                topic,
                options,
                identifier,
            });
            suback.retained.extend(owed);
        }
        if subscribed.new {
            suback.new.push(Arc::from(text));
        }
        let streams = &self.ingest.streams;
        saved::subscription(&self.agreed.client_id, text, &subscribed.wanted, streams)
    }

    pub(super) fn settle_subscribed(
        &mut self,
        mut suback: OwedSubAck,
        result: Result<(), skerry_store::Error>,
    ) {
        if let Err(error) = result {
            let refusal = self.ingest.refusal(&error);
            self.ingest.status.refused.up(refusal.word());
            let code = self.failure(refusal.reason());
            suback
                .codes
                .iter_mut()
                .for_each(|held| *held = code.max(*held));
            suback.retained.clear();
            for text in &suback.new {
                self.seat.unsubscribe(text);
            }
            self.subscriptions_changed();
        }
        self.send(&Outgoing::SubAck {
            id: suback.id,
            codes: suback.codes,
        });
        self.backlog.owe(suback.retained);
    }

    pub(super) fn unsubscribe(&mut self, unsubscribe: Unsubscribe) {
        let mut changes = Vec::new();
        let mut codes = Vec::with_capacity(unsubscribe.filters.len());
        for text in &unsubscribe.filters {
            codes.push(match self.seat.unsubscribe(text) {
                Some(forgotten) => {
                    changes.extend(forgotten);
                    0
                }
                None => reason::NO_SUBSCRIPTION_EXISTED,
            });
        }
        self.subscriptions_changed();
        let id = unsubscribe.id;
        if self.agreed.is_lasting() && !changes.is_empty() {
            self.note(changes, Owed::UnsubAck { id, codes });
        } else {
            self.settle_unsubscribed(id, codes, Ok(()));
        }
    }

    /// An UNSUBSCRIBE that is not on disk holds for this connection; after a restart the filter
    /// would be back. Version 5 can be told.
    pub(super) fn settle_unsubscribed(
        &mut self,
        id: PacketId,
        mut codes: Vec<u8>,
        result: Result<(), skerry_store::Error>,
    ) {
        if let Err(error) = result {
            let refusal = self.ingest.refusal(&error);
            self.ingest.status.refused.up(refusal.word());
            codes.iter_mut().for_each(|code| *code = refusal.reason());
        }
        self.send(&Outgoing::UnsubAck { id, codes });
    }

    pub(super) fn subscriptions_changed(&mut self) {
        self.no_local = self.seat.has_no_local();
        self.shared = self.seat.shared();
    }

    /// Changes of the catalog, and what to do once they are on disk.
    pub(super) fn note(&mut self, changes: Vec<Change>, owed: Owed) {
        let append = Append {
            stream: StreamName::catalog(),
            records: Vec::new(),
            changes,
        };
        self.uncommitted.submit(&self.ingest.log, append, owed);
    }
}
