"""Sends commands with paho as MQTT 5 requests, one after the other, and writes what came of each.

Each message of the script is `{"topic": …, "payload": …}`; with `"silent": true` no answer is
awaited. A line says `refused` with the broker's reason, `result` with the answer and its
correlation data, or `silent`.
"""

import argparse
import json
import queue

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from lines import Lines

ANSWER_TIMEOUT_S = 30


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--script", required=True)
    parser.add_argument("--out", required=True)
    options = parser.parse_args()
    out = Lines(options.out)
    subscribed, acknowledged, answers = queue.Queue(), queue.Queue(), queue.Queue()

    client = mqtt.Client(
        mqtt.CallbackAPIVersion.VERSION2, client_id=options.name, protocol=mqtt.MQTTv5
    )
    client.on_connect = lambda client, *_: client.subscribe("cmd/#", qos=1)
    client.on_subscribe = lambda *_: subscribed.put(True)
    client.on_publish = lambda _client, _data, _id, reason, _properties: acknowledged.put(reason)

    def on_message(_client, _userdata, message):
        if "/result" in message.topic:
            answers.put(message)

    client.on_message = on_message
    client.connect("127.0.0.1", options.port)
    client.loop_start()
    subscribed.get(timeout=ANSWER_TIMEOUT_S)
    with open(options.script, encoding="utf-8") as script:
        commands = [json.loads(line) for line in script]
    for number, command in enumerate(commands):
        request = Properties(PacketTypes.PUBLISH)
        request.ResponseTopic = f"{command['topic']}/result/{options.name}"
        request.CorrelationData = str(number).encode()
        client.publish(command["topic"], command["payload"], qos=1, properties=request)
        reason = acknowledged.get(timeout=ANSWER_TIMEOUT_S)
        if reason.is_failure:
            out.write(event="refused", number=number, reason=reason.value)
        elif command.get("silent"):
            out.write(event="silent", number=number)
        else:
            answer = answers.get(timeout=ANSWER_TIMEOUT_S)
            out.write(
                event="result",
                number=number,
                topic=answer.topic,
                payload=json.loads(answer.payload),
                correlation=answer.properties.CorrelationData.decode(),
            )
    client.disconnect()
    client.loop_stop()


main()
