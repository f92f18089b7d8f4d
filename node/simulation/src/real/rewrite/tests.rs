use super::*;
use bytes::BytesMut;
use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::describe_cluster_response::DescribeClusterBroker;
use kafka_protocol::messages::find_coordinator_response::Coordinator;
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{BrokerId, TopicName, fetch_response, produce_response};
use std::fmt::Debug;

const ID: i32 = 77;

/// The door of `kafka-<n>` is local port 40000 + n.
fn door(broker: &Endpoint) -> io::Result<SocketAddr> {
    let number: u16 = broker.host.trim_start_matches("kafka-").parse().unwrap();
    assert_eq!(broker.port, 9092);
    Ok(([127, 0, 0, 1], 40_000 + number).into())
}

fn host(name: &str) -> StrBytes {
    StrBytes::from_string(name.to_owned())
}

fn asking(api: ApiKey, version: i16) -> Asked {
    Asked {
        id: ID,
        api,
        version,
    }
}

fn encoded(asked: Asked, body: &impl Encodable) -> Bytes {
    let header = ResponseHeader::default().with_correlation_id(asked.id);
    wire::frame(
        &header,
        asked.api.response_header_version(asked.version),
        body,
        asked.version,
    )
    .unwrap()
}

/// In every version the codec has, `before` comes out as `after` and as nothing else.
fn in_every_version<T: Encodable + Decodable + PartialEq + Debug>(
    api: ApiKey,
    versions: impl Iterator<Item = i16>,
    pair: impl Fn(i16) -> (T, T),
) {
    for version in versions {
        let asked = asking(api, version);
        let (before, after) = pair(version);
        let rewritten = rewrite(asked, &encoded(asked, &before), door).unwrap();
        assert_eq!(
            rewritten,
            Some(encoded(asked, &after)),
            "{api:?} version {version}"
        );
    }
}

fn all(api: ApiKey) -> impl Iterator<Item = i16> {
    let versions = api.valid_versions();
    versions.min..=versions.max
}

