//! Raw history of variables (Part 11): what a server keeps of its own accord.

use super::vendor::{
    AttributeId, ByteString, DateTime, HistoryData, HistoryRead, HistoryReadAction,
    HistoryReadValueId, ReadRawModifiedDetails, TimestampsToReturn,
};
use super::{REQUEST_TIMEOUT, Session, decode, parse, request};
use crate::opcua::error::Error;
use crate::opcua::value::{Sample, Value};
use skerry_store::WallNanos;

/// The bit of AccessLevel that says that history can be read (Part 3, 8.57).
const HISTORY_READ: u64 = 0x04;

/// A node's history to be read.
#[derive(Debug, Clone)]
pub(crate) struct Chapter {
    /// Comes back with the values.
    pub(crate) handle: u32,
    pub(crate) node: String,
    /// Where to go on, from an earlier answer of the same session.
    pub(crate) continuation: Option<Continuation>,
}

#[derive(Debug, Clone)]
pub(crate) struct Continuation(ByteString);

/// Some of a node's history, oldest first.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) samples: Vec<Sample>,
    /// There is more.
    pub(crate) continuation: Option<Continuation>,
}

impl Session {
    /// Which of `nodes` the server lets us read the history of.
    pub(crate) async fn have_history(&self, nodes: &[String]) -> Result<Vec<bool>, Error> {
        let levels = self
            .read_attribute(nodes, AttributeId::UserAccessLevel)
            .await?;
        let readable = |sample: Sample| match sample.value {
            Value::UInt(level) => level & HISTORY_READ != 0,
            _ => false,
        };
        Ok(levels.into_iter().map(readable).collect())
    }

    /// The values of `chapters` from `from` up to before `to`, about `values` of each; or the
    /// server's reason why not. A continuation goes on within the times it was begun with.
    pub(crate) async fn history(
        &self,
        chapters: &[Chapter],
        (from, to): (WallNanos, WallNanos),
        values: u32,
    ) -> Result<Vec<Result<Page, u32>>, Error> {
        let details = HistoryReadAction::ReadRawModifiedDetails(ReadRawModifiedDetails {
            is_read_modified: false,
            start_time: DateTime::from(decode::ticks(from)),
            end_time: DateTime::from(decode::ticks(to)),
            num_values_per_node: values,
            return_bounds: false,
        });
        let request = request!(self, HistoryRead, details)
            .timestamps_to_return(TimestampsToReturn::Both)
            .nodes_to_read(chapters.iter().map(value_id).collect());
        let response = self.call("reading history", request).await?;
        let results = response.results.unwrap_or_default();
        Ok(chapters
            .iter()
            .zip(results)
            .map(|(chapter, result)| {
                if result.status_code.is_bad() {
                    return Err(result.status_code.bits());
                }
                let more = !result.continuation_point.is_null_or_empty();
                let data = result.history_data.into_inner_as::<HistoryData>();
                let values = data.and_then(|data| data.data_values).unwrap_or_default();
                Ok(Page {
                    samples: self.with_types(|types| {
                        types.begin();
                        let sample = |value| decode::sample(types, chapter.handle, value);
                        values.into_iter().map(sample).collect()
                    }),
                    continuation: more.then_some(Continuation(result.continuation_point)),
                })
            })
            .collect())
    }

    /// Has the server forget continuations that are not gone on with: it keeps only a few.
    pub(crate) async fn close_history(&self, chapters: &[Chapter]) -> Result<(), Error> {
        let details = HistoryReadAction::ReadRawModifiedDetails(ReadRawModifiedDetails::default());
        let request = request!(self, HistoryRead, details)
            .release_continuation_points(true)
            .nodes_to_read(chapters.iter().map(value_id).collect());
        self.call("closing history", request).await.map(|_| ())
    }
}

fn value_id(chapter: &Chapter) -> HistoryReadValueId {
    let continuation = chapter.continuation.as_ref();
    HistoryReadValueId {
        node_id: parse(&chapter.node),
        continuation_point: continuation.map_or_else(ByteString::null, |point| point.0.clone()),
        ..HistoryReadValueId::default()
    }
}
