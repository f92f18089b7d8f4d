"""Writes every committed record of the topics with a prefix as a JSON line, through every outage.

Reads as the cluster's customers do: `read_committed`, from the first record on, no group.
"""

import argparse
import sys
import time
from pathlib import Path

from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka import OFFSET_BEGINNING

from lines import Lines, asked_to_stop

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bridge" / "pack" / "python"))
from skerry_pack import unpack_message

DISCOVER_EVERY_S = 1.0
SHORT_BYTES = 24


def text(raw):
    return None if raw is None else raw.decode("utf-8", "backslashreplace")


def discover(consumer, prefix, known):
    """Starts reading the partitions that have come into being since the last look."""
    try:
        topics = consumer.list_topics(timeout=2).topics
    except KafkaException:
        return
    fresh = {
        (name, partition)
        for name, topic in topics.items()
        if name.startswith(prefix) and topic.error is None
        # The node's own bookkeeping is no record.
        and not name.startswith(prefix + "positions.")
        for partition in topic.partitions
    } - known
    if fresh:
        consumer.incremental_assign(
            [TopicPartition(name, number, OFFSET_BEGINNING) for name, number in sorted(fresh)]
        )
        known |= fresh


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--brokers", required=True)
    parser.add_argument("--prefix", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--short", action="store_true", help="cut what came by MQTT short")
    options = parser.parse_args()
    out = Lines(options.out)
    stop = asked_to_stop()
    consumer = Consumer(
        {
            "bootstrap.servers": options.brokers,
            "group.id": "skerry-tests",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "reconnect.backoff.max.ms": 500,
            "log_level": 0,
        },
        # Outages are what we are here for: nothing librdkafka says of them ends us.
        error_cb=lambda _error: None,
    )
    known = set()
    next_look = 0.0
    while not stop.is_set():
        if time.monotonic() >= next_look:
            discover(consumer, options.prefix, known)
            next_look = time.monotonic() + DISCOVER_EVERY_S
        for message in consumer.consume(num_messages=500, timeout=0.1):
            if message.error():
                continue
            # Many of them where the message is packed.
            for record in unpack_message(message):
                headers = {text(name): text(value) for name, value in record.headers}
                cut = options.short and headers.get("skerry-kind") == "mqtt"
                out.write(
                    topic=message.topic(),
                    partition=message.partition(),
                    offset=message.offset(),
                    key=text(record.key),
                    value=text(record.value[:SHORT_BYTES] if cut else record.value),
                    timestamp=record.timestamp_ms,
                    headers=headers,
                )


main()