#[test]
fn metadata_names_doors() {
    let answer = |version: i16, brokers: [(&'static str, i32); 2]| {
        let brokers = brokers.iter().enumerate().map(|(id, (name, port))| {
            MetadataResponseBroker::default()
                .with_node_id(BrokerId(i32::try_from(id).unwrap()))
                .with_host(host(name))
                .with_port(*port)
                .with_rack((version >= 1).then(|| host("rack-a")))
        });
        let partition = MetadataResponsePartition::default()
            .with_leader_id(BrokerId(1))
            .with_replica_nodes(vec![BrokerId(0), BrokerId(1)]);
        let topic = MetadataResponseTopic::default()
            .with_name(Some(TopicName(host("skerry.telemetry"))))
            .with_partitions(vec![partition]);
        MetadataResponse::default()
            .with_brokers(brokers.collect())
            .with_topics(vec![topic])
    };
    in_every_version(ApiKey::Metadata, all(ApiKey::Metadata), |version| {
        let before = answer(version, [("kafka-1", 9092), ("kafka-2", 9092)]);
        (
            before,
            answer(version, [("127.0.0.1", 40_001), ("127.0.0.1", 40_002)]),
        )
    });
}

#[test]
fn describe_cluster_names_doors() {
    let answer = |name: &str, port| {
        let broker = DescribeClusterBroker::default()
            .with_host(host(name))
            .with_port(port);
        DescribeClusterResponse::default().with_brokers(vec![broker])
    };
    in_every_version(
        ApiKey::DescribeCluster,
        all(ApiKey::DescribeCluster),
        |_| (answer("kafka-3", 9092), answer("127.0.0.1", 40_003)),
    );
}

#[test]
fn find_coordinator_names_doors() {
    let answer = |version: i16, name: &str, port| {
        if version < 4 {
            return FindCoordinatorResponse::default()
                .with_host(host(name))
                .with_port(port);
        }
        let found = Coordinator::default()
            .with_key(host("id"))
            .with_host(host(name))
            .with_port(port);
        let failed = Coordinator::default()
            .with_key(host("other"))
            .with_error_code(15)
            .with_port(-1);
        FindCoordinatorResponse::default().with_coordinators(vec![found, failed])
    };
    in_every_version(
        ApiKey::FindCoordinator,
        all(ApiKey::FindCoordinator),
        |version| {
            (
                answer(version, "kafka-5", 9092),
                answer(version, "127.0.0.1", 40_005),
            )
        },
    );
}

#[test]
fn new_leaders_are_named_by_their_doors() {
    let produced = |name: &str, port| {
        let node = produce_response::NodeEndpoint::default()
            .with_host(host(name))
            .with_port(port);
        ProduceResponse::default().with_node_endpoints(vec![node])
    };
    in_every_version(ApiKey::Produce, 10..=13, |_| {
        (produced("kafka-1", 9092), produced("127.0.0.1", 40_001))
    });
    let fetched = |name: &str, port| {
        let node = fetch_response::NodeEndpoint::default()
            .with_host(host(name))
            .with_port(port);
        FetchResponse::default().with_node_endpoints(vec![node])
    };
    in_every_version(ApiKey::Fetch, 16..=18, |_| {
        (fetched("kafka-1", 9092), fetched("127.0.0.1", 40_001))
    });
}

#[test]
fn what_names_no_broker_passes_as_it_came() {
    let unchanged = |asked: Asked, frame: Bytes| {
        assert_eq!(rewrite(asked, &frame, door).unwrap(), None, "{asked:?}");
    };
    let asked = asking(ApiKey::Produce, 12);
    unchanged(asked, encoded(asked, &ProduceResponse::default()));
    let asked = asking(ApiKey::FindCoordinator, 3);
    let nobody = FindCoordinatorResponse::default()
        .with_error_code(15)
        .with_port(-1);
    unchanged(asked, encoded(asked, &nobody));
}

fn offer(api: i16, min: i16, max: i16) -> ApiVersion {
    ApiVersion::default()
        .with_api_key(api)
        .with_min_version(min)
        .with_max_version(max)
}

#[test]
fn newer_versions_than_can_be_read_are_not_offered() {
    let before = ApiVersionsResponse::default().with_api_keys(vec![
        offer(ApiKey::Metadata as i16, 0, 99),
        offer(ApiKey::FindCoordinator as i16, 0, 2),
        offer(ApiKey::DescribeCluster as i16, 90, 99),
        offer(ApiKey::EndTxn as i16, 0, 99),
        offer(9_999, 0, 99),
    ]);
    let after = ApiVersionsResponse::default().with_api_keys(vec![
        offer(
            ApiKey::Metadata as i16,
            0,
            ApiKey::Metadata.valid_versions().max,
        ),
        offer(ApiKey::FindCoordinator as i16, 0, 2),
        offer(ApiKey::EndTxn as i16, 0, 99),
        offer(9_999, 0, 99),
    ]);
    in_every_version(ApiKey::ApiVersions, all(ApiKey::ApiVersions), |_| {
        (before.clone(), after.clone())
    });
    // What a broker answers when it does not know the version asked for.
    let refusal = |offer: &ApiVersionsResponse| {
        let unsupported = ResponseError::UnsupportedVersion.code();
        encoded(
            asking(ApiKey::ApiVersions, 0),
            &offer.clone().with_error_code(unsupported),
        )
    };
    let rewritten = rewrite(asking(ApiKey::ApiVersions, 5), &refusal(&before), door).unwrap();
    assert_eq!(rewritten, Some(refusal(&after)));
}

#[test]
fn what_cannot_be_read_does_not_pass() {
    let asked = asking(ApiKey::Metadata, 9);
    let good = encoded(asked, &MetadataResponse::default());
    let mut longer = BytesMut::from(&good[..]);
    longer.extend_from_slice(&[0]);
    for frame in [longer.freeze(), good.slice(..good.len() - 1)] {
        assert!(rewrite(asked, &frame, door).is_err());
    }
    assert!(rewrite(asking(ApiKey::Metadata, 99), &good, door).is_err());
}

fn request(api: ApiKey, version: i16, id: i32) -> Bytes {
    let mut frame = vec![0, 0, 0, 8];
    frame.extend((api as i16).to_be_bytes());
    frame.extend(version.to_be_bytes());
    frame.extend(id.to_be_bytes());
    frame.into()
}

fn response(id: i32) -> Bytes {
    [[0, 0, 0, 4], id.to_be_bytes()].concat().into()
}

#[test]
fn answers_find_their_requests() {
    let mut pending = Pending::default();
    pending.request(&request(ApiKey::Metadata, 12, 1));
    pending.request(&request(ApiKey::Produce, 9, 2));
    pending.request(&request(ApiKey::Produce, 10, 3));
    pending.request(&request(ApiKey::FindCoordinator, 4, 4));
    let metadata = Asked {
        id: 1,
        api: ApiKey::Metadata,
        version: 12,
    };
    assert_eq!(pending.answer(&response(1)), Some(metadata));
    assert_eq!(pending.answer(&response(2)), None, "version 9 names nobody");
    // Request 3 had acks=0: it is passed over.
    let coordinator = Asked {
        id: 4,
        api: ApiKey::FindCoordinator,
        version: 4,
    };
    assert_eq!(pending.answer(&response(4)), Some(coordinator));
    assert_eq!(pending.answer(&response(3)), None);
    assert_eq!(pending.answer(&response(4)), None);
}

#[test]
fn what_is_never_answered_does_not_pile_up() {
    let mut pending = Pending::default();
    for id in 0..5_000 {
        pending.request(&request(ApiKey::Produce, 12, id));
    }
    assert_eq!(pending.0.len(), PENDING_MAX);
}
