//! Which answers name brokers, and how they are made to name the link's doors instead. Pure.
//!
//! ```text
//! Metadata, FindCoordinator, DescribeCluster   always name brokers
//! Produce 10+, Fetch 16+                       name a partition's new leader (KIP-951), rarely
//! ApiVersions                                  names none, but must not offer versions of the
//!                                              above that the codec here cannot read
//! ```

use super::wire::{self, Endpoint, LENGTH_BYTES, invalid};
use bytes::{Buf, Bytes};
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::{
    ApiKey, ApiVersionsResponse, DescribeClusterResponse, FetchResponse, FindCoordinatorResponse,
    MetadataResponse, ProduceResponse, ResponseHeader,
};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;

/// APIs whose answers may name brokers, and the first version that does.
const NAMING: [(ApiKey, i16); 5] = [
    (ApiKey::Metadata, 0),
    (ApiKey::FindCoordinator, 0),
    (ApiKey::DescribeCluster, 0),
    (ApiKey::Produce, 10),
    (ApiKey::Fetch, 16),
];

/// Clients keep about five requests in flight; what exceeds this was never to be answered
/// (Produce with `acks=0`) and is forgotten.
const PENDING_MAX: usize = 1024;

/// A request whose answer must be looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Asked {
    id: i32,
    api: ApiKey,
    version: i16,
}

/// The requests of one connection that wait for such an answer, oldest first.
#[derive(Debug, Default)]
pub(super) struct Pending(VecDeque<Asked>);

impl Pending {
    /// Notes a request on its way to the broker.
    pub(super) fn request(&mut self, frame: &Bytes) {
        let Some(asked) = asked(frame) else { return };
        if self.0.len() == PENDING_MAX {
            self.0.pop_front();
        }
        self.0.push_back(asked);
    }

    /// The request that this answer belongs to. A broker answers a connection in order, so that
    /// requests before it will not be answered any more.
    pub(super) fn answer(&mut self, frame: &Bytes) -> Option<Asked> {
        let id = frame.get(LENGTH_BYTES..LENGTH_BYTES + 4)?.get_i32();
        let at = self.0.iter().position(|asked| asked.id == id)?;
        self.0.drain(..=at).next_back()
    }
}

/// Reads as much of a request's header as all versions share: API, version, correlation id.
fn asked(frame: &Bytes) -> Option<Asked> {
    let mut header = frame.get(LENGTH_BYTES..LENGTH_BYTES + 8)?;
    let (api, version, id) = (header.get_i16(), header.get_i16(), header.get_i32());
    let api = ApiKey::try_from(api).ok()?;
    let naming = NAMING
        .iter()
        .any(|(naming, from)| *naming == api && *from <= version);
    (naming || api == ApiKey::ApiVersions).then_some(Asked { id, api, version })
}

/// The answer to `asked` with every broker replaced by its door; none where nothing changes and
/// the frame is to pass as it came.
///
/// # Errors
/// When the frame cannot be read, and with it perhaps a broker that must not be told; when there
/// is no door for a broker.
pub(super) fn rewrite(
    asked: Asked,
    frame: &Bytes,
    mut door: impl FnMut(&Endpoint) -> io::Result<SocketAddr>,
) -> io::Result<Option<Bytes>> {
    let mut lead = |host: &mut StrBytes, port: &mut i32| -> io::Result<bool> {
        let Some(broker) = Endpoint::named(host, *port) else {
            return Ok(false);
        };
        let local = door(&broker)?;
        *host = StrBytes::from_string(local.ip().to_string());
        *port = i32::from(local.port());
        Ok(true)
    };
    // Runs `lead` over every broker of a list.
    macro_rules! lead_all {
        ($brokers:expr) => {{
            let mut changed = false;
            for broker in &mut $brokers {
                changed |= lead(&mut broker.host, &mut broker.port)?;
            }
            Ok(changed)
        }};
    }
    match asked.api {
        ApiKey::Metadata => edit(asked, frame, |body: &mut MetadataResponse| {
            lead_all!(body.brokers)
        }),
        ApiKey::DescribeCluster => edit(asked, frame, |body: &mut DescribeClusterResponse| {
            lead_all!(body.brokers)
        }),
        ApiKey::FindCoordinator => edit(asked, frame, |body: &mut FindCoordinatorResponse| {
            let single = lead(&mut body.host, &mut body.port)?;
            let listed: io::Result<bool> = lead_all!(body.coordinators);
            Ok(single | listed?)
        }),
        ApiKey::Produce => edit(asked, frame, |body: &mut ProduceResponse| {
            lead_all!(body.node_endpoints)
        }),
        ApiKey::Fetch => edit(asked, frame, |body: &mut FetchResponse| {
            lead_all!(body.node_endpoints)
        }),
        ApiKey::ApiVersions => edit(in_its_version(asked, frame), frame, |body| Ok(cap(body))),
        _ => Ok(None),
    }
}

/// A broker that does not know the version of ApiVersions asked for says so in version 0
/// (KIP-511).
fn in_its_version(asked: Asked, frame: &Bytes) -> Asked {
    let error = frame
        .get(LENGTH_BYTES + 4..LENGTH_BYTES + 6)
        .map(|mut error| error.get_i16());
    let refused = error == Some(ResponseError::UnsupportedVersion.code());
    Asked {
        version: if refused { 0 } else { asked.version },
        ..asked
    }
}

/// Takes from the offer what could not be read here later. An API that has no version left goes.
fn cap(offer: &mut ApiVersionsResponse) -> bool {
    let mut changed = false;
    offer.api_keys.retain_mut(|offered| {
        let Ok(api) = ApiKey::try_from(offered.api_key) else {
            return true;
        };
        let read_here =
            api == ApiKey::ApiVersions || NAMING.iter().any(|(naming, _)| *naming == api);
        let max = api.valid_versions().max;
        if !read_here || offered.max_version <= max {
            return true;
        }
        changed = true;
        offered.max_version = max;
        offered.min_version <= max
    });
    changed
}

fn edit<T: Decodable + Encodable>(
    asked: Asked,
    frame: &Bytes,
    change: impl FnOnce(&mut T) -> io::Result<bool>,
) -> io::Result<Option<Bytes>> {
    let Asked { api, version, .. } = asked;
    let unreadable = |problem: &dyn std::fmt::Display| {
        invalid(format!(
            "the answer to {} version {version}: {problem}",
            super::name(api)
        ))
    };
    let header_version = api.response_header_version(version);
    let mut rest = frame.slice(LENGTH_BYTES..);
    let header = ResponseHeader::decode(&mut rest, header_version).map_err(|e| unreadable(&e))?;
    let mut body = T::decode(&mut rest, version).map_err(|e| unreadable(&e))?;
    if !rest.is_empty() {
        return Err(unreadable(&"it is longer than it should be"));
    }
    if !change(&mut body)? {
        return Ok(None);
    }
    wire::frame(&header, header_version, &body, version).map(Some)
}

#[cfg(test)]
mod tests;
