"""Boosted trees over four features of each sensor, all in one graph.

The graph takes plain sensor values and computes last value, mean, spread and slope itself, so that
nothing beside the file can go out of step with it.
"""

import numpy as np
import onnx
import xgboost
from onnx import TensorProto, compose, helper, numpy_helper
from onnxmltools.convert import convert_xgboost
from onnxmltools.convert.common.data_types import FloatTensorType

from fd001 import COLUMNS, LIFE_MAX, ROWS

# Values closer than this share of their spread are one value: float sums differ by more than a
# threshold between two of them could bear.
RESOLUTION = 1e-4


class Features:
    """The same sums in training and in the graph, in `f32` as the graph has them."""

    def __init__(self, windows):
        # Centred first: a mean of values around 8,000 has no digits left for what varies.
        self.centre = np.median(windows, axis=(0, 1)).astype(np.float32)
        time = np.arange(ROWS) - (ROWS - 1) / 2
        self.slope = (time / (time**2).sum()).astype(np.float32).reshape(1, ROWS, 1)

    def __call__(self, windows):
        x = windows - self.centre
        mean = x.mean(axis=1, keepdims=True)
        spread = np.sqrt(((x - mean) ** 2).mean(axis=1, keepdims=True))
        slope = (x * self.slope).sum(axis=1, keepdims=True)
        return np.concatenate([x[:, -1:], mean, spread, slope], axis=1).reshape(len(x), -1)

    def graph(self):
        constants = {
            "centre": self.centre,
            "slope_weights": self.slope,
            "rows": np.array([1], np.int64),
            "newest": np.array([ROWS - 1], np.int64),
            "flat": np.array([-1, 4 * len(COLUMNS)], np.int64),
        }
        node = helper.make_node
        nodes = [
            node("Sub", ["window", "centre"], ["centred"]),
            node("Gather", ["centred", "newest"], ["last"], axis=1),
            node("ReduceMean", ["centred", "rows"], ["mean"], keepdims=1),
            node("Sub", ["centred", "mean"], ["off"]),
            node("Mul", ["off", "off"], ["square"]),
            node("ReduceMean", ["square", "rows"], ["variance"], keepdims=1),
            node("Sqrt", ["variance"], ["spread"]),
            node("Mul", ["centred", "slope_weights"], ["weighted"]),
            node("ReduceSum", ["weighted", "rows"], ["slope"], keepdims=1),
            node("Concat", ["last", "mean", "spread", "slope"], ["features"], axis=1),
            node("Reshape", ["features", "flat"], ["flat_features"]),
        ]
        value = helper.make_tensor_value_info
        return helper.make_graph(
            nodes,
            "turbofan",
            [value("window", TensorProto.FLOAT, ["batch", ROWS, len(COLUMNS)])],
            [value("flat_features", TensorProto.FLOAT, ["batch", 4 * len(COLUMNS)])],
            [numpy_helper.from_array(array, name) for name, array in constants.items()],
        )


def make(seed):
    # Small enough for 300 kB.
    return xgboost.XGBRegressor(
        n_estimators=250, max_depth=4, learning_rate=0.05, subsample=0.5, colsample_bytree=0.3,
        min_child_weight=50, random_state=seed, n_jobs=1,
    )


def cross_validate(windows, lives, engine, seed):
    """RMSE on training engines that were held out, each cut at 20 random moments as the test set's are."""
    rng = np.random.default_rng(seed)
    fold = rng.permutation(engine.max() + 1) % 5
    x = Features(windows)(windows)
    predicted = np.empty(len(lives))
    for number in range(5):
        out = fold[engine] == number
        predicted[out] = make(seed).fit(x[~out], lives[~out]).predict(x[out])
    cuts = [rng.choice(np.flatnonzero(engine == unit), 20) for unit in range(engine.max() + 1)]
    cuts = np.concatenate(cuts)
    return float(np.sqrt(np.mean((np.clip(predicted[cuts], 0, LIFE_MAX) - lives[cuts]) ** 2)))


def train(windows, lives, path, seed):
    features = Features(windows)
    x = features(windows)
    model = convert_xgboost(
        make(seed).fit(x, lives),
        initial_types=[("trees_input", FloatTensorType([None, x.shape[1]]))],
        target_opset=15,
    )
    for node in model.graph.node:
        if node.op_type == "TreeEnsembleRegressor":
            settle(node, x)
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 1)]
    front = helper.make_model(features.graph(), opset_imports=opsets, ir_version=9)
    del model.opset_import[:]
    model.opset_import.extend(opsets)
    model.ir_version = 9
    whole = compose.merge_models(front, model, io_map=[("flat_features", "trees_input")])
    whole.producer_name = "skerry"
    whole.graph.name = "turbofan"  # converters draw one at random
    onnx.checker.check_model(whole, full_check=True)
    path.write_bytes(whole.SerializeToString())


def settle(node, x):
    """Moves each threshold to the middle between the training values around it.

    XGBoost cuts exactly at values it has seen. Then the last bit of a sum decides a branch, and two
    runtimes that are both right disagree.
    """
    attribute = {item.name: item for item in node.attribute}
    values = attribute["nodes_values"].floats
    modes = attribute["nodes_modes"].strings
    grid = {}
    for at, feature in enumerate(attribute["nodes_featureids"].ints):
        if modes[at] == b"LEAF":
            continue
        if feature not in grid:
            unit = RESOLUTION * float(x[:, feature].std())
            grid[feature] = np.unique(np.round(x[:, feature].astype(np.float64) / unit)) * unit
        seen = grid[feature]
        above = int(np.clip(np.searchsorted(seen, values[at]), 1, len(seen) - 1))
        values[at] = (seen[above - 1] + seen[above]) / 2
    # Optional, of no meaning here, and a fifth of the file.
    for name in ("nodes_hitrates",):
        if name in attribute:
            node.attribute.remove(attribute[name])
