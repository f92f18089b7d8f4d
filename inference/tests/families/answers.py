"""What onnxruntime says of all windows of a test set, for inference/tests/nets.rs.

    python answers.py DATA OUT MODEL.onnx...

Writes OUT/windows and OUT/<model>: f32, little-endian, one window after the other. Of an auto-encoder also
OUT/<model>.mse and .mae, f64: how far its answer is from each window.
"""

import gzip
import io
import sys
from pathlib import Path

import numpy as np
import onnxruntime

ROWS = 30
SENSORS = [2, 3, 4, 7, 8, 9, 11, 12, 13, 14, 15, 17, 20, 21]
# Of the sensors in FD001's training set. Far outside of them a net says nothing, and says it with
# few digits.
MEANS = np.array([642.68, 1590.5, 1408.9, 553.37, 2388.1, 9065.2, 47.541, 521.41, 2388.1, 8143.8, 8.4421, 393.21, 38.816, 23.29])
SPREADS = np.array([0.5, 6.13, 9.0, 0.885, 0.071, 22.1, 0.267, 0.738, 0.0719, 19.1, 0.0375, 1.55, 0.181, 0.108])


def windows(data):
    """All windows of all engines of FD001's test set, or 2,000 that are made up."""
    path = data / "cmapss" / "test_FD001.txt.gz"
    if not path.exists():
        rng = np.random.default_rng(7)
        return (MEANS + SPREADS * rng.standard_normal((2000, ROWS, len(SENSORS)))).astype("<f4")
    rows = np.loadtxt(io.BytesIO(gzip.decompress(path.read_bytes())))
    found = []
    for unit in np.unique(rows[:, 0]):
        sensors = rows[rows[:, 0] == unit][:, [4 + sensor for sensor in SENSORS]]
        found += [sensors[end - ROWS : end] for end in range(ROWS, len(sensors) + 1)]
    return np.asarray(found, "<f4")


def errors(asked, answers):
    """Of each window, in the words of skerry.toml."""
    off = asked.astype("f8") - answers.astype("f8")
    return {"mse": (off**2).mean(axis=(1, 2)), "mae": np.abs(off).mean(axis=(1, 2))}


def main():
    data, out, models = Path(sys.argv[1]), Path(sys.argv[2]), map(Path, sys.argv[3:])
    asked = windows(data)
    (out / "windows").write_bytes(asked.tobytes())
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    for model in models:
        session = onnxruntime.InferenceSession(str(model), options)
        answers = [session.run(None, {"window": asked[at : at + 1]})[0] for at in range(len(asked))]
        answers = np.concatenate(answers)
        (out / model.stem).write_bytes(answers.astype("<f4").tobytes())
        if answers.shape == asked.shape:
            for name, error in errors(asked, answers).items():
                (out / f"{model.stem}.{name}").write_bytes(error.astype("<f8").tobytes())


if __name__ == "__main__":
    main()
