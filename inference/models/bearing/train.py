"""Trains the shipped bearing model on the simulated plant and writes everything beside it.

    cargo build --release -p skerry-simulation --example record
    pip install -r requirements.txt
    python train.py ../../../target/release/examples/record

The model sees 32 rows of (vibration, temperature, current, speed) and answers with the
probability that the bearing fails within ten days. It is a small dense net over features that
the graph itself computes from the raw window, standardisation included: the node feeds plain
sensor values and there is nothing beside the file that could go out of step with it.

Deterministic: the simulator and every draw here are seeded, the float sums may differ in the
last digits between machines.
"""

import csv
import hashlib
import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.neural_network import MLPClassifier

HERE = Path(__file__).parent
SEED = 20_261
ROWS = 32
COLUMNS = ["vibration", "temperature", "current", "speed"]
HORIZON_HOURS = 240.0
# What the shipped configuration raises at, clears at, and how often in a row.
RAISE, CLEAR, HOLD, STEP = 0.8, 0.6, 2, 8

# Plants (three pumps each) by how fast their rows come. Never the same plant in two sets.
# `every_s` is the plant time between rows: 9,000 s is the 60 s demo at 4 Hz; a burst is 32 rows
# at 4 Hz of a pump that does not visibly change meanwhile, which is what a real site sees.
PACES = {
    "demo, 2.5 h a row": dict(every_s=9000.0),
    "30 min a row": dict(every_s=1800.0),
    "4 Hz, looked at every 6 h": dict(every_s=0.25, burst_every_s=21_600.0),
}
TRAIN_PLANTS, TEST_PLANTS = 40, 25
HOURS = 6000.0


def record(recorder, seed, pace):
    """Runs one plant and returns its rows per pump: burst, hours, inputs, running, life."""
    command = [recorder, "--seed", str(seed), "--hours", str(HOURS), "--every-s", str(pace["every_s"])]
    if "burst_every_s" in pace:
        command += ["--burst-every-s", str(pace["burst_every_s"])]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    pumps = {}
    for line in csv.DictReader(io.StringIO(text)):
        pumps.setdefault(line["pump"], []).append(line)
    for lines in pumps.values():
        column = lambda name: np.array([float(line[name]) for line in lines])
        running = column("running") > 0.5
        hours = column("hours")
        # The life that was left, looked up from the failure that came; unknown at the end.
        life = np.full(len(hours), np.inf)
        failure = np.inf
        for i in range(len(hours) - 1, -1, -1):
            if not running[i]:
                failure = hours[i]
            life[i] = failure - hours[i]
        # Lives cut off by the end of the record: the damage says that failure is near.
        life[np.isinf(life) & (column("damage") > 0.0)] = np.nan
        yield dict(
            burst=column("burst"), hours=hours, running=running, life=life,
            inputs=np.stack([column(name) for name in COLUMNS], axis=1).astype(np.float32),
        )


