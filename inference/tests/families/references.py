"""What onnxruntime answers to rows, a score and a class each, as skerry is to answer them."""

import numpy as np
import onnxruntime
from onnxruntime.capi.onnxruntime_pybind11_state import Fail

USUAL_NAMES = ["probabilities", "output_probability", "scores", "variable"]
KINDS = {"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(int64)": np.int64}


def answers(file, rows, output):
    """Scores, and classes or None; `output` says which number, as in skerry.toml."""
    options = onnxruntime.SessionOptions()
    # Sums of many trees are then made in the order of the trees.
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    try:
        return answered(session, rows, output)
    except Fail:
        # A graph that puts constants beside its rows is for one row at a time, and does not say so.
        each = [answered(session, row, output) for row in rows[:, None]]
    scores, classes = zip(*each)
    return sum(scores, []), None if classes[0] is None else sum(classes, [])


def answered(session, rows, output):
    inputs = session.get_inputs()
    kinds = [KINDS[it.type] for it in inputs]
    if len(inputs) == 1:
        feed = {inputs[0].name: rows.astype(kinds[0])}
    else:
        columns = [rows[:, [at]].astype(kind) for at, kind in enumerate(kinds)]
        feed = dict(zip([it.name for it in inputs], columns))
    names = [it.name for it in session.get_outputs()]
    values = dict(zip(names, session.run(None, feed)))
    score = output.get("name") or default_output(values)
    label = [name for name in names if name != score and is_label(values[name])]
    classes = None
    if len(label) == 1:
        classes = [str(it) for it in np.asarray(values[label[0]]).reshape(len(rows))]
    return choose(values[score], len(rows), output), classes


def is_number(value):
    return isinstance(value, list) or value.dtype in (np.float32, np.float64)


def is_label(value):
    return not is_number(value) and value.size == len(value)


def default_output(values):
    numbers = [name for name, value in values.items() if is_number(value)]
    if len(numbers) > 1:
        numbers = [name for name in numbers if name in USUAL_NAMES]
    [name] = numbers
    return name


def choose(value, count, output):
    """One number a row, of a tensor or of maps from class to number."""
    if isinstance(value, list):
        keys = list(value[0])
        place = [str(key) for key in keys].index(output["class"]) if "class" in output else None
        value = np.array([[row[key] for key in keys] for row in value])
    else:
        value = value.reshape(count, -1)
        place = int(output["class"]) if "class" in output else None
    place = output.get("index", place)
    if place is None:
        place = 1 if value.shape[1] == 2 else 0
        assert value.shape[1] <= 2, "say which of the numbers"
    return [float(it) for it in value[:, place]]
