//! What the cluster will not have: cornered, copied to quarantine, and a gap in its place.

use super::{Ended, Lane};
use crate::uplink::fault::Fault;
use crate::uplink::quarantine::{self, Keeping};
use crate::uplink::source::Poison;
use crate::uplink::wire::Producer;
use skerry_store::Offset;

/// What the cluster will not have, see [`Fault::Refused`], and the slice's offsets.
pub(super) struct Refused {
    pub(super) offsets: Vec<Offset>,
    /// Where blocks are among them, the slice's end.
    pub(super) packed_until: Option<Offset>,
    pub(super) index: Option<usize>,
    pub(super) reason: String,
}

impl Lane {
    /// Corners the record that the cluster will not have, and sets it aside once it is found: a
    /// copy of it is on the disk before a gap can take its place.
    pub(super) async fn refused(
        &mut self,
        producer: &Producer,
        refused: Refused,
    ) -> Result<(), Ended> {
        let Refused {
            offsets,
            packed_until,
            index,
            reason,
        } = refused;
        if let Some(until) = packed_until {
            self.plain_until = until;
            return Ok(());
        }
        let cornered = self.pace.refused(offsets.len());
        let index = index.or(cornered.then_some(0));
        let Some(offset) = index.and_then(|index| offsets.get(index)).copied() else {
            return match index {
                None => Ok(()),
                // The one record after the slice's is the position.
                Some(_) => Err(Fault::Failed(format!("the position is refused: {reason}")).into()),
            };
        };
        if self
            .poison
            .as_ref()
            .is_some_and(|poison| poison.offset == offset)
        {
            let text = format!("the gap that stands for offset {offset} is refused too: {reason}");
            return Err(Fault::Failed(text).into());
        }
        let reason = self.set_aside(producer, offset, reason).await?;
        tracing::error!(
            stream = self.stream.as_str(),
            %offset,
            reason,
            "the cluster refuses this record; a gap takes its place there, a copy is in quarantine \
             (skerry quarantine ls)"
        );
        self.poison = Some(Poison { offset, reason });
        Ok(())
    }

    /// Has the record in quarantine; the reason as it is told there. What retention took
    /// meanwhile is a gap anyway.
    async fn set_aside(
        &mut self,
        producer: &Producer,
        offset: Offset,
        reason: String,
    ) -> Result<String, Ended> {
        let Some(record) = self.record_at(offset).await? else {
            return Ok(reason);
        };
        let outgoing = self.origin.record(offset, record.clone());
        let (topic, bytes) = (&outgoing.topic, outgoing.size());
        let reason = match producer.message_bytes_max(topic).await {
            Some(most) if exceeds(bytes, most) => format!(
                "{reason}; it has about {bytes} bytes before compression, and topic `{topic}` \
                 takes max.message.bytes={most}"
            ),
            _ => reason,
        };
        let refused = quarantine::Refused {
            stream: &self.stream,
            offset,
            topic,
            reason: &reason,
        };
        match self.quarantine.keep(refused, record).await? {
            Keeping::Kept => Ok(reason),
            Keeping::Overrun(waiting) => Err(Ended::Held(format!(
                "{waiting} records wait in quarantine and the cluster refuses more ({reason}): \
                 mend what they have in common, then `skerry quarantine retry --all` or `drop`"
            ))),
        }
    }
}

/// Whether a record of so many bytes can be too large for a batch of at most `most`: what does not
/// compress gets a little larger, and a batch has a header of its own.
fn exceeds(bytes: usize, most: u64) -> bool {
    const HEADER: u64 = 128;
    let bytes = bytes as u64;
    bytes + bytes / 128 + HEADER > most
}