def windows(pump, rng, step):
    """Windows of one pump as (inputs, label, end hour); temperature held as MQTT delivers it."""
    # A sensor of its own publishes less often than the machine is sampled: hold 1 to 4 rows.
    hold = int(rng.integers(1, 5))
    phase = int(rng.integers(0, hold))
    index = np.arange(len(pump["hours"]))
    held = np.maximum((index + phase) // hold * hold - phase, 0)
    inputs = pump["inputs"].copy()
    inputs[:, 1] = pump["inputs"][held, 1]
    for first in range(0, len(inputs) - ROWS + 1, step):
        last = first + ROWS - 1
        if pump["burst"][first] != pump["burst"][last] or np.isnan(pump["life"][last]):
            continue
        running = pump["running"][first : last + 1]
        if not running.any():
            continue  # A pump that stands says nothing about its bearing.
        # Stopped by its failure: the alert stands until the new bearing runs.
        fails = not running[-1] or pump["life"][last] < HORIZON_HOURS
        yield inputs[first : last + 1], fails, pump["hours"][last], running.all()


class Graph:
    """The operators that both training and the exported file use, in one place."""

    def __init__(self):
        # Mean and slope per row are one matrix product over the rows.
        time = np.arange(ROWS) - (ROWS - 1) / 2
        self.project = np.stack([np.full(ROWS, 1 / ROWS), time / (time**2).sum()]).astype(np.float32)

    def features(self, x):
        linear = self.project @ x
        mean = linear[:, :1, :]
        spread = np.sqrt(((x - mean) ** 2).mean(axis=1, keepdims=True) + 1e-6)
        # Vibration multiplies (damage, speed, noise), so its logarithm is what adds up.
        vibration = np.log(np.maximum(x[:, :, :1], 1e-2)).mean(axis=1, keepdims=True)
        peak = x.max(axis=1, keepdims=True)
        parts = [linear.reshape(len(x), -1), spread, vibration, peak]
        return np.concatenate([p.reshape(len(x), -1) for p in parts], axis=1)

    def export(self, centre, scale, net, path):
        nodes, constants = [], []

        def constant(name, value, kind=np.float32):
            constants.append(numpy_helper.from_array(np.asarray(value, dtype=kind), name))
            return name

        def node(operator, inputs, output, **attributes):
            nodes.append(helper.make_node(operator, inputs, [output], name=output, **attributes))
            return output

        def flat(name, width):
            return node("Reshape", [name, constant(f"{name}_shape", [-1, width], np.int64)], f"{name}_flat")

        columns = len(COLUMNS)
        constant("rows_axis", [1], np.int64)
        linear = node("MatMul", [constant("project", self.project), "window"], "linear")
        mean = node("ReduceMean", ["window", "rows_axis"], "mean", keepdims=1)
        off = node("Sub", ["window", mean], "off")
        square = node("Mul", [off, off], "square")
        variance = node("ReduceMean", [square, "rows_axis"], "variance", keepdims=1)
        floor = node("Add", [variance, constant("floor", 1e-6)], "variance_floor")
        spread = node("Sqrt", [floor], "spread")
        first = node("Slice", ["window", constant("from", [0], np.int64), constant("to", [1], np.int64),
                               constant("axis", [2], np.int64)], "vibration")
        clipped = node("Max", [first, constant("smallest", 1e-2)], "vibration_positive")
        logged = node("Log", [clipped], "vibration_log")
        vibration = node("ReduceMean", [logged, "rows_axis"], "vibration_level", keepdims=1)
        peak = node("ReduceMax", ["window", "rows_axis"], "peak", keepdims=1)
        parts = [flat(linear, 2 * columns), flat(spread, columns), flat(vibration, 1), flat(peak, columns)]
        x = node("Concat", parts, "features", axis=1)
        x = node("Sub", [x, constant("centre", centre)], "centred")
        x = node("Mul", [x, constant("inverse_scale", 1 / scale)], "standard")
        for i, (weights, bias) in enumerate(zip(net.coefs_, net.intercepts_)):
            x = node("MatMul", [x, constant(f"weights_{i}", weights)], f"product_{i}")
            x = node("Add", [x, constant(f"bias_{i}", bias)], f"sum_{i}")
            if i + 1 < len(net.coefs_):
                x = node("Relu", [x], f"layer_{i}")
        nodes.append(helper.make_node("Sigmoid", [x], ["failure_probability"], name="probability"))
        graph = helper.make_graph(
            nodes, "bearing",
            [helper.make_tensor_value_info("window", TensorProto.FLOAT, ["batch", ROWS, columns])],
            [helper.make_tensor_value_info("failure_probability", TensorProto.FLOAT, ["batch", 1])],
            constants,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], producer_name="skerry")
        model.ir_version = 9
        onnx.checker.check_model(model, full_check=True)
        path.write_bytes(model.SerializeToString())


