//! The link class by MQTT: whoever may publish to one topic chooses it. A command comes through
//! the log like everything else, so one that was acknowledged is carried out, also after a crash.

use super::gate::Links;
use skerry_store::{Error, Kind, Log, Offset, Reader, StreamName};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio_util::sync::CancellationToken;

/// Where commands come from: a message to this topic names a link class, or
/// [`AUTO`](super::gate::AUTO).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkTopic {
    pub topic: String,
    /// The stream that messages to it are routed to.
    pub stream: StreamName,
}

/// How far the stream was looked through. Shared with what saves it.
#[derive(Debug)]
pub(crate) struct Looked(AtomicU64);

impl Looked {
    pub(crate) const fn until(offset: Offset) -> Self {
        Self(AtomicU64::new(offset.0))
    }

    pub(crate) fn offset(&self) -> Offset {
        Offset(self.0.load(Ordering::Acquire))
    }
}

/// Carries out the commands from where `looked` stands on, until `stop`.
///
/// # Errors
/// When the log cannot be read any more.
pub(crate) async fn follow(
    log: Log,
    links: Arc<Links>,
    from: LinkTopic,
    looked: Arc<Looked>,
    stop: CancellationToken,
) -> Result<(), Error> {
    let mut head = log.head(&from.stream)?;
    let mut follower = Follower {
        reader: log.reader(&from.stream, looked.offset())?,
        from,
        links,
        looked,
    };
    loop {
        head.mark_unchanged();
        let work = tokio::task::spawn_blocking(move || {
            let done = follower.catch_up();
            (follower, done)
        });
        let done;
        (follower, done) = work.await.map_err(|_| Error::Closed)?;
        done?;
        tokio::select! {
            changed = head.changed() => changed.map_err(|_| Error::Closed)?,
            () = stop.cancelled() => return Ok(()),
        }
    }
}

struct Follower {
    reader: Reader,
    from: LinkTopic,
    links: Arc<Links>,
    looked: Arc<Looked>,
}

impl Follower {
    /// Up to the head.
    fn catch_up(&mut self) -> Result<(), Error> {
        loop {
            let views = self.reader.next_views()?;
            if views.missing.is_none() && views.records.is_empty() {
                return Ok(());
            }
            if let Some((_, next)) = views.missing {
                self.looked.0.store(next.0, Ordering::Release);
            }
            for (offset, record) in views.records {
                if record.kind == Kind::Mqtt && record.source == self.from.topic {
                    obey(&self.links, &self.from, offset, record.payload);
                }
                // Behind the command: what saves this offset saves the command as well.
                self.looked.0.store(offset.0 + 1, Ordering::Release);
            }
        }
    }
}

fn obey(links: &Links, from: &LinkTopic, offset: Offset, payload: &[u8]) {
    let text = String::from_utf8_lossy(payload);
    // Some clients send a text as JSON, in quotes; no name has any.
    let wanted = text.trim().trim_matches('"');
    let topic = from.topic.as_str();
    // How a retained message is cleared.
    if wanted.is_empty() {
        return;
    }
    let stream = from.stream.as_str();
    match links.command(wanted) {
        Ok(()) => {
            tracing::info!(topic, stream, %offset, class = wanted, "link class chosen by MQTT")
        }
        Err(unknown) => {
            tracing::warn!(topic, stream, %offset, "a command by MQTT is passed over: {unknown}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::gate::{DEFAULT, LinkClass};
    use super::*;
    use skerry_store::{Append, Options, Record, StreamOptions};

    const TOPIC: &str = "ship/link";

    struct Site {
        _folder: tempfile::TempDir,
        log: Log,
        links: Arc<Links>,
        from: LinkTopic,
    }

    fn site() -> Site {
        let folder = tempfile::tempdir_in(".").unwrap();
        let mut options = Options::new(folder.path());
        options.allow_volatile = true;
        let stream = StreamName::new("commands").unwrap();
        options.streams = vec![StreamOptions::new(stream.clone(), 1 << 20)];
        let (log, _) = Log::open(options).unwrap();
        let classes = ["satellite", "harbour"].map(LinkClass::new).to_vec();
        Site {
            _folder: folder,
            log,
            links: Arc::new(Links::new(LinkClass::new(DEFAULT), classes)),
            from: LinkTopic {
                topic: TOPIC.to_owned(),
                stream,
            },
        }
    }

    impl Site {
        async fn publish(&self, kind: Kind, topic: &str, payload: &'static str) {
            let append = Append {
                stream: self.from.stream.clone(),
                records: vec![Record::new(kind, topic, payload)],
                changes: Vec::new(),
            };
            self.log.append(append).await.unwrap();
        }

        /// What is commanded once everything in the log was looked at.
        async fn commanded(&self, looked: &Arc<Looked>) -> Option<String> {
            let head = *self.log.head(&self.from.stream).unwrap().borrow();
            let stop = CancellationToken::new();
            let (log, links, from) = (self.log.clone(), self.links.clone(), self.from.clone());
            let following = follow(log, links, from, looked.clone(), stop.clone());
            let done = async {
                while looked.offset() < head {
                    tokio::time::sleep(std::time::Duration::from_millis(2)).await;
                }
                stop.cancel();
            };
            let (followed, ()) = tokio::join!(following, done);
            followed.unwrap();
            self.links.commanded()
        }
    }

    #[tokio::test]
    async fn the_last_command_to_the_topic_holds() {
        let site = site();
        let looked = Arc::new(Looked::until(Offset::ZERO));
        site.publish(Kind::Mqtt, TOPIC, "satellite").await;
        site.publish(Kind::Mqtt, TOPIC, " \"harbour\"\n").await;
        // Neither of these is a command.
        site.publish(Kind::Mqtt, "ship/other", "satellite").await;
        site.publish(Kind::Opcua, TOPIC, "satellite").await;
        site.publish(Kind::Mqtt, TOPIC, "").await;
        site.publish(Kind::Mqtt, TOPIC, "no such class").await;
        assert_eq!(site.commanded(&looked).await.as_deref(), Some("harbour"));
        site.publish(Kind::Mqtt, TOPIC, "auto").await;
        assert_eq!(site.commanded(&looked).await, None);
    }

    #[tokio::test]
    async fn what_was_looked_at_before_is_not_carried_out_again() {
        let site = site();
        site.publish(Kind::Mqtt, TOPIC, "satellite").await;
        let looked = Arc::new(Looked::until(Offset(1)));
        assert_eq!(site.commanded(&looked).await, None);
        site.publish(Kind::Mqtt, TOPIC, "harbour").await;
        assert_eq!(site.commanded(&looked).await.as_deref(), Some("harbour"));
    }
}
