"""A clock for an asyncua server that is set, and that stops, on command.

SIGUSR1 sets it an hour ahead, SIGHUP has it stand still; the values' own times stay right.
"""

import asyncio
import datetime
import signal

HOUR = datetime.timedelta(hours=1)
TICK_S = 1


class Clock:
    """Takes the place of what asyncua has show the time."""

    def __init__(self, server, out):
        self._server = server.iserver
        self._out = out
        self._ahead = datetime.timedelta()
        self._runs = True
        self._server._set_current_time_loop = self._run
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGUSR1, self._set)
        loop.add_signal_handler(signal.SIGHUP, self._stop)

    def _set(self):
        self._ahead += HOUR
        self._out.write(event="clock set")

    def _stop(self):
        self._runs = False
        self._out.write(event="clock stopped")

    async def _run(self):
        while not self._server._time_task_stop:
            if self._runs:
                now = datetime.datetime.now(datetime.timezone.utc) + self._ahead
                await self._server.current_time_node.write_value(now)
            await asyncio.sleep(TICK_S)