def collect(plants, rng, step):
    """One entry per pump: its pace and its windows."""
    collected = []
    for pace, pump in plants:
        found = list(windows(pump, rng, step))
        if found:
            x, y, hours, whole = zip(*found)
            collected.append(dict(pace=pace, x=np.stack(x), y=np.array(y), hours=np.array(hours),
                                  whole=np.array(whole), pump=pump))
    return collected


def alerts(scores, raise_at, clear_at):
    """Indices at which the node's alert would be raised, by its hysteresis and hold."""
    raised, above, below, out = False, 0, 0, []
    for i, score in enumerate(scores):
        above = above + 1 if score >= raise_at else 0
        below = below + 1 if score <= clear_at else 0
        if not raised and above >= HOLD:
            raised = True
            out.append(i)
        elif raised and below >= HOLD:
            raised = False
    return out


def judge(units, score, raise_at, clear_at):
    """Failures foreseen, lead time and false alarms over whole units."""
    failures, foreseen, leads, false, watched = 0, 0, [], 0, 0.0
    for unit in units:
        hours, pump = unit["hours"], unit["pump"]
        raised = [hours[i] for i in alerts(score(unit), raise_at, clear_at)]
        stops = np.flatnonzero(pump["running"][:-1] & ~pump["running"][1:]) + 1
        starts = np.flatnonzero(~pump["running"][:-1] & pump["running"][1:]) + 1
        lives = list(zip(np.concatenate([[0], starts]), np.concatenate([stops, [len(pump["hours"]) - 1]])))
        for start, stop in lives:
            begin, end = pump["hours"][start], pump["hours"][stop]
            failed = stop in stops
            if not failed and np.isnan(pump["life"][stop]):
                end = pump["hours"][start:stop + 1][~np.isnan(pump["life"][start:stop + 1])].max(initial=begin)
            watched += end - begin
            mine = [at for at in raised if begin <= at < end]
            # Up to twice the horizon early is early warning; before that it is a false alarm.
            false += sum(1 for at in mine if not failed or end - at > 2 * HORIZON_HOURS)
            if failed and end - begin > HORIZON_HOURS:
                failures += 1
                timely = [end - at for at in mine if end - at <= 2 * HORIZON_HOURS]
                if timely:
                    foreseen += 1
                    leads.append(max(timely))
    quantile = lambda q: round(float(np.quantile(leads, q)), 1) if leads else None
    return dict(failures=failures, foreseen=foreseen, lead_hours_median=quantile(0.5),
                lead_hours_p05=quantile(0.05), false_alarms=false, hours_watched=round(watched),
                false_alarms_per_1000_h=round(1000 * false / watched, 4))


