//! The link and the reader against the stand-in, and against a real cluster where there is one.

use super::*;
use bytes::{Bytes, BytesMut};
use kafka_protocol::error::ResponseError;
use kafka_protocol::indexmap::IndexMap;
use kafka_protocol::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    AddPartitionsToTxnRequest, EndTxnRequest, FindCoordinatorRequest, InitProducerIdRequest,
    MetadataRequest, ProduceRequest, TopicName, TransactionalId,
};
use kafka_protocol::protocol::{Request, StrBytes};
use kafka_protocol::records::{
    Compression, Record, RecordBatchEncoder, RecordEncodeOptions, TimestampType,
};
use std::time::{Duration, SystemTime};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

/// Where a test finds a Kafka it may write to.
const KAFKA: &str = "SKERRY_TEST_KAFKA";

#[tokio::test]
async fn the_stand_in_is_reached_through_the_link() {
    let central = crate::central::Central::start(0).await.unwrap();
    cut_in_the_middle(&central.address().to_string()).await;
    central.stop().await;
}

#[tokio::test]
async fn kafka_is_reached_through_the_link() {
    match std::env::var(KAFKA) {
        Ok(bootstrap) => cut_in_the_middle(&bootstrap).await,
        Err(_) => println!("skipped: {KAFKA}=HOST:PORT names no Kafka to test against"),
    }
}

/// Commits, aborts, cuts, restores and commits; then reads what a consumer should see.
async fn cut_in_the_middle(bootstrap: &str) {
    let cluster = RealCluster::behind_link(bootstrap).await.unwrap();
    let link = Endpoint::named("127.0.0.1", cluster.address().port().into()).unwrap();
    let real: Endpoint = bootstrap.parse().unwrap();
    let age = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap();
    let topic = format!("skerry-link-test-{}", age.as_nanos());
    let names = ["skerry-link-test-absent".to_owned(), topic.clone()];

    transact(&link, &real, &topic, &["a1", "a2"], true).await;
    transact(&link, &real, &topic, &["b1"], false).await;
    let mut before = Peer::connect(&link).await.unwrap();
    reader::metadata(&mut before, &[]).await.unwrap();

    cluster.cut();
    let reset = reader::metadata(&mut before, &[]).await.unwrap_err();
    assert_eq!(reset.kind(), io::ErrorKind::ConnectionReset, "{reset}");
    let refused = link.connect().await.unwrap_err();
    assert_eq!(
        refused.kind(),
        io::ErrorKind::ConnectionRefused,
        "{refused}"
    );
    let meanwhile = cluster.records(&names).await.unwrap();
    assert_eq!(values(&meanwhile), ["a1", "a2"]);

    cluster.restore();
    let mut after = None;
    while after.is_none() {
        after = link.connect().await.ok();
        tokio::task::yield_now().await;
    }
    transact(&link, &real, &topic, &["c1"], true).await;
    let records = cluster.records(&names).await.unwrap();
    assert_eq!(values(&records), ["a1", "a2", "c1"]);
    for record in &records {
        assert_eq!(
            (record.topic.as_str(), record.partition),
            (topic.as_str(), 0)
        );
        assert_eq!(record.key.as_deref(), Some(&b"key"[..]));
        assert_eq!(record.header("skerry-epoch"), Some("e1"));
        assert_eq!(record.timestamp_ms, 1_700_000_000_000);
    }
    // A cut that nobody had time to see is a cut nevertheless.
    let mut quick = Peer::connect(&link).await.unwrap();
    reader::metadata(&mut quick, &[]).await.unwrap();
    cluster.cut();
    cluster.restore();
    assert!(reader::metadata(&mut quick, &[]).await.is_err());
    cluster.stop().await;
    assert!(link.connect().await.is_err());
}

fn values(records: &[Delivered]) -> Vec<&str> {
    records
        .iter()
        .map(|record| std::str::from_utf8(record.value.as_deref().unwrap()).unwrap())
        .collect()
}

