//! The publish loop of a connection: notification → log → acknowledgement, in that order.

use super::error::{Error, status};
use super::ingest::{APPEND_BYTES, AS_INITIAL, Draft, Taken};
use super::link::Link;
use super::pulse::{next_dead, next_look, stalled};
use super::sequence::{Arrival, Sequence};
use super::survey::Looks;
use super::watch::Verdict;
use super::wire::{Message, Publication, Session};
use futures_util::stream::{FuturesUnordered, StreamExt};
use skerry_store::WallNanos;
use std::time::Duration;
use tokio::time::Instant;

/// Messages without a value that a server is left to keep; the smallest keep about so many.
const UNTOLD_MAX: usize = 5;
/// How often nodes the server refused are asked for again.
pub(super) const BAD_RETRY: Duration = Duration::from_secs(10);

/// Why the loop ended without a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    Stopped,
    /// The server has ended the subscription, or forgotten it; the session still works.
    Lost(u32),
    /// The subscription brings nothing although the server lives.
    Mute,
}

/// Sequence numbers to acknowledge with the next request.
pub(super) type Acknowledgements = Vec<(u32, u32)>;

impl Link {
    pub(super) async fn flow(&mut self, session: &Session) -> Result<Ended, Error> {
        let stop = self.ingest.stop.clone();

        let mut learning = session.learning();
        if self.learn_first(session, &mut learning).await? == Taken::Stopped {
            return Ok(Ended::Stopped);
        }
        let mut acknowledgements = Acknowledgements::new();
        for strand in 0..self.strands.len() {
            if self.strands[strand].unproven == 0 {
                continue;
            }
            let caught_up = self.catch_up(session, strand, &mut acknowledgements);
            if caught_up.await? == Taken::Stopped {
                return Ok(Ended::Stopped);
            }
        }
        // One subscription's answers must not use up what another's wait for.
        let mut publishes = self.ingest.config.profile.publishes() + self.strands.len() - 1;
        // Answers come out in the order in which they came in: each wakes its future as it is
        // decoded, and futures are polled in the order they were woken.
        let mut waiting = FuturesUnordered::new();
        let mut retry_at = Instant::now() + BAD_RETRY;
        let mut pulses = self.pulses();
        let silences = pulses.iter().map(|pulse| pulse.silence_max);
        let patience = silences.max().unwrap_or_default().saturating_mul(3);
        let mut looks = Looks::new(session, &mut self.roster);
        self.late = None;
        let mut reading = FuturesUnordered::new();
        loop {
            let (dead_at, silence_max) = {
                let next = next_dead(&pulses);
                (next.dead_at, next.silence_max)
            };
            let (looked_at, look_at) = next_look(&pulses);
            while waiting.len() < publishes {
                let carried = std::mem::take(&mut acknowledgements);
                waiting.push(async move {
                    let answer = session.publish(&carried, patience).await;
                    (carried, answer)
                });
            }
            if reading.is_empty()
                && let Some(next) = self.next_reading(session).await?
            {
                reading.push(async move {
                    let answer = next.ask(session).await;
                    (next, answer)
                });
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(Ended::Stopped),
                Some((carried, answer)) = waiting.next() => match answer {
                    Ok(publication) => {
                        let before = Instant::now();
                        let strand = self.strand_of_subscription(publication.subscription);
                        let brings = publication.message.brings();
                        if let Some(strand) = strand
                            && std::mem::take(&mut pulses[strand].first)
                        {
                            acknowledgements.extend(self.leftovers(strand, &publication));
                        }
                        let step = self
                            .publication(session, strand, publication, &mut acknowledgements)
                            .await?;
                        if let Some(ended) = step {
                            return Ok(ended);
                        }
                        if self.going.refresh_due {
                            self.refresh_all(session).await;
                        }
                        stalled(&mut pulses, before);
                        if let Some(pulse) = strand.map(|strand| &mut pulses[strand]) {
                            let (clock, data) = brings;
                            pulse.watch.message(clock, data, Instant::now());
                        }
                        if self.release_lost(session, &mut looks).await? == Taken::Stopped {
                            return Ok(Ended::Stopped);
                        }
                        // Counted from here: a log that made us wait is no fault of the server.
                        if let Some(pulse) = strand.map(|strand| &mut pulses[strand]) {
                            pulse.beat();
                        }
                    }
                    Err(error) => {
                        acknowledgements.extend(carried);
                        match error.status() {
                            Some(status::BAD_TOO_MANY_PUBLISH_REQUESTS) if !waiting.is_empty() => {
                                publishes = waiting.len();
                            }
                            Some(status::BAD_TIMEOUT) if !session.ended() => {}
                            Some(
                                code @ (status::BAD_NO_SUBSCRIPTION
                                | status::BAD_SUBSCRIPTION_ID_INVALID),
                            ) => return Ok(Ended::Lost(code)),
                            _ => return Err(error),
                        }
                    }
                },
                never = &mut learning => match never {},
                () = tokio::time::sleep_until(dead_at) => {
                    return Err(Error::NoData { after: silence_max });
                }
                () = tokio::time::sleep_until(look_at) => {
                    let watch = &mut pulses[looked_at].watch;
                    match self.look(session, looked_at, watch).await? {
                        Verdict::Well => {}
                        Verdict::Mute => return Ok(Ended::Mute),
                        Verdict::Hung => return Err(Error::Hung),
                    }
                }
                Some((next, answer)) = reading.next() => {
                    let before = Instant::now();
                    let mut late = self.late.take().unwrap_or_default();
                    let turned = self.turn(session, next, answer, &mut late, true).await?;
                    self.late = Some(late);
                    stalled(&mut pulses, before);
                    if turned == Taken::Stopped {
                        return Ok(Ended::Stopped);
                    }
                }
                () = tokio::time::sleep_until(retry_at), if !self.bad.is_empty() => {
                    let before = Instant::now();
                    if self.retry_bad(session).await? == Taken::Stopped {
                        return Ok(Ended::Stopped);
                    }
                    stalled(&mut pulses, before);
                    retry_at = Instant::now() + BAD_RETRY;
                }
                look = looks.next(&self.roster) => {
                    let before = Instant::now();
                    if self.adapt(session, look).await? == Taken::Stopped {
                        return Ok(Ended::Stopped);
                    }
                    stalled(&mut pulses, before);
                }
            }
        }
    }

