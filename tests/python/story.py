"""What every client does with a broker, told by paho; ends with 0 if all of it works.

Quality of service and wildcards, retained messages, a will, a session that outlives its
connection. `tests/mqtt-js/story.mjs` tells the same.
"""

import argparse
import os
import queue
import socket
import ssl

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

WAIT_S = 30


class Client:
    """One connection; what it gets is in `messages`."""

    def __init__(self, options, name, clean=True, will=None):
        self.messages = queue.Queue()
        self.connected = queue.Queue()
        self.subscribed = queue.Queue()
        transport = {"ws": "websockets", "wss": "websockets", "unix": "unix"}
        version = {4: mqtt.MQTTv311, 5: mqtt.MQTTv5}[options.protocol]
        self.client = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2,
            client_id=f"{options.name}-{name}",
            protocol=version,
            transport=transport.get(options.transport, "tcp"),
            reconnect_on_failure=False,
            # Version 5 says it in `connect`.
            **({"clean_session": clean} if options.protocol == 4 else {}),
        )
        if options.transport in ("tls", "wss"):
            self.client.tls_set(ca_certs=options.ca, cert_reqs=ssl.CERT_REQUIRED)
        if will:
            self.client.will_set(*will)
        self.client.on_connect = lambda _c, _u, flags, reason, _p: self.connected.put(
            (flags.session_present, reason)
        )
        self.client.on_subscribe = lambda *_: self.subscribed.put(True)
        self.client.on_message = lambda _c, _u, message: self.messages.put(message)
        more = {}
        if options.protocol == 5:
            more = {"clean_start": clean, "properties": Properties(PacketTypes.CONNECT)}
            more["properties"].SessionExpiryInterval = 0 if clean else 3600
        host = options.socket if options.transport == "unix" else "localhost"
        self.client.connect(host, options.port, keepalive=30, **more)
        self.client.loop_start()
        self.present, reason = self.connected.get(timeout=WAIT_S)
        assert not reason.is_failure, f"{name}: refused: {reason}"

    def subscribe(self, topic, qos):
        self.client.subscribe(topic, qos)
        self.subscribed.get(timeout=WAIT_S)

    def publish(self, topic, payload, qos, retain=False):
        self.client.publish(topic, payload, qos, retain).wait_for_publish(WAIT_S)

    def expect(self, payload, qos, retain=False):
        message = self.messages.get(timeout=WAIT_S)
        got = (message.payload.decode(), message.qos, message.retain)
        assert got == (payload, qos, retain), f"{got} on {message.topic}, not {payload} {qos}"

    def leave(self):
        self.client.disconnect()
        self.client.loop_stop()

    def vanish(self):
        """Without a DISCONNECT."""
        # The client's own socket may be wrapped in TLS or WebSocket: below them all it is TCP.
        number = self.client.socket().fileno()
        with socket.socket(fileno=os.dup(number)) as bare:
            bare.shutdown(socket.SHUT_RDWR)
        self.client.loop_stop()


def story(options):
    root = options.name
    publisher = Client(options, "publisher")
    lasting = Client(options, "lasting", clean=False)
    assert not lasting.present, "a session that never was"
    lasting.subscribe(f"{root}/+/state/#", 2)
    publisher.publish(f"{root}/a/other", "unwanted", 1)
    for qos in (0, 1, 2):
        publisher.publish(f"{root}/a/state/deep", str(qos), qos)
        lasting.expect(str(qos), qos)

    publisher.publish(f"{root}/kept", "kept", 1, retain=True)
    late = Client(options, "late")
    late.subscribe(f"{root}/kept", 1)
    late.expect("kept", 1, retain=True)
    publisher.publish(f"{root}/kept", "", 1, retain=True)
    late.expect("", 1)
    later = Client(options, "later")
    later.subscribe(f"{root}/kept", 1)
    publisher.publish(f"{root}/kept", "first", 1)
    later.expect("first", 1)

    later.subscribe(f"{root}/will", 1)
    mortal = Client(options, "mortal", will=(f"{root}/will", "gone", 1))
    mortal.vanish()
    later.expect("gone", 1)

    lasting.leave()
    for number in range(10):
        publisher.publish(f"{root}/b/state", str(number), 1 + number // 5)
    lasting = Client(options, "lasting", clean=False)
    assert lasting.present, "the session is gone"
    for number in range(10):
        lasting.expect(str(number), 1 + number // 5)
    for client in (publisher, lasting, late, later):
        client.leave()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", required=True, help="in client ids, and where topics start")
    parser.add_argument("--protocol", type=int, choices=(4, 5), required=True)
    parser.add_argument("--transport", choices=("tcp", "tls", "ws", "wss", "unix"), required=True)
    parser.add_argument("--port", type=int, default=1883)
    parser.add_argument("--ca", help="the authority to trust, for tls and wss")
    parser.add_argument("--socket", help="a path, for unix")
    story(parser.parse_args())


main()