/// A transaction of one batch, everything of it through the link.
async fn transact(link: &Endpoint, real: &Endpoint, topic: &str, values: &[&str], commit: bool) {
    let id = TransactionalId(StrBytes::from_string(format!("{topic}-{}", values[0])));
    let name = TopicName(StrBytes::from_string(topic.to_owned()));
    let through_link = |host: &str, port: i32| {
        let broker = Endpoint::named(host, port).unwrap();
        assert!(
            broker.host == "127.0.0.1" && broker.port != real.port,
            "{broker} is no door"
        );
        broker
    };
    let mut any = Peer::connect(link).await.unwrap();

    let request = MetadataRequest::default()
        .with_topics(Some(vec![
            MetadataRequestTopic::default().with_name(Some(name.clone())),
        ]))
        .with_allow_auto_topic_creation(true);
    let found = patiently(&mut any, 9, &request, |answer| answer.topics[0].error_code).await;
    let leader = found.topics[0]
        .partitions
        .iter()
        .find(|p| p.partition_index == 0)
        .unwrap();
    let leader = found
        .brokers
        .iter()
        .find(|b| b.node_id == leader.leader_id)
        .unwrap();
    let mut leader = Peer::connect(&through_link(&leader.host, leader.port))
        .await
        .unwrap();

    let request = FindCoordinatorRequest::default()
        .with_key(id.0.clone())
        .with_key_type(1);
    let found = patiently(&mut any, 3, &request, |answer| answer.error_code).await;
    let mut coordinator = Peer::connect(&through_link(&found.host, found.port))
        .await
        .unwrap();

    let request = InitProducerIdRequest::default()
        .with_transactional_id(Some(id.clone()))
        .with_transaction_timeout_ms(10_000);
    let producer = patiently(&mut coordinator, 4, &request, |answer| answer.error_code).await;

    let partitions = AddPartitionsToTxnTopic::default()
        .with_name(name.clone())
        .with_partitions(vec![0]);
    let request = AddPartitionsToTxnRequest::default()
        .with_v3_and_below_transactional_id(id.clone())
        .with_v3_and_below_producer_id(producer.producer_id)
        .with_v3_and_below_producer_epoch(producer.producer_epoch)
        .with_v3_and_below_topics(vec![partitions]);
    patiently(&mut coordinator, 3, &request, |answer| {
        let topic = &answer.results_by_topic_v3_and_below[0];
        topic.results_by_partition[0].partition_error_code
    })
    .await;

    let records = batch(producer.producer_id.0, producer.producer_epoch, values);
    let partition = PartitionProduceData::default()
        .with_index(0)
        .with_records(Some(records));
    let data = TopicProduceData::default()
        .with_name(name)
        .with_partition_data(vec![partition]);
    let request = ProduceRequest::default()
        .with_transactional_id(Some(id.clone()))
        .with_acks(-1)
        .with_timeout_ms(10_000)
        .with_topic_data(vec![data]);
    patiently(&mut leader, 11, &request, |answer| {
        answer.responses[0].partition_responses[0].error_code
    })
    .await;

    let request = EndTxnRequest::default()
        .with_transactional_id(id)
        .with_producer_id(producer.producer_id)
        .with_producer_epoch(producer.producer_epoch)
        .with_committed(commit);
    patiently(&mut coordinator, 3, &request, |answer| answer.error_code).await;
}

/// Asks again while the cluster says that it is not ready.
async fn patiently<R: Request>(
    peer: &mut Peer,
    version: i16,
    request: &R,
    code: impl Fn(&R::Response) -> i16,
) -> R::Response {
    loop {
        let answer = peer.call(version, request).await.unwrap();
        match ResponseError::try_from_code(code(&answer)) {
            None => return answer,
            Some(error) if error.is_retriable() => {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            Some(error) => panic!("{error}"),
        }
    }
}

fn batch(producer_id: i64, producer_epoch: i16, values: &[&str]) -> Bytes {
    let records = values.iter().zip(0_i32..).map(|(value, sequence)| Record {
        transactional: true,
        control: false,
        delete_horizon: false,
        partition_leader_epoch: -1,
        producer_id,
        producer_epoch,
        timestamp_type: TimestampType::Creation,
        offset: sequence.into(),
        sequence,
        timestamp: 1_700_000_000_000,
        key: Some(Bytes::from_static(b"key")),
        value: Some(Bytes::copy_from_slice(value.as_bytes())),
        headers: IndexMap::from([(
            StrBytes::from_static_str("skerry-epoch"),
            Some(Bytes::from_static(b"e1")),
        )]),
    });
    let records: Vec<_> = records.collect();
    let mut bytes = BytesMut::new();
    let options = RecordEncodeOptions {
        version: 2,
        compression: Compression::None,
    };
    RecordBatchEncoder::encode(&mut bytes, &records, &options).unwrap();
    bytes.freeze()
}

#[tokio::test]
async fn an_address_that_is_no_kafka_is_told_so() {
    let told = |error: io::Error| error.to_string();
    let nonsense = RealCluster::behind_link("kafka")
        .await
        .map_err(told)
        .unwrap_err();
    assert!(nonsense.contains("HOST:PORT"), "{nonsense}");

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let stranger = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream
            .write_all(b"220 mail.example.com ESMTP\r\n")
            .await
            .unwrap();
        stream
    });
    let mail = RealCluster::behind_link(&address)
        .await
        .map_err(told)
        .unwrap_err();
    assert!(
        mail.contains(&address) && mail.contains("PLAINTEXT"),
        "{mail}"
    );
    drop(stranger.await.unwrap());

    let nobody = RealCluster::behind_link(&address)
        .await
        .map_err(told)
        .unwrap_err();
    assert!(nobody.contains("start Kafka there"), "{nobody}");
}

#[test]
fn addresses_are_read_as_they_are_written() {
    for text in ["kafka.example.com:9092", "127.0.0.1:9092", "[::1]:9092"] {
        assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), text);
    }
    for text in ["kafka", ":9092", "kafka:0", "kafka:port", "kafka:70000"] {
        assert!(text.parse::<Endpoint>().is_err(), "{text}");
    }
}