    /// Messages the server still holds although they are in the log: their acknowledgement was
    /// lost with an earlier connection.
    fn leftovers(&self, strand: usize, publication: &Publication) -> Acknowledgements {
        let sequence = self.strands[strand].sequence();
        let held = publication.available.iter();
        held.filter(|number| sequence.arrival(**number) == Arrival::Repeated)
            .map(|number| (publication.subscription, *number))
            .collect()
    }

    /// One answer: what was missed before it, then itself. `Some` ends the loop.
    async fn publication(
        &mut self,
        session: &Session,
        strand: Option<usize>,
        publication: Publication,
        acknowledgements: &mut Acknowledgements,
    ) -> Result<Option<Ended>, Error> {
        self.ingest.status.publish_response();
        let Publication {
            subscription,
            message,
            available,
        } = publication;
        let Some(strand) = strand else {
            // Left over from an earlier configuration or run: without this it would go on for
            // ever, its values thrown away.
            tracing::info!(
                subscription,
                "deleting a subscription that is not ours any more"
            );
            if let Err(error) = session.unsubscribe(subscription).await {
                tracing::debug!(%error, "it may be gone already");
            }
            return Ok(None);
        };
        self.strands[strand].unproven = 0;
        let arrival = self.strands[strand].sequence().arrival(message.sequence);
        match arrival {
            Arrival::Expected => {}
            Arrival::Repeated => {
                if !message.keep_alive {
                    acknowledgements.push((subscription, message.sequence));
                }
                return Ok(None);
            }
            Arrival::Ahead(missing) => {
                let mut lost = 0_u32;
                for number in missing {
                    match self.fetch(session, strand, number, &available).await? {
                        Some(found) => {
                            self.ingest.status.republished();
                            let told = self.tell_lost(session, strand, number, &mut lost).await?;
                            if told == Taken::Stopped
                                || self.take(session, strand, found).await? == Taken::Stopped
                            {
                                return Ok(Some(Ended::Stopped));
                            }
                            acknowledgements.push((subscription, number));
                        }
                        None => lost += 1,
                    }
                }
                let told = self.tell_lost(session, strand, message.sequence, &mut lost);
                if told.await? == Taken::Stopped {
                    return Ok(Some(Ended::Stopped));
                }
            }
            Arrival::Restarted => {
                let mut lost = u32::MAX;
                let told = self.tell_lost(session, strand, message.sequence, &mut lost);
                if told.await? == Taken::Stopped {
                    return Ok(Some(Ended::Stopped));
                }
            }
        }
        if message.keep_alive {
            self.strands[strand].news = Some(WallNanos::now());
            return Ok(None);
        }
        let (sequence, ended) = (message.sequence, message.ended);
        let untold = self.strands[strand].untold.len();
        if message.is_only_clock() && untold < UNTOLD_MAX {
            // Nothing but the server's clock: it is not worth a write to the disk. Until one
            // comes the message stays unacknowledged, so that a crash makes no hole of it.
            let strand = &mut self.strands[strand];
            if let Some(progress) = &mut strand.progress {
                progress.advance(progress.sequence().after(sequence));
            }
            strand.untold.push((subscription, sequence));
            strand.news = Some(WallNanos::now());
            return Ok(None);
        }
        if self.take(session, strand, message).await? == Taken::Stopped {
            return Ok(Some(Ended::Stopped));
        }
        acknowledgements.append(&mut self.strands[strand].untold);
        acknowledgements.push((subscription, sequence));
        Ok(ended.map(Ended::Lost))
    }

