"""Feeds a topic with packed and other records, and compares it with what was unpacked from it.

    feed   writes transactions, some of which it aborts, until its standard input closes
    put    writes files, each the value of a record, into partition 0
    audit  reads two topics as customers do and tells where the second is not the first, unpacked

The decoder is the one that consumers get, so nothing of what is under test takes part.
"""

import argparse
import random
import sys
import time
from collections import defaultdict
from pathlib import Path

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, Producer, TopicPartition

from lines import Lines, asked_to_stop

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bridge" / "pack" / "python"))
import skerry_pack

DEADLINE_S = 60
TRANSACTION_RECORDS = 12


def feed(options, out):
    """Blocks of all kinds, and between them records that are not packed, of all kinds too."""
    stop, chance = asked_to_stop(), random.Random(options.seed)
    blocks = [Path(path).read_bytes() for path in options.values]
    producer = Producer(
        {"bootstrap.servers": options.brokers, "transactional.id": "feed", "linger.ms": 1}
    )
    producer.init_transactions(DEADLINE_S)
    count = 0
    while not stop.is_set():
        producer.begin_transaction()
        committed = chance.random() < 0.8
        for _ in range(TRANSACTION_RECORDS):
            count += 1
            partition = chance.randrange(options.partitions)
            if chance.random() < 0.3:
                block = chance.choice(blocks)
                producer.produce(options.topic, block, key=b"block/%d" % count, partition=partition)
                continue
            producer.produce(
                options.topic,
                chance.choice([b"value %d" % count, b"", None]),
                key=chance.choice([b"key %d" % (count % 7), b"", None]),
                partition=partition,
                timestamp=1_764_000_000_000 + count,
                headers=[("count", b"%d" % count), ("none", None), ("empty", b""), ("none", b"2")],
            )
        if committed:
            producer.commit_transaction(DEADLINE_S)
        else:
            producer.abort_transaction(DEADLINE_S)
        out.write(event="fed", count=count, committed=committed)
        time.sleep(options.interval)


def put(options, out):
    producer = Producer({"bootstrap.servers": options.brokers, "enable.idempotence": True})
    for path in options.values:
        value = Path(path).read_bytes()
        producer.produce(options.topic, value, key=b"k", partition=0, timestamp=1_000)
    if producer.flush(DEADLINE_S):
        raise SystemExit("the cluster did not take the records")
    out.write(event="put", count=len(options.values))


def content(brokers, topic):
    """Every committed message of each partition, in its order."""
    consumer = Consumer(
        {
            "bootstrap.servers": brokers,
            "group.id": "audit",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
        }
    )
    partitions = list(consumer.list_topics(topic, timeout=DEADLINE_S).topics[topic].partitions)
    consumer.assign([TopicPartition(topic, number, OFFSET_BEGINNING) for number in partitions])
    found = {number: [] for number in partitions}
    open_ones, deadline = set(partitions), time.monotonic() + DEADLINE_S
    while open_ones:
        if time.monotonic() > deadline:
            raise SystemExit(f"{topic}: no end of {open_ones}")
        message = consumer.poll(1.0)
        if message is None:
            continue
        if message.error():
            if message.error().code() == KafkaError._PARTITION_EOF:
                open_ones.discard(message.partition())
            continue
        open_ones.add(message.partition())
        found[message.partition()].append(message)
    consumer.close()
    return found


def plain(message):
    headers = [(name.encode(), value) for name, value in message.headers() or []]
    return (message.key(), message.value(), message.timestamp()[1], headers)


def unpacked(message):
    """What would be in the topic, had nothing been packed; nothing of a damaged block."""
    if message.value() is None or not skerry_pack.is_packed(message.value()):
        return [plain(message)]
    try:
        rows = skerry_pack.unpack(message.value())
    except skerry_pack.PackError:
        return []
    return [(row.key, row.value, row.timestamp_ms, list(row.headers)) for row in rows]


def by_key(partitions):
    keys = defaultdict(list)
    for number in sorted(partitions):
        for record in partitions[number]:
            keys[record[0]].append(record)
    return keys


def audit(options, out):
    source = content(options.brokers, options.topic)
    expected = {
        number: [record for message in messages for record in unpacked(message)]
        for number, messages in source.items()
    }
    found = {
        number: [plain(message) for message in messages]
        for number, messages in content(options.brokers, options.to).items()
    }
    if options.by_key:
        expected, found = by_key(expected), by_key(found)
    for place in sorted(expected, key=str):
        want, have = expected[place], found.get(place, [])
        if want == have:
            continue
        at = next((i for i, (a, b) in enumerate(zip(want, have)) if a != b), None)
        at = min(len(want), len(have)) if at is None else at
        raise SystemExit(
            f"{place}: {len(have)} records instead of {len(want)}; the first that differs is {at}: "
            f"{have[at : at + 1]} instead of {want[at : at + 1]}"
        )
    out.write(
        event="audited",
        messages=sum(len(messages) for messages in source.values()),
        records=sum(len(records) for records in found.values()),
        places=sum(1 for records in found.values() if records),
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["feed", "put", "audit"])
    parser.add_argument("--brokers", required=True)
    parser.add_argument("--topic", required=True)
    parser.add_argument("--to")
    parser.add_argument("--by-key", action="store_true", help="one order per key, not partition")
    parser.add_argument("--partitions", type=int, default=1)
    parser.add_argument("--interval", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", required=True)
    parser.add_argument("values", nargs="*", help="files, each the value of a record")
    options = parser.parse_intermixed_args()
    {"feed": feed, "put": put, "audit": audit}[options.what](options, Lines(options.out))


if __name__ == "__main__":
    main()
