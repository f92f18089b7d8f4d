"""Writes every message of the given filters as a JSON line; reconnects for ever."""

import argparse

import paho.mqtt.client as mqtt

from lines import Lines, asked_to_stop


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--filter", action="append", required=True)
    parser.add_argument("--qos", type=int, default=1)
    parser.add_argument("--out", required=True)
    options = parser.parse_args()
    out = Lines(options.out)
    stop = asked_to_stop()

    def on_connect(client, _userdata, _flags, reason, _properties):
        if not reason.is_failure:
            client.subscribe([(name, options.qos) for name in options.filter])

    def on_subscribe(_client, _userdata, _mid, reasons, _properties):
        out.write(event="subscribed", failed=any(reason.is_failure for reason in reasons))

    def on_message(_client, _userdata, message):
        out.write(
            event="message",
            topic=message.topic,
            payload=message.payload.decode("utf-8", "replace"),
            qos=message.qos,
            retain=message.retain,
        )

    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=options.name)
    client.on_connect = on_connect
    client.on_subscribe = on_subscribe
    client.on_message = on_message
    client.reconnect_delay_set(1, 1)
    client.connect_async("127.0.0.1", options.port, keepalive=10)
    client.loop_start()
    stop.wait()
    client.disconnect()
    client.loop_stop()


main()