    /// A message that was skipped, if the server still has it.
    pub(super) async fn fetch(
        &mut self,
        session: &Session,
        strand: usize,
        number: u32,
        available: &[u32],
    ) -> Result<Option<Message>, Error> {
        if !available.is_empty() && !available.contains(&number) {
            return Ok(None);
        }
        let strand = &mut self.strands[strand];
        if strand.suspect.take() == Some(number) {
            // Asking for it ended the last connection: it cannot be had.
            return Ok(None);
        }
        strand.suspect = Some(number);
        let found = session.republish(strand.granted.id, number).await?;
        strand.suspect = None;
        Ok(found)
    }

    /// Writes a gap for `lost` messages before number `next`.
    async fn tell_lost(
        &mut self,
        session: &Session,
        strand: usize,
        next: u32,
        lost: &mut u32,
    ) -> Result<Taken, Error> {
        if *lost == 0 {
            return Ok(Taken::Durable);
        }
        let reason = match std::mem::take(lost) {
            u32::MAX => format!("the server numbers its messages anew, from {next}"),
            count => format!("{count} messages before number {next} are gone from the server"),
        };
        let config = &self.ingest.config;
        let group = self.strands[strand].group;
        let reason = match self.group_name(group) {
            Some(group) => format!("{reason}, in group `{group}`"),
            None => reason,
        };
        let name = &config.name;
        tracing::error!(endpoint = name, reason, "values are lost; the log says so");
        let last = self.strands[strand].news;
        let gap = self.ingest.gap(name, last, Some(WallNanos::now()), reason);
        let Some(progress) = &mut self.strands[strand].progress else {
            return Ok(Taken::Durable);
        };
        progress.advance(Sequence::from_next(next));
        // The history has them, perhaps: it is looked into where a node has its next value.
        let mine = |handle: &u32| config.group_of(*handle) == group;
        progress.seams = self.marks.with_values().filter(mine).collect();
        let change = progress.change(&config.progress_key(group));
        self.ingest
            .append(vec![gap], Some(change), Some(session))
            .await
    }

    /// Takes a message into the log, in as many appends as its size needs. Each moves the
    /// progress with it, so that a crash in between neither loses nor repeats a value.
    pub(super) async fn take(
        &mut self,
        session: &Session,
        strand: usize,
        message: Message,
    ) -> Result<Taken, Error> {
        let news = WallNanos::now();
        let key = self.ingest.config.progress_key(self.strands[strand].group);
        let progress = self.strands[strand].progress.as_ref();
        let already = progress.map_or(0, |progress| progress.taken) as usize;
        let values = message.samples.len() + message.events.len();
        let fresh = message.samples.get(already..).unwrap_or_default();
        let Some(mut bridged) = self.fill_before(session, strand, fresh).await? else {
            return Ok(Taken::Stopped);
        };
        self.going.look_at(&message.events);
        let events_already = already.saturating_sub(message.samples.len());
        let mut samples = fresh.iter();
        let mut events = message.events.into_iter();
        events.by_ref().take(events_already).for_each(drop);
        let mut taken = already;
        let mut draft = Draft::for_values(samples.len());
        loop {
            let Some(progress) = &mut self.strands[strand].progress else {
                return Ok(Taken::Durable);
            };
            draft.records.clear();
            while draft.records.bytes() < APPEND_BYTES {
                if let Some(sample) = samples.next() {
                    if self.roster.hears(sample) {
                        let handle = sample.handle;
                        let bridged = bridged.remove(&handle);
                        let initial = progress.initial.remove(handle).then_some(AS_INITIAL);
                        self.ingest.put(&mut draft, sample, news, bridged, initial);
                        let time = sample.source_time.or(sample.server_time);
                        self.marks.value(handle, time);
                        progress.seams.remove(handle);
                    }
                } else if let Some(event) = events.next() {
                    let record = self.ingest.event(&mut self.going, event, news);
                    record.iter().for_each(|record| draft.push(record));
                } else {
                    break;
                }
                taken += 1;
            }
            progress.time = news;
            let more = samples.len() + events.len() > 0;
            if more {
                progress.taken = u32::try_from(taken).unwrap_or(u32::MAX);
            } else {
                progress.advance(progress.sequence().after(message.sequence));
            }
            let change = progress.change(&key);
            let mut changes = self.mark_changes()?;
            changes.push(change);
            if self.ingest.append_draft(&draft, &changes, session).await? == Taken::Stopped {
                return Ok(Taken::Stopped);
            }
            if !more {
                break;
            }
        }
        self.strands[strand].news = Some(news);
        self.ingest.status.values(values.saturating_sub(already));
        Ok(Taken::Durable)
    }
}
