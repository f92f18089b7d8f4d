"""What the helpers share: they report as lines and end when their standard input closes."""

import json
import os
import threading


class Lines:
    """A file of JSON lines, whole lines only, in the order things happened."""

    def __init__(self, path):
        self._file = open(path, "a", buffering=1, encoding="utf-8")

    def write(self, **fields):
        self._file.write(json.dumps(fields, separators=(",", ":")) + "\n")


def asked_to_stop():
    """An event that is set once the test closes our standard input, or is gone."""
    event = threading.Event()

    def wait():
        # Not through `sys.stdin`: its lock would trip the interpreter's exit.
        while os.read(0, 4096):
            pass
        event.set()

    threading.Thread(target=wait, daemon=True).start()
    return event
