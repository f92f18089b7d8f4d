"""Puts packed records into a topic, and reads them as a consumer with `skerry_pack` does.

Prints a JSON line for each record that came out: where it was, and what it is, in base64.
"""

import argparse
import base64
import importlib.util
import json
import time

from confluent_kafka import Consumer, Producer

DEADLINE_S = 60


def load(path):
    spec = importlib.util.spec_from_file_location("skerry_pack", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def text(data):
    return None if data is None else base64.b64encode(data).decode()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--brokers", required=True)
    parser.add_argument("--topic", required=True)
    parser.add_argument("--decoder", required=True)
    parser.add_argument("values", nargs="+", help="files, each the value of a record")
    options = parser.parse_args()
    skerry_pack = load(options.decoder)

    producer = Producer({"bootstrap.servers": options.brokers, "enable.idempotence": True})
    for path in options.values:
        with open(path, "rb") as file:
            value = file.read()
        headers = [("skerry-pack", b"1")] if skerry_pack.is_packed(value) else []
        # One key: the order of one partition is the order of the lines.
        producer.produce(options.topic, value, key=b"k", headers=headers, timestamp=1_000)
    if producer.flush(DEADLINE_S):
        raise SystemExit("the cluster did not take the records")

    consumer = Consumer(
        {
            "bootstrap.servers": options.brokers,
            "group.id": "packed",
            "auto.offset.reset": "earliest",
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
        }
    )
    consumer.subscribe([options.topic])
    missing, deadline = len(options.values), time.monotonic() + DEADLINE_S
    while missing and time.monotonic() < deadline:
        message = consumer.poll(1.0)
        if message is None or message.error():
            continue
        missing -= 1
        for row in skerry_pack.unpack_message(message):
            print(
                json.dumps(
                    {
                        "kafka_offset": message.offset(),
                        "offset": row.offset,
                        "timestamp_ms": row.timestamp_ms,
                        "key": text(row.key),
                        "value": text(row.value),
                    }
                )
            )
    consumer.close()
    if missing:
        raise SystemExit(f"{missing} records did not come back")


if __name__ == "__main__":
    main()
