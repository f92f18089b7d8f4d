#!/usr/bin/env python3
"""Runs conformance suites that are not ours against a broker; see tests/README.md.

    mqtt_suites.py sequences DIR  --broker COMMAND    mosquitto's JSON packet sequences
    mqtt_suites.py paho3 DIR      --broker COMMAND    paho.mqtt.testing, MQTT 3.1.1
    mqtt_suites.py paho5 DIR      --broker COMMAND    paho.mqtt.testing, MQTT 5

DIR is a checkout of the suite, COMMAND a path to `skerry` or `mosquitto`; which of the two it is
tells its name. The last lines are the names of what failed and `passed/total`.

Nothing of a suite is changed, but the sequences expect mosquitto's answer also where the standard
leaves a broker the choice. So what is compared leaves out
- of CONNACK, what it announces: each broker has limits of its own;
- reason strings, which a broker may send, and PUBACK's "no matching subscribers", which it may not
  know;
- whether a broker that closes says so before (DISCONNECT of version 5, a refusing CONNACK);
- which of an acknowledgement and a delivery comes first.
With --lenient, any refusal will do where one is expected: closing, or another reason code.
"""

import argparse
import contextlib
import io
import json
import multiprocessing
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SKERRY = """\
[node]
name = "conformance"
data_dir = "{folder}/data"
allow_volatile = true
[http]
listen = "127.0.0.1:{http_port}"
[mqtt]
listen = "127.0.0.1:{port}"
{extra}
"""
# What the suites expect of a broker's configuration: a maximum keep-alive of 60 s, and a filter
# that nobody may subscribe to.
MOSQUITTO = """\
user root
listener {port} 127.0.0.1
allow_anonymous true
max_keepalive 60
acl_file {folder}/acl
"""
MOSQUITTO_ACL = "topic readwrite #\ntopic readwrite $SYS/#\ntopic deny test/nosubscribe\n"
CONNACK, DISCONNECT = 0x20, 0xE0
REASON_STRING = 0x1F


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Broker:
    """A fresh broker with an empty data folder."""

    def __init__(self, command, extra=""):
        self.command, self.extra = command, extra

    def __enter__(self):
        self.folder = tempfile.mkdtemp(prefix="mqtt-suites-")
        self.port = free_port()
        config = Path(self.folder, "config")
        if Path(self.command).name == "mosquitto":
            Path(self.folder, "acl").write_text(MOSQUITTO_ACL)
            config.write_text(MOSQUITTO.format(port=self.port, folder=self.folder))
            arguments = ["-c", config]
        else:
            text = SKERRY.format(
                port=self.port, http_port=free_port(), folder=self.folder, extra=self.extra
            )
            config.write_text(text)
            arguments = ["run", config]
        self.log = open(Path(self.folder, "log"), "w")
        self.process = subprocess.Popen(
            [self.command, *arguments], stdout=self.log, stderr=subprocess.STDOUT
        )
        deadline = time.monotonic() + 20
        while not self.answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                sys.exit(f"the broker did not start:\n{Path(self.folder, 'log').read_text()}")
            time.sleep(0.02)
        return self

    def answers(self):
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=2).close()
            return True
        except OSError:
            return False

    def __exit__(self, *_):
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()
        shutil.rmtree(self.folder, ignore_errors=True)


# --- mosquitto's packet sequences ------------------------------------------------------------


def read_packet(sock):
    """One whole packet: first byte and body."""
    def exactly(count):
        got = b""
        while len(got) < count:
            piece = sock.recv(count - len(got))
            if not piece:
                return None
            got += piece
        return got

    first = exactly(1)
    length, shift = 0, 0
    while first is not None:
        byte = exactly(1)
        if byte is None:
            break
        length |= (byte[0] & 0x7F) << shift
        shift += 7
        if byte[0] < 0x80:
            body = exactly(length)
            return None if body is None else (first[0], body)
    return None


