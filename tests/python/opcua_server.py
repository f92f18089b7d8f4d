"""An OPC-UA server that is not ours: counters that go up by one at every tick.

Writes what each counter was set to as a JSON line. Every `--bad-every`-th value carries
BadSensorFailure instead of Good.
"""

import argparse
import asyncio
import datetime
import logging

from asyncua import Server, ua

from lines import Lines, asked_to_stop

NAMESPACE = "urn:skerry:tests"


async def serve(options):
    out = Lines(options.out)
    stop = asked_to_stop()
    server = Server()
    await server.init()
    server.set_endpoint(f"opc.tcp://127.0.0.1:{options.port}/tests")
    server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
    index = await server.register_namespace(NAMESPACE)
    nodes = []
    for number in range(options.counters):
        name = f"Counter{number}"
        node = await server.nodes.objects.add_variable(
            ua.NodeId(name, index), name, ua.Variant(options.first, ua.VariantType.Int64)
        )
        nodes.append((name, node))
    value = options.first
    async with server:
        out.write(event="serving", namespace=index)
        while not stop.is_set():
            await asyncio.sleep(options.interval)
            value += 1
            bad = options.bad_every and value % options.bad_every == 0
            status = ua.StatusCodes.BadSensorFailure if bad else ua.StatusCodes.Good
            now = datetime.datetime.now(datetime.timezone.utc)
            for name, node in nodes:
                data = ua.DataValue(
                    ua.Variant(value, ua.VariantType.Int64),
                    StatusCode=ua.StatusCode(status),
                    SourceTimestamp=now,
                    ServerTimestamp=now,
                )
                await node.write_value(data)
                out.write(event="set", name=name, value=value, status=status)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--counters", type=int, default=3)
    parser.add_argument("--first", type=int, default=0, help="where the counters go on")
    parser.add_argument("--interval", type=float, default=0.1, help="seconds between ticks")
    parser.add_argument("--bad-every", type=int, default=0)
    parser.add_argument("--out", required=True)
    logging.basicConfig(level=logging.ERROR)
    asyncio.run(serve(parser.parse_args()))


main()
