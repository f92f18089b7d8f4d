"""A model over bursts of vibration, one over that model's scores, and a machine that changes and recovers:
what to publish, and by numpy and onnxruntime what a node is to make of it."""

import argparse
import hashlib
import json
import shutil
import sys
from pathlib import Path

import numpy as np

from lines import Lines

FAMILIES = Path(__file__).resolve().parents[2] / "inference" / "tests" / "families"
sys.path.insert(0, str(FAMILIES))
from references import answers  # noqa: E402

MODEL = FAMILIES / "polynomial.onnx"
RATE_HZ, SAMPLES = 25_600, 256
BLOCK, WINDOW, STEP = 200, 8, 4
BAND_HZ = (1_000, 5_000)
SHARE_MIN = 1e-4


def bursts(rng, count, loudness):
    """A tone that comes and goes, in noise."""
    time = np.arange(SAMPLES) / RATE_HZ
    tone = np.sin(2 * np.pi * 2_000 * time) * rng.uniform(0.5, 1.5, (count, 1))
    return np.round(loudness * (tone + rng.normal(0, 0.3, (count, SAMPLES)) + 0.1), 4)


def band(x):
    power = np.abs(np.fft.rfft(x, axis=1)) ** 2 / SAMPLES**2
    power[:, 1:-1] *= 2
    hertz = np.fft.rfftfreq(SAMPLES, 1 / RATE_HZ)
    return power[:, (hertz >= BAND_HZ[0]) & (hertz < BAND_HZ[1])].sum(axis=1)


def features(x):
    """In the order in which the node has them: the bands last."""
    rms = np.sqrt((x**2).mean(axis=1))
    crest = np.abs(x).max(axis=1) / rms
    columns = [rms, x.std(axis=1), x.mean(axis=1), np.ptp(x, axis=1), crest, band(x)]
    return np.stack(columns, axis=1).astype(np.float32)


def over_scores(scores):
    """Windows of the scores so far, each told of by six numbers."""
    ends = range(WINDOW, len(scores) + 1, STEP)
    rows = []
    for end in ends:
        x = scores[end - WINDOW : end].astype(np.float64)
        slope = np.polyfit(np.arange(WINDOW), x, 1)[0]
        rows.append([x[-1], x.mean(), x.std(), x.min(), x.max(), slope])
    return np.array(rows, np.float32)


def reference(rows):
    columns = []
    for column in rows.T.astype(np.float64):
        edges = np.quantile(column, [0.2, 0.4, 0.6, 0.8])
        shares = np.bincount(np.digitize(column, edges), minlength=5) / len(column)
        moments = {"mean": column.mean(), "std": column.std()}
        columns.append({**moments, "edges": edges.tolist(), "shares": shares.tolist()})
    return {"columns": columns}


def shifted(rows, reference):
    """Of each column, the population stability index and the shift of the mean."""
    shifts = []
    for column, told in zip(rows.T.astype(np.float64), reference["columns"]):
        counts = np.bincount(np.digitize(column, told["edges"]), minlength=5)
        actual = np.maximum(counts / len(column), SHARE_MIN)
        expected = np.maximum(told["shares"], SHARE_MIN)
        psi = ((actual - expected) * np.log(actual / expected)).sum()
        shifts.append({"psi": psi, "mean_shift": (column.mean() - told["mean"]) / told["std"]})
    return shifts


def write_package(folder, rows, reference):
    folder.mkdir()
    shutil.copy(MODEL, folder / MODEL.name)
    scores, _ = answers(MODEL, rows, {})
    cases = [{"input": [row], "output": score} for row, score in zip(rows.tolist(), scores)]
    manifest = {
        "format": 1,
        "name": "vibration",
        "version": "1",
        "model": MODEL.name,
        "sha256": hashlib.sha256(MODEL.read_bytes()).hexdigest(),
        "input": {"rows": 1, "columns": [{"name": str(at)} for at in range(rows.shape[1])]},
        "golden": {"tolerance": 1e-4, "cases": cases[:9]},
        "reference": reference,
    }
    (folder / "model.json").write_text(json.dumps(manifest))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--out", required=True)
    arguments = parser.parse_args()
    rng = np.random.default_rng(11)
    trained = features(bursts(rng, 2_000, 1.0))
    told = reference(trained)
    write_package(arguments.folder / "vibration", trained, told)

    samples = np.concatenate([bursts(rng, BLOCK, loudness) for loudness in (1.0, 3.0, 3.0, 1.0)])
    with open(arguments.folder / "script.jsonl", "w", encoding="utf-8") as script:
        for burst in samples.tolist():
            message = {"topic": "plant/m1/vibration", "payload": {"samples": burst}}
            script.write(json.dumps(message) + "\n")

    lines = Lines(arguments.out)
    rows = features(samples)
    scores, _ = answers(MODEL, rows, {})
    chained = over_scores(np.array(scores, np.float32))
    of_scores, _ = answers(MODEL, chained, {})
    for model, expected in (("vibration", scores), ("trend", of_scores)):
        lines.write(event="scores", model=model, scores=[float(score) for score in expected])
    for state, block in (("raised", 1), ("cleared", 3)):
        columns = shifted(rows[block * BLOCK : (block + 1) * BLOCK], told)
        lines.write(event="drift", state=state, rows=BLOCK, columns=columns)


main()