def comparable(packet, version):
    """What of a packet is compared."""
    if packet is None or version != 5:
        return packet
    first, body = packet
    kind = first & 0xF0
    if kind == CONNACK:
        return first, body[:2]
    if kind == DISCONNECT:
        return first, body[:1] or b"\0"
    # Reason code and properties of acknowledgements; those of the others follow the packet id.
    at = {0x40: 3, 0x50: 3, 0x60: 3, 0x70: 3, 0x90: 2, 0xB0: 2}.get(kind)
    if at is None:
        return packet
    if kind in (0x40, 0x50) and body[2:3] == b"\x10":
        body = body[:2] + b"\0" + body[3:]
    if at == 3 and len(body) <= 3:
        return first, body[:2] + (body[2:3] or b"\0")
    if len(body) > at and body[at] < 0x80:
        block, rest = body[at + 1 : at + 1 + body[at]], body[at + 1 + body[at] :]
        if block[:1] == bytes([REASON_STRING]):
            block = block[3 + int.from_bytes(block[1:3]) :]
        if at == 3 and not block:
            return first, body[:3]
        return first, body[:at] + bytes([len(block)]) + block + rest
    return packet


def parsed(expected):
    left, right = socket.socketpair()
    with left, right:
        left.sendall(expected)
        left.close()
        return read_packet(right)


def all_sequences(suite, folder):
    """(file, group, test) of every sequence."""
    for path in sorted(folder.glob("*.json")):
        for group in json.loads(path.read_text()):
            if not group.get("disable"):
                for test in group["tests"]:
                    yield path.stem, group, test


def sequence_worker(*arguments, results):
    try:
        run_sequences(*arguments, results)
    finally:
        results.put(None)


def run_sequences(command, extra, directory, jobs, job, pattern, lenient, results):
    os.environ.setdefault("BUILD_ROOT", str(directory))
    sys.path[:0] = [str(directory / "test/broker"), str(directory / "test")]
    import msg_sequence_test as suite  # noqa: the suite's own code
    import mosq_test

    def is_refusal(packet):
        if packet is None:
            return True
        first, body = packet
        at = {CONNACK: 1, DISCONNECT: 0}.get(first)
        return at is not None and len(body) > at and body[at] > 0

    # A packet that came before the one that was awaited; deliveries and acknowledgements only.
    early = []

    def receive(self, sock, msg):
        wanted = parsed(msg.message)
        got = early.pop() if early else read_packet(sock)
        if not same(got, wanted, self.proto_ver) and got and got[0] & 0xF0 in (0x30, 0x40, 0x70):
            early.append(got)
            got = read_packet(sock)
        accepted = same(got, wanted, self.proto_ver)
        if lenient and is_refusal(wanted):
            accepted = is_refusal(got)
        if not accepted:
            raise ValueError(f"got {shown(got)}, expected {shown(wanted)}")

    def same(got, wanted, version):
        return comparable(got, version) == comparable(wanted, version)

    def disconnected(self, sock):
        try:
            while True:
                packet = read_packet(sock)
                if packet is None:
                    return
                if not is_refusal(packet):
                    raise ValueError(f"still connected, got {shown(packet)}")
        except TimeoutError:
            raise ValueError("still connected")
        except ConnectionResetError:
            pass

    def shown(packet):
        if packet is None:
            return "nothing"
        return f"{packet[0]:02x} {packet[1].hex(' ')}"

    suite.MsgSequence._recv_message = receive
    suite.MsgSequence._disconnected_check = disconnected
    with contextlib.ExitStack() as stack:
        broker = stack.enter_context(Broker(command, extra))
        tests = list(all_sequences(suite, directory / "test/broker/data"))
        files = sorted({file for file, _, _ in tests})
        for index, (file, group, test) in enumerate(tests):
            name = f"{file} | {group['group']} | {test['name']} | {index}"
            # By file: sequences of one file build upon each other.
            if files.index(file) % jobs != job or not re.search(pattern, name):
                continue
            setting = lambda key, default: test.get(key, group.get(key, default))
            sequence = suite.MsgSequence(
                f"{group['group']} {test['name']}",
                port=broker.port,
                protocol="mqtt",
                proto_ver=setting("ver", 4),
                expect_disconnect=setting("expect_disconnect", True),
                default_connect=setting("connect", True),
            )
            add = {
                "send": lambda m: sequence.add_send(suite.parse_message(m["payload"])),
                "recv": lambda m: sequence.add_recv(
                    suite.parse_message(m["payload"]), m.get("comment", "")
                ),
                "external_publish": lambda m: sequence.add_external_publish(m, ""),
                "subscribe": lambda m: sequence.add_subscribe(m, ""),
                "unsubscribe": lambda m: sequence.add_unsubscribe(m, ""),
            }
            for message in test["msgs"]:
                add[message["type"]](message)
            why = None
            early.clear()
            # The helper connects to "localhost" and the suite prints what it meets.
            with contextlib.redirect_stdout(io.StringIO()):
                try:
                    sock = mosq_test.client_connect_only("127.0.0.1", broker.port, timeout=2)
                    with sock:
                        sequence.process_all(sock)
                except (ValueError, OSError, mosq_test.TestError) as error:
                    why = f"{type(error).__name__}: {error}"
            down = not broker.answers()
            results.put((name, why, down))
            if down:
                stack.close()
                broker = stack.enter_context(Broker(command, extra))


