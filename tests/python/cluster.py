"""What an operator of the cluster does, and what another producer does. Prints one JSON object."""

import argparse
import json
import sys
import time

from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    ResourcePatternType,
    ResourceType,
)


def settled(futures):
    for future in futures.values():
        future.result(timeout=60)


def create(admin, options):
    config = dict(pair.split("=", 1) for pair in options.config)
    topic = NewTopic(options.topic, num_partitions=options.partitions, replication_factor=1, config=config)
    settled(admin.create_topics([topic]))
    return {}


def alter(admin, options):
    entries = [
        ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
        for name, value in (pair.split("=", 1) for pair in options.config)
    ]
    resource = ConfigResource(ConfigResource.Type.TOPIC, options.topic, incremental_configs=entries)
    settled(admin.incremental_alter_configs([resource]))
    return {}


def allow(admin, options):
    pattern = ResourcePatternType.PREFIXED if options.prefixed else ResourcePatternType.LITERAL
    binding = AclBinding(
        ResourceType[options.resource],
        options.name,
        pattern,
        options.principal,
        "*",
        AclOperation[options.operation],
        AclPermissionType.ALLOW,
    )
    settled(admin.create_acls([binding]))
    return {}


def produce(_admin, options):
    """As a peer does: acks from all, once and in order, each record with the time it was taken."""
    refused = []
    producer = Producer(
        {"bootstrap.servers": options.brokers, "enable.idempotence": True, "log_level": 0}
    )
    dated = int((time.time() - options.age) * 1000)
    for number in range(options.count):
        producer.produce(
            options.topic,
            key=b"peer",
            value=str(number).encode(),
            timestamp=dated,
            on_delivery=lambda error, _message: error and refused.append(str(error)),
        )
    left = producer.flush(60)
    return {"confirmed": options.count - left - len(refused), "refused": refused[:3]}


def offsets(_admin, options):
    """First and next offset of each partition: what is between them can be read."""
    consumer = Consumer({"bootstrap.servers": options.brokers, "group.id": "skerry-tests", "log_level": 0})
    topics = consumer.list_topics(topic=options.topic, timeout=30).topics
    ranges = [
        consumer.get_watermark_offsets(TopicPartition(options.topic, partition), timeout=30)
        for partition in topics[options.topic].partitions
    ]
    consumer.close()
    return {
        "written": sum(high for _low, high in ranges),
        "readable": sum(high - low for low, high in ranges),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--brokers", required=True)
    commands = parser.add_subparsers(required=True)
    for action in (create, alter, produce, offsets):
        command = commands.add_parser(action.__name__)
        command.add_argument("topic")
        command.set_defaults(action=action)
        command.add_argument("--config", action="append", default=[])
        command.add_argument("--partitions", type=int, default=2)
        command.add_argument("--count", type=int, default=100)
        command.add_argument("--age", type=float, default=0.0, help="seconds")
    command = commands.add_parser("allow")
    command.set_defaults(action=allow)
    command.add_argument("principal")
    command.add_argument("resource", choices=["TOPIC", "TRANSACTIONAL_ID", "BROKER"])
    command.add_argument("name")
    command.add_argument("operation")
    command.add_argument("--prefixed", action="store_true")
    options = parser.parse_args()
    admin = AdminClient({"bootstrap.servers": options.brokers, "log_level": 0})
    json.dump(options.action(admin, options), sys.stdout)


main()
