"""NASA's C-MAPSS FD001 as the node sees it: windows of sensor values, engine by engine."""

import gzip
import io

import numpy as np

ROWS = 30
# Those of the 21 sensors that say anything at this one operating point.
SENSORS = [2, 3, 4, 7, 8, 9, 11, 12, 13, 14, 15, 17, 20, 21]
COLUMNS = [f"s{number}" for number in SENSORS]
# Nobody can tell 200 cycles of life from 150: the usual cap, in training and in every figure.
LIFE_MAX = 125.0


def table(path):
    return np.loadtxt(io.BytesIO(gzip.decompress(path.read_bytes())))


def engines(folder, part):
    """The sensor values of each engine, one array of `[cycles, sensors]` each."""
    rows = table(folder / "cmapss" / f"{part}_FD001.txt.gz")
    columns = [4 + number for number in SENSORS]
    return [rows[rows[:, 0] == unit][:, columns].astype(np.float32) for unit in np.unique(rows[:, 0])]


def windows(engine):
    """Every window of an engine, oldest first: `[n, ROWS, sensors]`."""
    return np.lib.stride_tricks.sliding_window_view(engine, ROWS, axis=0).transpose(0, 2, 1)


def training(folder):
    """All training windows, the life left after each, and the engine each is from."""
    x, y, engine = [], [], []
    for number, values in enumerate(engines(folder, "train")):
        found = windows(values)
        x.append(found)
        y.append(np.minimum(np.arange(len(found))[::-1], LIFE_MAX))
        engine.append(np.full(len(found), number))
    return np.concatenate(x), np.concatenate(y).astype(np.float32), np.concatenate(engine)


def test(folder):
    """The last window of each test engine, and the life that was left: what papers report on."""
    x = np.stack([windows(engine)[-1] for engine in engines(folder, "test")])
    return x, np.minimum(table(folder / "cmapss" / "RUL_FD001.txt.gz"), LIFE_MAX)


def rmse(predicted, true):
    return float(np.sqrt(np.mean((np.clip(predicted, 0, LIFE_MAX) - true) ** 2)))


def phm_score(predicted, true):
    """The PHM 2008 challenge's: late is worse than early."""
    late = np.clip(predicted, 0, LIFE_MAX) - true
    return float(np.sum(np.where(late < 0, np.exp(-late / 13), np.exp(late / 10)) - 1))