def main():
    recorder = sys.argv[1]
    rng = np.random.default_rng(SEED)
    paces = list(PACES.items())
    runs = lambda first, count: [(name, pump) for i in range(count) for j, (name, pace) in enumerate(paces)
                                 for pump in record(recorder, first + i * len(paces) + j, pace)]
    train = collect(runs(1_000, TRAIN_PLANTS), rng, step=4)
    test = collect(runs(900_000, TEST_PLANTS), rng, step=STEP)

    graph = Graph()
    inputs = graph.features(np.concatenate([unit["x"] for unit in train])).astype(np.float64)
    labels = np.concatenate([unit["y"] for unit in train])
    # Paces with more rows must not drown the others, and failures are rare: draw evenly.
    names = np.concatenate([[unit["pace"]] * len(unit["y"]) for unit in train])
    drawn = []
    for name in PACES:
        for label, share in ((True, 10_000), (False, 30_000)):
            members = np.flatnonzero((names == name) & (labels == label))
            drawn.append(rng.choice(members, share, replace=len(members) < share))
    drawn = rng.permutation(np.concatenate(drawn))
    centre, scale = inputs[drawn].mean(axis=0), inputs[drawn].std(axis=0) + 1e-9
    net = MLPClassifier((32, 16), alpha=1e-3, batch_size=512, learning_rate_init=2e-3, max_iter=40,
                        early_stopping=True, n_iter_no_change=6, random_state=SEED)
    net.fit((inputs[drawn] - centre) / scale, labels[drawn])

    path = HERE / "bearing.onnx"
    graph.export(centre, scale, net, path)
    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    model = lambda unit: session.run(None, {"window": unit["x"]})[0][:, 0]
    plain = lambda unit: unit["x"][:, :, 0].mean(axis=1)

    # The plain threshold gets the same chance: the level that serves it best on the training
    # units, foreseeing as many failures as the model does with the fewest false alarms.
    trained = judge(train, model, RAISE, CLEAR)
    levels = [(judge(train, plain, level, 0.9 * level), level) for level in np.arange(1.6, 5.01, 0.1)]
    enough = [(got["false_alarms"], level) for got, level in levels if got["foreseen"] >= trained["foreseen"]]
    level = float(round(min(enough)[1] if enough else 1.6, 2))

    whole = lambda values: np.concatenate([v[u["whole"]] for v, u in zip(values, test)])
    truth = whole([u["y"] for u in test])
    ours, theirs = whole([model(u) for u in test]), whole([plain(u) for u in test])
    by_pace = {name: judge([u for u in test if u["pace"] == name], model, RAISE, CLEAR) for name in PACES}
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    metrics = {
        "model": path.name,
        "sha256": sha256,
        "question": f"does the bearing fail within {HORIZON_HOURS:.0f} h?",
        "seed": SEED,
        "window": {"rows": ROWS, "columns": COLUMNS},
        "alerting": {"threshold": RAISE, "clear": CLEAR, "hold": HOLD, "step": STEP},
        "training": {"pumps": len(train), "windows": int(len(labels)), "drawn": int(len(drawn))},
        "held_out": {
            "pumps": len(test),
            "windows": int(len(truth)),
            "windows_before_failure": int(truth.sum()),
            "auc": round(float(roc_auc_score(truth, ours)), 4),
            "average_precision": round(float(average_precision_score(truth, ours)), 4),
            "alerts": judge(test, model, RAISE, CLEAR),
            "alerts_by_pace": by_pace,
        },
        "baseline": {
            "what": "mean vibration of the window above a level, same hold, clear at 0.9 of it",
            "auc": round(float(roc_auc_score(truth, theirs)), 4),
            "average_precision": round(float(average_precision_score(truth, theirs)), 4),
            "tuned_level_mm_s": level,
            "alerts_at_tuned_level": judge(test, plain, level, 0.9 * level),
            "alerts_at_iso_10816_4.5_mm_s": judge(test, plain, 4.5, 4.05),
        },
    }
    (HERE / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")

    # Golden cases: evenly over the scores, so that every part of the net speaks.
    everything, scores = np.concatenate([u["x"] for u in test]), np.concatenate([model(u) for u in test])
    order = np.argsort(scores, kind="stable")
    picks = order[np.linspace(0, len(order) - 1, 4).astype(int)].tolist()
    picks += [int(np.abs(scores - target).argmin()) for target in (0.1, 0.3, 0.5, 0.7, 0.9)]
    cases = [{"input": [[round(float(v), 4) for v in row] for row in everything[i]]} for i in picks]
    for case in cases:
        window = np.array([case["input"]], dtype=np.float32)
        case["output"] = float(session.run(None, {"window": window})[0][0, 0])
    head = {"model": path.name, "sha256": sha256, "from": f"onnxruntime {onnxruntime.__version__}", "tolerance": 1e-4}
    lines = ",\n".join("    " + json.dumps(case) for case in cases)
    (HERE / "golden.json").write_text(json.dumps(head)[:-1] + ',\n  "cases": [\n' + lines + "\n  ]\n}\n")
    print(json.dumps({"auc": metrics["held_out"]["auc"], "alerts": metrics["held_out"]["alerts"],
                      "by_pace": by_pace, "baseline": metrics["baseline"]}, indent=1))


if __name__ == "__main__":
    main()
