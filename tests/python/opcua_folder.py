"""An OPC-UA server that is not ours, with a folder whose variables come and go: Plant/Hall/Tag0, …

At every tick, each fiftieth tag and whatever came later is set to tick * 100,000 + the tag's number,
which tells the tag by its value. Node ids are numbers in the order in which the tags were made:
`--backwards` makes them the other way round, `--namespaces` puts that many namespaces before the
tags' own. SIGUSR1 takes Tag500 away and makes one more tag; SIGUSR2 puts it back and makes another.
"""

import argparse
import asyncio
import datetime
import logging
import signal

from asyncua import Server, ua

from lines import Lines, asked_to_stop

NAMESPACE = "urn:skerry:folder"
FIRST_ID = 1000
EVERY = 50
AWAY = 500


class Hall:
    def __init__(self, folder, index, out):
        self.folder, self.index, self.out = folder, index, out
        self.tags, self.next_id, self.live = {}, FIRST_ID, set()

    async def make(self, number, live=False):
        node_id = ua.NodeId(self.next_id, self.index)
        self.next_id += 1
        first = ua.Variant(number, ua.VariantType.Int64)
        self.tags[number] = await self.folder.add_variable(
            node_id, ua.QualifiedName(f"Tag{number}", self.index), first
        )
        if live:
            self.live.add(number)

    async def change(self, server, back, more):
        if back:
            await self.make(AWAY, live=True)
        else:
            await server.delete_nodes([self.tags.pop(AWAY)])
            self.live.discard(AWAY)
        await self.make(more, live=True)
        self.out.write(event="changed", back=back, more=more)

    async def tick(self, tick):
        now = datetime.datetime.now(datetime.timezone.utc)
        for number in sorted(self.live):
            value = tick * 100_000 + number
            data = ua.DataValue(
                ua.Variant(value, ua.VariantType.Int64), SourceTimestamp=now, ServerTimestamp=now
            )
            await self.tags[number].write_value(data)
            self.out.write(event="set", name=f"Tag{number}", value=value)


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
    plant = await server.nodes.objects.add_folder(index, "Plant")
    hall = Hall(await plant.add_folder(index, "Hall"), index, out)
    for number in sorted(range(options.tags), reverse=options.backwards):
        await hall.make(number, live=number % EVERY == 0)
    changes = asyncio.Queue()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR1, changes.put_nowait, (False, options.tags))
    loop.add_signal_handler(signal.SIGUSR2, changes.put_nowait, (True, options.tags + 1))
    tick = options.first
    async with server:
        out.write(event="serving", namespace=index)
        while not stop.is_set():
            await asyncio.sleep(options.interval)
            # Between two ticks, so that no tag is set while it goes.
            while not changes.empty():
                await hall.change(server, *changes.get_nowait())
            tick += 1
            await hall.tick(tick)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--tags", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0, help="where the ticks go on")
    parser.add_argument("--interval", type=float, default=0.1, help="seconds between ticks")
    parser.add_argument("--namespaces", type=int, default=0)
    parser.add_argument("--backwards", action="store_true")
    parser.add_argument("--out", required=True)
    logging.basicConfig(level=logging.ERROR)
    asyncio.run(serve(parser.parse_args()))


main()
