"""Trains the shipped press model on the simulated plant and writes everything beside it.

    cargo build --release -p skerry-simulation --example record_press
    pip install -r requirements.txt
    python train.py ../../../target/release/examples/record_press

*Does the seal of this press need a change?* The model sees 48 rows (two strokes at 4 Hz) of pressure,
force, position and oil temperature and answers with the probability that the seal leaks more than
`LIMIT`. Boosted trees over features that the graph itself computes from the plain window.

Deterministic: the simulator and every draw here are seeded, the float sums may differ in the last digits.
"""

import io
import json
import subprocess
import sys
from pathlib import Path

import lightgbm
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, compose, helper, numpy_helper
from onnxmltools.convert import convert_lightgbm
from onnxmltools.convert.common.data_types import FloatTensorType
from sklearn.metrics import roc_auc_score

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
from golden import Reference, sha256, write_golden  # noqa: E402

SEED = 20_270
ROWS, STEP = 48, 24
COLUMNS = ["pressure", "force", "position", "oil_temperature"]
PRESSURE, POSITION = 0, 2
# The press is at the bottom, and to hold its pressure, below so many mm.
BOTTOM_MM = 2.0
LIMIT = 0.3
TRAIN, TEST = (1, 240), (100_001, 120)
SECONDS = 120
# mean, spread, peak of each column, and the mean and the least pressure at the bottom over its peak.
FEATURES = 3 * len(COLUMNS) + 2


def record(recorder, first, presses):
    """Windows of presses, the leak of each, and the press it is of."""
    run = subprocess.run([recorder, str(first), str(presses), str(SECONDS)], check=True, capture_output=True)
    rows = np.loadtxt(io.BytesIO(run.stdout), delimiter=",", skiprows=1)
    x, leak = [], []
    for seed in np.unique(rows[:, 0]):
        press = rows[rows[:, 0] == seed]
        for at in range(0, len(press) - ROWS + 1, STEP // 4):  # at any moment of the stroke
            x.append(press[at : at + ROWS, 2:].astype(np.float32))
            leak.append(press[0, 1])
    return np.stack(x), np.array(leak)


def front():
    """The graph that makes features of a window."""
    node = helper.make_node
    constants = {
        "rows": np.array([1], np.int64),
        "pressure_at": np.array([PRESSURE], np.int64),
        "position_at": np.array([POSITION], np.int64),
        "bottom": np.float32(BOTTOM_MM),
        "one": np.float32(1),
        "tiny": np.float32(1e-3),
        "flat": np.array([-1, FEATURES], np.int64),
    }
    nodes = [
        node("ReduceMean", ["window", "rows"], ["mean"], keepdims=1),
        node("Sub", ["window", "mean"], ["off"]),
        node("Mul", ["off", "off"], ["square"]),
        node("ReduceMean", ["square", "rows"], ["variance"], keepdims=1),
        node("Sqrt", ["variance"], ["spread"]),
        node("ReduceMax", ["window", "rows"], ["peak"], keepdims=1),
        node("Gather", ["window", "pressure_at"], ["pressure"], axis=2),
        node("Gather", ["window", "position_at"], ["position"], axis=2),
        node("ReduceMax", ["pressure", "rows"], ["top"], keepdims=1),
        node("Div", ["pressure", "top"], ["share"]),
        node("Less", ["position", "bottom"], ["down"]),
        node("Cast", ["down"], ["weight"], to=TensorProto.FLOAT),
        node("Mul", ["share", "weight"], ["weighted"]),
        node("ReduceSum", ["weighted", "rows"], ["sum"], keepdims=1),
        node("ReduceSum", ["weight", "rows"], ["count"], keepdims=1),
        node("Max", ["count", "tiny"], ["divisor"]),
        node("Div", ["sum", "divisor"], ["held_mean"]),
        node("Where", ["down", "share", "one"], ["held"]),
        node("ReduceMin", ["held", "rows"], ["held_least"], keepdims=1),
        node("Concat", ["mean", "spread", "peak", "held_mean", "held_least"], ["parts"], axis=2),
        node("Reshape", ["parts", "flat"], ["features"]),
    ]
    value = helper.make_tensor_value_info
    return helper.make_graph(
        nodes, "press",
        [value("window", TensorProto.FLOAT, ["batch", ROWS, len(COLUMNS)])],
        [value("features", TensorProto.FLOAT, ["batch", FEATURES])],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
    )


def main():
    recorder = Path(sys.argv[1]).resolve()
    x, leak = record(recorder, *TRAIN)
    tested, true_leak = record(recorder, *TEST)
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 1)]
    features = helper.make_model(front(), opset_imports=opsets, ir_version=9)
    # The features that the trees learn from are the graph's own.
    of = lambda windows: onnx_run(features, windows)
    trees = lightgbm.LGBMClassifier(
        n_estimators=60, num_leaves=8, learning_rate=0.1, min_child_samples=40,
        n_jobs=1, random_state=SEED, deterministic=True, verbose=-1,
    ).fit(of(x), (leak > LIMIT).astype(np.int64))
    model = convert_lightgbm(trees, initial_types=[("trees_input", FloatTensorType([None, FEATURES]))],
                             target_opset=15, zipmap=False)
    del model.opset_import[:]
    model.opset_import.extend(opsets)
    model.ir_version = 9
    model = compose.add_prefix(model, "trees_", rename_inputs=False, rename_outputs=False)
    whole = compose.merge_models(features, model, io_map=[("features", "trees_input")])
    whole.producer_name = "skerry"
    whole.graph.name = "press"  # converters draw one at random
    path = HERE / "press.onnx"
    path.write_bytes(whole.SerializeToString())

    reference = Reference(path, output=1, column=1)
    score, true = reference(tested), true_leak > LIMIT
    write_golden(path, tested, 1e-4, reference)
    # A plain rule with the same chance: the level of the least pressure held that serves it best in training.
    held = lambda windows: -of(windows)[:, -1]
    levels = np.quantile(held(x), np.linspace(0, 1, 400))
    level = max(levels, key=lambda level: np.mean((held(x) > level) == (leak > LIMIT)))
    right = lambda said: round(float(np.mean(said == true)), 4)
    metrics = {
        "model": path.name, "sha256": sha256(path), "seed": SEED,
        "question": f"does the seal leak more than {LIMIT}?",
        "window": {"rows": ROWS, "columns": COLUMNS},
        "held_out": {"presses": TEST[1], "windows": len(true), "beyond_the_limit": int(true.sum()),
                     "auc": round(float(roc_auc_score(true, score)), 4), "right_at_0.5": right(score > 0.5)},
        "baseline": {"what": "least pressure at the bottom over its peak, level tuned on the training presses",
                     "auc": round(float(roc_auc_score(true, held(tested))), 4), "right": right(held(tested) > level)},
    }
    (HERE / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
    print(json.dumps(metrics, indent=1), path.stat().st_size)


def onnx_run(model, windows):
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"window": windows})[0]


if __name__ == "__main__":
    main()
