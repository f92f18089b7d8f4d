"""Every family of `inference/tests/families` with what the onnxruntime of this environment answers to its whole
test set: each model's file and, beside it, that as a golden file; and the models as TOML of a node's config."""

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

# Of an answer, and absolute for answers below one.
TOLERANCE = 1e-4
WIDTHS = {"ai4i": 6, "fd001": 32}


def table(family, file):
    output = ", ".join(f"{key} = {json.dumps(value)}" for key, value in family["output"].items())
    inputs = [f'{{ mqtt = "plant/a/x", pointer = "/{at}" }}' for at in range(family["columns"])]
    return (
        f'\n[[model]]\nname = "{family["name"]}"\nfile = "{file}"\nassets = ["a"]\nwindow = 1\n'
        f"threshold = 1e9\noutput = {{ {output} }}\ninputs = [ {', '.join(inputs)} ]\n"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--out", required=True)
    arguments = parser.parse_args()
    lines = Lines(arguments.out)
    for family in json.loads((FAMILIES / "models.json").read_text()):
        name, columns = family["name"], family["columns"]
        rows = np.fromfile(FAMILIES / f"{family['rows']}.rows", "<f4")
        rows = rows.reshape(-1, WIDTHS[family["rows"]])[:, :columns]
        file = arguments.folder / f"{name}.onnx"
        shutil.copy(FAMILIES / file.name, file)
        scores, classes = answers(file, rows, family["output"])
        cases = [
            {"input": [row], "output": score, "class": label}
            for row, score, label in zip(rows.tolist(), scores, classes or [None] * len(rows))
        ]
        golden = {
            "model": file.name,
            "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
            "tolerance": TOLERANCE,
            "cases": cases,
        }
        (arguments.folder / f"{name}.golden.json").write_text(json.dumps(golden))
        lines.write(event="family", name=name, rows=len(rows), toml=table(family, file))


main()
