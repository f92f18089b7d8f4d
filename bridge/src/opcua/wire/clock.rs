//! What the server says of itself: its clock, `Server_ServerStatus_CurrentTime`, and its
//! `Server_ServiceLevel`.

use super::vendor::{
    AttributeId, DataValue, NodeId, Read, ReadValueId, TimestampsToReturn, Variant,
};
use super::{Item, REQUEST_TIMEOUT, Session, decode, request};
use crate::opcua::error::Error;
use skerry_store::WallNanos;
use std::time::Duration;

/// Its node (Part 6, annex A).
const CURRENT_TIME: u32 = 2258;
/// How well it can serve, from 0 to 255 (Part 4, 6.6.2.4.2).
const SERVICE_LEVEL: u32 = 2267;
/// Handle of the item that watches the clock, far from any configured node's.
pub(super) const HANDLE: u32 = 0x7FFF_FFFE;

/// The clock as an item of a subscription.
pub(crate) fn clock_item(sampling: Duration) -> Item {
    Item {
        handle: HANDLE,
        node: NodeId::new(0, CURRENT_TIME).to_string(),
        sampling,
        // Only the last one tells the time.
        queue_values: 1,
        deadband: None,
    }
}

/// What the clock shows, where it is one.
pub(super) fn shown(data: &DataValue) -> Option<WallNanos> {
    match &data.value {
        Some(Variant::DateTime(moment)) => decode::time(moment),
        _ => None,
    }
}

impl Session {
    /// The server's time, and how well it can serve, as far as it tells.
    pub(crate) async fn clock(&self) -> Result<(Option<WallNanos>, Option<u8>), Error> {
        let node = |id| ReadValueId {
            node_id: NodeId::new(0, id),
            attribute_id: AttributeId::Value as u32,
            ..ReadValueId::default()
        };
        let request = request!(self, Read)
            .timestamps_to_return(TimestampsToReturn::Neither)
            .nodes_to_read(vec![node(CURRENT_TIME), node(SERVICE_LEVEL)]);
        let response = self.call("reading the server's clock", request).await?;
        let results = response.results.unwrap_or_default();
        let level = match results.get(1).and_then(|data| data.value.as_ref()) {
            Some(Variant::Byte(level)) => Some(*level),
            _ => None,
        };
        Ok((results.first().and_then(shown), level))
    }
}
