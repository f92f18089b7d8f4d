"""A model over windows on a grid of time: by numpy and onnxruntime, what a node is to make of the values
in its log, which have times of their own, come out of order and are away for a while."""

import argparse
import json
import sys
from pathlib import Path

import numpy as np

from lines import Lines

FAMILIES = Path(__file__).resolve().parents[2] / "inference" / "tests" / "families"
sys.path.insert(0, str(FAMILIES))
from references import answers  # noqa: E402

MODEL = FAMILIES / "polynomial.onnx"
PERIOD, LATE, STALE = 100_000_000, 500_000_000, 2_000_000_000
ROWS, STEP = 20, 5


def up(time):
    """The first point of the grid at a time or after it."""
    return -(-time // PERIOD)


class Column:
    def __init__(self, is_linear):
        self._is_linear = is_linear
        self._values = {}

    def take(self, time, value):
        self._values[time] = np.float64(np.float32(value))

    def at(self, point):
        """Its value there, from what has come so far; none where nothing counts."""
        times = np.array(sorted(self._values))
        at = np.searchsorted(times, point, side="right")
        if at == 0:
            return None
        before = times[at - 1]
        if not self._is_linear or before == point:
            return self._values[before] if point - before <= STALE else None
        if at == len(times) or times[at] - before > STALE:
            return None
        around = times[at - 1 : at + 1]
        return np.float32(np.interp(point - before, around - before, [self._values[it] for it in around]))


def told_of(window):
    mean = window.mean()
    slope = np.polyfit(np.arange(ROWS), window, 1)[0]
    return [mean, window.std(), slope]


def rows_of(values):
    """The rows with their points, as values come one by one; and how many values come too late."""
    columns = {"Level": Column(True), "Load": Column(False)}
    rows, late, youngest, following = [], 0, 0, None
    for name, time, value in values:
        if following is None:
            following = up(time)
        if time <= (following - 1) * PERIOD:
            late += 1
            continue
        youngest = max(youngest, time)
        columns[name].take(time, value)
        while following < up(youngest - LATE):
            row = [column.at(following * PERIOD) for column in columns.values()]
            if None not in row:
                rows.append((following, row))
            following += 1
    return rows, late


def windows(rows):
    """Of full windows without a silence in them, those that end when a score is due."""
    inputs, run, last = [], [], None
    for point, row in rows:
        if last is not None and (point - last) * PERIOD > STALE:
            run = []
        run.append(row)
        last = point
        if len(run) >= ROWS and point % STEP == 0:
            window = np.array(run[-ROWS:], np.float64)
            inputs.append(told_of(window[:, 0]) + told_of(window[:, 1]))
    return np.array(inputs, np.float32)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--log", type=Path, required=True, help="JSON lines of skerry log cat")
    parser.add_argument("--out", required=True)
    arguments = parser.parse_args()
    records = [json.loads(line) for line in arguments.log.read_text().splitlines()]
    values = [
        (record["source"], record["source_time_ns"], record["payload"]["value"])
        for record in records
        if record["kind"] == "opcua"
    ]
    rows, late = rows_of(values)
    scores, _ = answers(MODEL, windows(rows), {})
    lines = Lines(arguments.out)
    scores = [float(score) for score in scores]
    lines.write(event="expected", scores=scores, late=late, rows=len(rows))


main()
