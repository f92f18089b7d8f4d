"""Publishes numbered messages with paho and keeps a journal of what was sent and acknowledged.

One thread, a persistent session, reconnecting for ever: what was not acknowledged is sent again
by paho, in order, as MQTT asks. Ends when `--count` messages are acknowledged, or, once its
standard input closes, when all it has sent are.
"""

import argparse
import json
import os
import time

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from lines import Lines, asked_to_stop

RECONNECT_PAUSE_S = 0.1


class Client(mqtt.Client):
    """paho, with its messages made ready to be sent again once for each connection that was there.

    paho 2.2 does so at each attempt, and the second one in a row forgets that a PUBREC was received:
    it publishes the message anew, without DUP, after its PUBREL has released the packet id.
    """

    answered = False

    def _messages_reconnect_reset(self):
        if self.answered:
            self.answered = False
            super()._messages_reconnect_reset()


class Publisher:
    def __init__(self, options):
        self.options = options
        self.journal = Lines(options.journal)
        self.stop = asked_to_stop()
        self.sent = 0
        self.acked = 0
        self.in_flight = {}
        self.connected = False
        self.connections = 0
        self.next_at = time.monotonic()
        self.script = self.read_script()
        self.client = self.make_client()

    def read_script(self):
        """The messages to send instead of numbered ones, each `{"topic":…,"payload":…}`, or with `"text":…` as it is."""
        if not self.options.script:
            return []
        with open(self.options.script, encoding="utf-8") as lines:
            messages = [json.loads(line) for line in lines]
        self.options.count = len(messages)
        return messages

    def make_client(self):
        name = self.options.name
        if self.options.protocol == 5:
            client = Client(
                mqtt.CallbackAPIVersion.VERSION2, client_id=name, protocol=mqtt.MQTTv5
            )
        else:
            client = Client(
                mqtt.CallbackAPIVersion.VERSION2, client_id=name, clean_session=False
            )
        # More than we ever have out: paho never holds a message back for its own window.
        client.max_inflight_messages_set(self.options.window + 1)
        client.on_connect = self.on_connect
        client.on_disconnect = self.on_disconnect
        client.on_publish = self.on_publish
        return client

    def connect(self):
        if self.options.protocol == 5:
            properties = Properties(PacketTypes.CONNECT)
            properties.SessionExpiryInterval = 3600
            self.client.connect(
                "127.0.0.1",
                self.options.port,
                keepalive=10,
                clean_start=False,
                properties=properties,
            )
        else:
            self.client.connect("127.0.0.1", self.options.port, keepalive=10)

    def on_connect(self, client, _userdata, flags, reason, _properties):
        client.answered = True
        if reason.is_failure:
            self.journal.write(event="refused", reason=str(reason))
            return
        self.connected = True
        self.connections += 1
        self.journal.write(
            event="connected", connection=self.connections, resumed=flags.session_present
        )

    def on_disconnect(self, *_):
        self.connected = False

    def on_publish(self, _client, _userdata, mid, reason, _properties):
        number = self.in_flight.pop(mid)
        self.acked += 1
        # "Packet identifier not found" answers a PUBREL sent again whose PUBCOMP was lost: the
        # exchange was complete (MQTT 5, 3.7.2.1).
        complete = reason.getName() == "Packet identifier not found"
        event = "acked" if complete or not reason.is_failure else "rejected"
        self.journal.write(event=event, id=number, connection=self.connections)

    def may_send(self):
        if not self.connected or self.stop.is_set():
            return False
        if self.options.count and self.sent >= self.options.count:
            return False
        return len(self.in_flight) < self.options.window and time.monotonic() >= self.next_at

    def message(self, number):
        if self.script:
            message = self.script[number]
            text = message.get("text")
            return message["topic"], json.dumps(message["payload"]) if text is None else text
        topic = self.options.topic[number % len(self.options.topic)]
        message = {"by": self.options.name, "id": number, "value": number / 10}
        if self.options.pad:
            # Not to be compressed away: half a byte of chance per character.
            message["pad"] = os.urandom(self.options.pad // 2).hex()
        return topic, json.dumps(message, separators=(",", ":"))

    def send(self):
        number = self.sent
        topic, payload = self.message(number)
        # Into the journal first: a message we do not know of must not turn up.
        self.journal.write(event="sent", id=number, topic=topic, connection=self.connections)
        info = self.client.publish(topic, payload, qos=self.options.qos)
        self.in_flight[info.mid] = number
        self.sent += 1
        self.next_at = max(self.next_at + self.options.interval, time.monotonic() - 1)

    def done(self):
        finished = self.stop.is_set() or (self.options.count and self.sent >= self.options.count)
        return finished and not self.in_flight

    def run(self):
        up = False
        while not self.done():
            try:
                if not up:
                    self.connect()
                    up = True
                while self.may_send():
                    self.send()
                up = self.client.loop(timeout=0.01) == mqtt.MQTT_ERR_SUCCESS
            except OSError:
                up = False
            if not up:
                self.connected = False
                time.sleep(RECONNECT_PAUSE_S)
        self.client.disconnect()
        self.journal.write(event="done", sent=self.sent, acked=self.acked)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--name", required=True, help="client id, and `by` in every message")
    parser.add_argument("--topic", action="append", default=[])
    parser.add_argument("--script", help="a file of messages to send instead of numbered ones")
    parser.add_argument("--pad", type=int, default=0, help="characters of noise per message")
    parser.add_argument("--qos", type=int, choices=(1, 2), default=1)
    parser.add_argument("--protocol", type=int, choices=(4, 5), default=4)
    parser.add_argument("--count", type=int, default=0, help="0: until standard input closes")
    parser.add_argument("--window", type=int, default=20, help="unacknowledged messages at most")
    parser.add_argument("--interval", type=float, default=0.0, help="seconds between messages")
    parser.add_argument("--journal", required=True)
    Publisher(parser.parse_args()).run()


main()
