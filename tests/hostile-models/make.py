"""Models that load like any other and do harm when they run; written anew by hand, with onnx==1.23.2.

Each takes a window of 32 rows of 4 columns. `huge` and `slow` do not know their size before they run,
so that no look at the file finds them out.
"""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

HERE = Path(__file__).parent
SIDE = 2_000
# Half a minute on a machine of 2025, minutes on a Raspberry Pi: no machine may be too fast for it.
PRODUCTS = 250


def write(name, nodes, constants):
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        name,
        [value("window", TensorProto.FLOAT, [1, 32, 4])],
        [value("score", TensorProto.FLOAT, [1, 1])],
        [numpy_helper.from_array(np.asarray(array), key) for key, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    (HERE / f"{name}.onnx").write_bytes(model.SerializeToString())


def node(operator, inputs, output, **attributes):
    return helper.make_node(operator, inputs, [output], **attributes)


MEAN = node("ReduceMean", ["window", "all"], "mean", keepdims=1)
ONE = [node("Reshape", ["result", "one"], "score")]
AXES = {"all": np.array([0, 1, 2], np.int64), "one": np.array([1, 1], np.int64)}

# The root of a number below 0.
write("nan", [MEAN, node("Neg", ["mean"], "below"), node("Sqrt", ["below"], "result"), *ONE], AXES)

# The window three million times: 1.6 GB.
write(
    "huge",
    [
        node("Tile", ["window", "times"], "tiled"),
        node("ReduceMax", ["tiled", "all"], "result", keepdims=1),
        *ONE,
    ],
    AXES | {"times": np.array([1, 3_200_000, 1], np.int64)},
)

# Products of large matrices, in little memory.
square = [MEAN, node("Expand", ["mean", "square_shape"], "square0")]
for n in range(PRODUCTS):
    square.append(node("MatMul", [f"square{n}", f"square{n}"], f"product{n}"))
    square.append(node("Tanh", [f"product{n}"], f"square{n + 1}"))
square.append(node("ReduceMax", [f"square{PRODUCTS}", "all"], "result", keepdims=1))
write("slow", square + ONE, AXES | {"square_shape": np.array([1, SIDE, SIDE], np.int64)})
