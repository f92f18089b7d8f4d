"""The shipped recipes over their whole test sets: what to publish, and whether the node's scores are right.

`script` writes the test set as messages, in the order in which the machines would send them. `judge` takes the
scores that the node wrote, makes every window anew from the data set alone, has onnxruntime score it, and
compares row by row: each window once, none missing, each about the records it says it is about.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np

from lines import Lines

MODELS = Path(__file__).resolve().parents[2] / "inference" / "models"
sys.path[:0] = [str(MODELS), str(MODELS / "turbofan"), str(MODELS / "milling")]
import ai4i  # noqa: E402
import fd001  # noqa: E402
from golden import Reference  # noqa: E402

# Of an answer, and of the largest answer for those near 0.
RELATIVE, OF_THE_LARGEST = 1e-4, 1e-6


class Turbofan:
    """100 engines side by side, each cut off some time before it fails."""

    rows, columns = fd001.ROWS, fd001.COLUMNS

    def __init__(self, data, assets):
        self.engines = fd001.engines(data, "test")[: assets or None]
        self.true = fd001.test(data)[1][: len(self.engines)]

    def assets(self):
        return {f"engine{number}": engine for number, engine in enumerate(self.engines, 1)}

    def figures(self, scores):
        """Of the last window of each engine, as papers have it."""
        last = np.array([scores[asset][-1] for asset in self.assets()])
        return {"rmse": fd001.rmse(last, self.true), "phm_score": fd001.phm_score(last, self.true)}


class Milling:
    """One machine, a record for each operation."""

    rows, columns = 1, list(ai4i.COLUMNS)

    def __init__(self, data, _assets):
        records, failed, held_out = ai4i.records(data)
        self.records, self.failed = records[held_out], failed[held_out]

    def assets(self):
        return {"mill1": self.records}

    def figures(self, scores):
        score = np.array(scores["mill1"])
        # The area under the curve: how often a failure's score is above another's; half for a draw.
        order = np.argsort(score, kind="stable")
        values, inverse, counts = np.unique(score[order], return_inverse=True, return_counts=True)
        middle = np.cumsum(counts) - (counts - 1) / 2
        rank = np.empty(len(score))
        rank[order] = middle[inverse]
        failures, others = self.failed.sum(), (~self.failed).sum()
        area = (rank[self.failed].sum() - failures * (failures + 1) / 2) / (failures * others)
        return {"auc": float(area)}


RECIPES = {"turbofan": Turbofan, "milling": Milling}


def topic(asset):
    return f"plant/{asset}/record"


def script(recipe, out):
    assets = recipe.assets()
    for at in range(max(len(records) for records in assets.values())):
        for asset, records in assets.items():
            if at < len(records):
                # The digits of the file, not those of a float: a machine publishes what it shows.
                values = [float(str(value)) for value in records[at]]
                payload = {"record": at, **dict(zip(recipe.columns, values))}
                out.write(topic=topic(asset), payload=payload)


def windows(recipe, records):
    view = np.lib.stride_tricks.sliding_window_view(records, recipe.rows, axis=0)
    return np.ascontiguousarray(view.transpose(0, 2, 1))


def judge(recipe, model, scored, sent, out):
    """One model's scores against onnxruntime's."""
    reference = Reference(MODELS / model["file"], model["output"], model["column"])
    found = {}
    twice = misplaced = 0
    for score in scored:
        if score["model"] != model["name"]:
            continue
        place = score["asset"], score["sequence"]
        twice += place in found
        found[place] = score["score"]
        first, last = sent[score["first_offset"]], sent[score["last_offset"]]
        # The window says which records it is about; each record says where in its asset's row it stands.
        expected = [(score["asset"], score["sequence"] + at) for at in (0, recipe.rows - 1)]
        misplaced += [first, last] != expected
    scores, expected_all, missing, unexpected = {}, [], 0, len(found)
    for asset, records in recipe.assets().items():
        expected = reference(windows(recipe, records))
        got = [found.get((asset, sequence)) for sequence in range(len(expected))]
        missing += got.count(None)
        unexpected -= len(got) - got.count(None)
        scores[asset] = np.array([np.nan if value is None else value for value in got])
        expected_all.append(expected)
    ours, theirs = np.concatenate(list(scores.values())), np.concatenate(expected_all)
    allowed = RELATIVE * np.abs(theirs) + OF_THE_LARGEST * np.abs(theirs).max()
    apart = np.abs(ours - theirs)
    figures = {} if missing else recipe.figures(scores)
    out.write(
        event="judged", model=model["name"], windows=len(theirs), missing=missing, twice=twice,
        unexpected=unexpected, misplaced=misplaced, apart=int((apart > allowed).sum()),
        furthest=float(np.nanmax(apart, initial=0.0)), **figures,
    )


def read(path):
    with open(path, encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=("script", "judge"))
    parser.add_argument("--recipe", choices=RECIPES, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--assets", type=int, default=0, help="only the first so many")
    parser.add_argument("--model", action="append", type=json.loads, default=[])
    parser.add_argument("--scores", help="the log's records of scores")
    parser.add_argument("--sent", help="the log's records of the messages")
    parser.add_argument("--out", required=True)
    options = parser.parse_args()
    recipe = RECIPES[options.recipe](options.data, options.assets)
    out = Lines(options.out)
    if options.command == "script":
        script(recipe, out)
        return
    scored = [record["payload"] for record in read(options.scores) if record["kind"] == "score"]
    sent = {
        record["offset"]: (record["source"].split("/")[1], record["payload"]["record"])
        for record in read(options.sent)
    }
    for model in options.model:
        judge(recipe, model, scored, sent, out)


main()
