"""What every training script here writes beside its model: golden cases, and one way to ask onnxruntime."""

import hashlib
import json

import numpy as np
import onnxruntime


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


class Reference:
    """The model in onnxruntime: what the node's answers are held against. `reconstruction` is "mse" or "mae"."""

    def __init__(self, path, output=0, column=0, reconstruction=None):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(
            path.read_bytes(), options, providers=["CPUExecutionProvider"]
        )
        self.input = self.session.get_inputs()[0]
        self.output, self.column = self.session.get_outputs()[output].name, column
        self.reconstruction = reconstruction

    def __call__(self, windows):
        """One number per window; `windows` is `[n, rows, columns]`, as the node gathers them."""
        if len(self.input.shape) == 2:
            windows = windows.reshape(len(windows), -1)
        answer = self.session.run([self.output], {self.input.name: windows.astype(np.float32)})[0]
        if isinstance(answer, list):  # ZipMap: a map from class to probability for each row
            answer = np.array([list(row.values()) for row in answer])
        answer = np.asarray(answer).reshape(len(windows), -1)
        if self.reconstruction is None:
            return answer[:, self.column]
        off = answer.astype(np.float64) - windows.reshape(len(windows), -1)
        return (np.abs(off) if self.reconstruction == "mae" else off**2).mean(axis=1)


def write_golden(path, windows, tolerance, reference=None, cases=9, decimals=4):
    """`NAME.golden.json` beside the model: cases evenly over its answers, so that every part of it speaks."""
    reference = reference or Reference(path)
    order = np.argsort(reference(windows), kind="stable")
    picked = order[np.linspace(0, len(order) - 1, cases).astype(int)]
    written = []
    for window in windows[picked]:
        rows = [[round(float(value), decimals) for value in row] for row in window]
        answer = float(reference(np.array([rows], dtype=np.float32))[0])
        written.append({"input": rows, "output": answer})
    head = {
        "model": path.name,
        "sha256": sha256(path),
        "from": f"onnxruntime {onnxruntime.__version__}",
        "tolerance": tolerance,
    }
    lines = ",\n".join("    " + json.dumps(case) for case in written)
    text = json.dumps(head)[:-1] + ',\n  "cases": [\n' + lines + "\n  ]\n}\n"
    path.with_suffix(".golden.json").write_text(text)
