"""Every family of `inference/tests/families` with what the onnxruntime of this environment answers to its whole
test set: each model's file and, beside it, that as a golden file; and the models as TOML of a node's config. Of the
auto-encoders that is how far, by numpy, its answers are from the windows."""

import argparse
import hashlib
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import onnxruntime

from lines import Lines

FAMILIES = Path(__file__).resolve().parents[2] / "inference" / "tests" / "families"
sys.path.insert(0, str(FAMILIES))
from answers import errors, windows  # noqa: E402
from references import answers  # noqa: E402

# Of an answer, and absolute for answers below one.
TOLERANCE = 1e-4
WIDTHS = {"ai4i": 6, "fd001": 32}
# With the measure of each.
AUTO_ENCODERS = {"dense_auto_encoder": "mse", "conv_auto_encoder_torchscript": "mae"}
WINDOWS = 1000


def table(family, file, rows=1):
    output = ", ".join(f"{key} = {json.dumps(value)}" for key, value in family["output"].items())
    inputs = [f'{{ mqtt = "plant/a/x", pointer = "/{at}" }}' for at in range(family["columns"])]
    return (
        f'\n[[model]]\nname = "{family["name"]}"\nfile = "{file}"\nassets = ["a"]\nwindow = {rows}\n'
        f"threshold = 1e9\noutput = {{ {output} }}\ninputs = [ {', '.join(inputs)} ]\n"
    )


def copied(name, folder):
    file = folder / f"{name}.onnx"
    shutil.copy(FAMILIES / file.name, file)
    return file


def write_golden(file, cases):
    golden = {
        "model": file.name,
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        "tolerance": TOLERANCE,
        "cases": cases,
    }
    file.with_suffix(".golden.json").write_text(json.dumps(golden))


def classical(family, folder):
    name, columns = family["name"], family["columns"]
    rows = np.fromfile(FAMILIES / f"{family['rows']}.rows", "<f4")
    rows = rows.reshape(-1, WIDTHS[family["rows"]])[:, :columns]
    file = copied(name, folder)
    scores, classes = answers(file, rows, family["output"])
    cases = [
        {"input": [row], "output": score, "class": label}
        for row, score, label in zip(rows.tolist(), scores, classes or [None] * len(rows))
    ]
    write_golden(file, cases)
    return {"name": name, "rows": len(rows), "toml": table(family, file)}


def auto_encoder(name, measure, asked, folder):
    file = copied(name, folder)
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    scores = errors(asked, session.run(None, {"window": asked})[0])[measure]
    cases = [{"input": window, "output": score} for window, score in zip(asked.tolist(), scores.tolist())]
    write_golden(file, cases)
    family = {"name": name, "columns": asked.shape[2], "output": {"reconstruction": measure}}
    return {"name": name, "rows": len(asked), "toml": table(family, file, asked.shape[1])}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", required=True)
    arguments = parser.parse_args()
    lines = Lines(arguments.out)
    for family in json.loads((FAMILIES / "models.json").read_text()):
        lines.write(event="family", **classical(family, arguments.folder))
    asked = windows(arguments.data)[:WINDOWS]
    for name, measure in AUTO_ENCODERS.items():
        lines.write(event="family", **auto_encoder(name, measure, asked, arguments.folder))


main()
