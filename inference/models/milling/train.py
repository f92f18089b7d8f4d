"""Trains the milling models on AI4I 2020 and writes everything beside them.

    pip install -r requirements.txt
    python train.py ../../../../shared/data

*Does this operation end in a machine failure?* Each model sees one record: product quality, air and
process temperature, rotational speed, torque, tool wear. They are exported as their libraries'
converters write them, ZipMap and string-free labels included; nothing is fitted to the node.

Seeded; float sums may differ in their last digits between machines, and with them the files.
"""

import json
import sys
from pathlib import Path

import lightgbm
import numpy as np
from onnxmltools.convert import convert_lightgbm
from onnxmltools.convert.common.data_types import FloatTensorType as LightgbmFloats
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType
from sklearn.ensemble import IsolationForest, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
from ai4i import COLUMNS, records  # noqa: E402
from golden import Reference, sha256, write_golden  # noqa: E402

SEED = 20_269


def models(x, y):
    """Each family, fitted and converted."""
    width = x.shape[1]
    floats = [("record", FloatTensorType([None, width]))]
    boosted = lightgbm.LGBMClassifier(
        n_estimators=120, num_leaves=16, learning_rate=0.06, min_child_samples=10,
        n_jobs=1, random_state=SEED, deterministic=True, verbose=-1,
    ).fit(x, y)
    yield "boosted", convert_lightgbm(boosted, initial_types=[("record", LightgbmFloats([None, width]))], target_opset=15)
    forest = RandomForestClassifier(n_estimators=40, min_samples_leaf=2, max_leaf_nodes=90, random_state=SEED).fit(x, y)
    yield "forest", to_onnx(forest, initial_types=floats, target_opset={"": 18, "ai.onnx.ml": 3})
    logistic = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced")).fit(x, y)
    yield "logistic", to_onnx(logistic, initial_types=floats, target_opset={"": 18, "ai.onnx.ml": 3})
    # Never told which records failed: trained on those that did not, as a plant would.
    isolation = IsolationForest(n_estimators=50, max_samples=64, random_state=SEED).fit(x[y == 0])
    yield "isolation", to_onnx(isolation, initial_types=floats, target_opset={"": 18, "ai.onnx.ml": 3})


def main():
    x, y, held_out = records(Path(sys.argv[1]))
    metrics = {"data": "AI4I 2020, three of every ten records held out", "seed": SEED,
               "inputs": list(COLUMNS), "held_out": {"records": int(held_out.sum()), "failures": int(y[held_out].sum())},
               "models": {}}
    for name, model in models(x[~held_out], y[~held_out].astype(np.int64)):
        model.graph.name = name  # converters draw one at random
        path = HERE / f"{name}.onnx"
        path.write_bytes(model.SerializeToString())
        # Probabilities of (no, yes); the isolation forest's score, which is low for the odd ones.
        column = 0 if name == "isolation" else 1
        reference = Reference(path, output=1, column=column)
        windows = x[held_out][:, np.newaxis]
        score = reference(windows) * (-1 if name == "isolation" else 1)
        write_golden(path, windows, 1e-4, reference)
        metrics["models"][name] = {
            "sha256": sha256(path),
            "file_bytes": path.stat().st_size,
            "auc": round(float(roc_auc_score(y[held_out], score)), 4),
            "average_precision": round(float(average_precision_score(y[held_out], score)), 4),
        }
    (HERE / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
    print(json.dumps(metrics["models"], indent=1))


if __name__ == "__main__":
    main()
