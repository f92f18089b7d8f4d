"""An OPC-UA server with two values that are measured when it suits the machine, and told when it suits the bus:
`Level` now and then late, some values very late, `Load` seldom; for a while, neither.

Starts with SIGUSR1, and writes a JSON line for each value and one at the end.
"""

import argparse
import asyncio
import datetime
import logging
import random
import signal

from asyncua import Server, ua

from lines import Lines, asked_to_stop

NAMESPACE = "urn:skerry:tests"
SECONDS = 60
# Between these no value is measured.
SILENCE_S = (30, 35)
# So long ago the script begins; it is told faster than it happened, and never of what is to come.
AGO = datetime.timedelta(seconds=2 * SECONDS)


def script(rng):
    """When each is told, its name, when it was measured, its value; in seconds."""
    told = []
    for name, distance, high in (("Level", 0.07, 50.0), ("Load", 0.3, 8.0)):
        at, value = 0.0, high / 2
        while at < SECONDS:
            at += rng.expovariate(1 / distance)
            value += rng.gauss(0, high / 40)
            if SILENCE_S[0] < at < SILENCE_S[1]:
                continue
            late = 0.0
            if name == "Level":
                late = rng.choices((0.0, 0.35, 2.0), (0.85, 0.13, 0.02))[0]
            told.append((at + late, name, at, value))
    return sorted(told)


async def write(node, value, measured):
    # To a microsecond, as datetime has it.
    await node.write_value(
        ua.DataValue(
            ua.Variant(value, ua.VariantType.Double),
            SourceTimestamp=measured,
            ServerTimestamp=datetime.datetime.now(datetime.timezone.utc),
        )
    )


async def serve(options):
    out = Lines(options.out)
    stop = asked_to_stop()
    server = Server()
    await server.init()
    server.set_endpoint(f"opc.tcp://127.0.0.1:{options.port}/tests")
    server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
    index = await server.register_namespace(NAMESPACE)
    begin = datetime.datetime.now(datetime.timezone.utc) - AGO
    nodes = {}
    for name in ("Level", "Load"):
        first = ua.Variant(0.0, ua.VariantType.Double)
        nodes[name] = await server.nodes.objects.add_variable(ua.NodeId(name, index), name, first)
        # What a client is told when it comes.
        await write(nodes[name], 0.0, begin)
    started = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, started.set)
    async with server:
        out.write(event="serving", namespace=index)
        while not stop.is_set():
            await asyncio.sleep(0.05)
            if not started.is_set():
                continue
            started.clear()
            for number, (_, name, measured, value) in enumerate(script(random.Random(5))):
                await write(nodes[name], value, begin + datetime.timedelta(seconds=measured))
                out.write(event="set", name=name)
                if number % 5 == 4:
                    await asyncio.sleep(0.04)
            out.write(event="all set")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--out", required=True)
    logging.basicConfig(level=logging.ERROR)
    asyncio.run(serve(parser.parse_args()))


main()
