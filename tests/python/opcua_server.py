"""An OPC-UA server that is not ours: counters that go up by one at every tick.

Writes what each counter was set to as a JSON line, with its source time in nanoseconds since the
Unix epoch. Every `--bad-every`-th value carries BadSensorFailure instead of Good. `--namespaces`
puts that many namespaces before the counters' own. SIGUSR2 deletes every subscription.
"""

import argparse
import asyncio
import datetime
import logging
import signal

from asyncua import Server, ua

from lines import Lines, asked_to_stop

NAMESPACE = "urn:skerry:tests"
EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)


async def delete_subscriptions(server, out):
    service = server.iserver.subscription_service
    await service.delete_subscriptions(list(service.subscriptions))
    out.write(event="subscriptions deleted")


async def serve(options):
    out = Lines(options.out)
    stop = asked_to_stop()
    server = Server()
    await server.init()
    server.set_endpoint(f"opc.tcp://127.0.0.1:{options.port}/tests")
    server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
    for number in range(options.namespaces):
        await server.register_namespace(f"urn:skerry:other:{number}")
    index = await server.register_namespace(NAMESPACE)
    nodes = []
    for number in range(options.counters):
        name = f"Counter{number}"
        node = await server.nodes.objects.add_variable(
            ua.NodeId(name, index), name, ua.Variant(options.first, ua.VariantType.Int64)
        )
        nodes.append((name, node))
    value = options.first
    asyncio.get_running_loop().add_signal_handler(
        signal.SIGUSR2, lambda: asyncio.ensure_future(delete_subscriptions(server, out))
    )
    async with server:
        out.write(event="serving", namespace=index)
        while not stop.is_set():
            await asyncio.sleep(options.interval)
            value += 1
            bad = options.bad_every and value % options.bad_every == 0
            status = ua.StatusCodes.BadSensorFailure if bad else ua.StatusCodes.Good
            now = datetime.datetime.now(datetime.timezone.utc)
            time = (now - EPOCH) // datetime.timedelta(microseconds=1) * 1000
            for name, node in nodes:
                data = ua.DataValue(
                    ua.Variant(value, ua.VariantType.Int64),
                    StatusCode=ua.StatusCode(status),
                    SourceTimestamp=now,
                    ServerTimestamp=now,
                )
                await node.write_value(data)
                out.write(event="set", name=name, value=value, status=status, time=time)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--counters", type=int, default=3)
    parser.add_argument("--first", type=int, default=0, help="where the counters go on")
    parser.add_argument("--interval", type=float, default=0.1, help="seconds between ticks")
    parser.add_argument("--namespaces", type=int, default=0)
    parser.add_argument("--bad-every", type=int, default=0)
    parser.add_argument("--out", required=True)
    logging.basicConfig(level=logging.ERROR)
    asyncio.run(serve(parser.parse_args()))


main()