def sequences(options):
    results = multiprocessing.Queue()
    workers = [
        multiprocessing.Process(
            target=sequence_worker,
            args=(options.broker, options.config, options.directory, options.jobs, job,
                  options.only, options.lenient),
            kwargs={"results": results},
        )
        for job in range(options.jobs)
    ]
    for worker in workers:
        worker.start()
    outcome, running, outages = {}, len(workers), 0
    while running:
        result = results.get()
        if result is None:
            running -= 1
        else:
            name, why, down = result
            outcome[name] = why
            outages += down
    for worker in workers:
        worker.join()
    print(f"outages: {outages}")
    return outcome


# --- paho.mqtt.testing -----------------------------------------------------------------------

PAHO = """\
import sys, unittest
sys.path.insert(0, ".")
import {module} as suite
suite.host, suite.port, suite.topic_prefix = "127.0.0.1", {port}, "client_test5/"
suite.topics = ("TopicA", "TopicA/B", "Topic/C", "TopicA/C", "/TopicA")
suite.wildtopics = ("TopicA/+", "+/C", "#", "/#", "/+", "+/+", "TopicA/#")
suite.nosubscribe_topics = ("test/nosubscribe",)
unittest.main(module=suite, argv=["suite", "Test.{test}"])
"""


def paho_test(job):
    command, extra, folder, module, test = job
    with Broker(command, extra) as broker:
        code = PAHO.format(module=module, port=broker.port, test=test)
        try:
            done = subprocess.run(
                [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=120
            )
            why = None if done.returncode == 0 else (done.stdout + done.stderr).strip()
        except subprocess.TimeoutExpired:
            why = "no end after 120 s"
        if not broker.answers():
            why = f"the broker is down; {why}"
    return test, why


def paho(options, module):
    folder = options.directory / "interoperability"
    source = (folder / f"{module}.py").read_text()
    tests = [t for t in re.findall(r"def (test\w+)\(self", source) if re.search(options.only, t)]
    jobs = [(options.broker, options.config, folder, module, test) for test in tests]
    with multiprocessing.Pool(options.jobs) as pool:
        return dict(pool.imap_unordered(paho_test, jobs))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("suite", choices=["sequences", "paho3", "paho5"])
    parser.add_argument("directory", type=lambda text: Path(text).resolve())
    parser.add_argument("--broker", required=True, help="path of skerry or mosquitto")
    parser.add_argument("--config", default="", help="more lines for skerry's configuration")
    parser.add_argument("--only", default="", help="a pattern that a test's name has to contain")
    parser.add_argument(
        "--lenient", action="store_true",
        help="any refusal will do where one is expected",
    )
    parser.add_argument("--jobs", type=int, default=4, help="brokers side by side")
    options = parser.parse_args()
    run = {
        "sequences": sequences,
        "paho3": lambda o: paho(o, "client_test"),
        "paho5": lambda o: paho(o, "client_test5"),
    }
    outcome = run[options.suite](options)
    for name, why in sorted(outcome.items()):
        if why is not None:
            print(f"FAILED {name}\n    {why}")
    passed = sum(why is None for why in outcome.values())
    print(f"{options.suite}: {passed}/{len(outcome)}")
    sys.exit(passed != len(outcome))


if __name__ == "__main__":
    main()
