"""Graphs by hand, for what exporters write seldom: every comparison, aggregate and transform."""

import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

FEATURES = 6
DEPTH = 4
TREES = 5
MODES = ["BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ"]


def trees(rows, dice, modes, targets):
    """Full trees whose thresholds are values that occur, so that equality counts."""
    nodes, leaves = [], []
    for tree in range(TREES):
        for node in range(2 ** (DEPTH + 1) - 1):
            is_leaf = node >= 2**DEPTH - 1
            feature = int(dice.integers(FEATURES))
            nodes.append(
                {
                    "treeids": tree,
                    "nodeids": node,
                    "featureids": 0 if is_leaf else feature,
                    "modes": "LEAF" if is_leaf else str(dice.choice(modes)),
                    "values": 0.0 if is_leaf else float(dice.choice(rows[:, feature])),
                    "truenodeids": 0 if is_leaf else 2 * node + 1,
                    "falsenodeids": 0 if is_leaf else 2 * node + 2,
                    "missing_value_tracks_true": int(dice.integers(2)),
                }
            )
            for target in range(targets) if is_leaf else []:
                leaves.append((tree, node, target, float(np.float32(dice.normal()))))
    return nodes, leaves


def graph(operator, attributes, outputs, domain="ai.onnx.ml", version=3, kind=TensorProto.FLOAT):
    node = helper.make_node(operator, ["X"], [name for name, _, _ in outputs], domain=domain)
    for name, value in attributes.items():
        node.attribute.append(helper.make_attribute(name, value))
    made = helper.make_graph(
        [node],
        operator,
        [helper.make_tensor_value_info("X", kind, [None, FEATURES])],
        [helper.make_tensor_value_info(*output) for output in outputs],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", version)]
    return helper.make_model(made, opset_imports=opsets, ir_version=9)


def regressor(rows, dice, modes, targets=1, double=False, **more):
    nodes, leaves = trees(rows, dice, modes, targets)
    attributes = {f"nodes_{key}": [node[key] for node in nodes] for key in nodes[0]}
    attributes |= {
        "n_targets": targets,
        "target_treeids": [leaf[0] for leaf in leaves],
        "target_nodeids": [leaf[1] for leaf in leaves],
        "target_ids": [leaf[2] for leaf in leaves],
        "target_weights": [leaf[3] for leaf in leaves],
        **more,
    }
    kind = TensorProto.FLOAT
    if double:
        kind = TensorProto.DOUBLE
        for name in ["nodes_values", "target_weights"]:
            values = np.array(attributes.pop(name), np.float64)
            attributes[f"{name}_as_tensor"] = numpy_helper.from_array(values)
    outputs = [("variable", TensorProto.FLOAT, [None, targets])]
    return graph("TreeEnsembleRegressor", attributes, outputs, kind=kind)


def classifier(rows, dice, classes, targets, positive=False, **more):
    nodes, leaves = trees(rows, dice, MODES[:2], targets)
    weight = (lambda it: abs(it) / 10) if positive else (lambda it: it)
    attributes = {f"nodes_{key}": [node[key] for node in nodes] for key in nodes[0]}
    attributes |= {
        "classlabels_int64s": classes,
        "class_treeids": [leaf[0] for leaf in leaves],
        "class_nodeids": [leaf[1] for leaf in leaves],
        "class_ids": [leaf[2] for leaf in leaves],
        "class_weights": [weight(leaf[3]) for leaf in leaves],
        **more,
    }
    outputs = [
        ("label", TensorProto.INT64, [None]),
        ("probabilities", TensorProto.FLOAT, [None, len(classes)]),
    ]
    return graph("TreeEnsembleClassifier", attributes, outputs)


def ensemble(rows, dice, modes, aggregate):
    """The operator of version 5: branches and leaves apart, thresholds as a tensor."""
    nodes, leaves = trees(rows, dice, modes, 1)
    branches = [node for node in nodes if node["modes"] != "LEAF"]
    place = {(node["treeids"], node["nodeids"]): at for at, node in enumerate(branches)}
    leaf = {(tree, node): at for at, (tree, node, _, _) in enumerate(leaves)}
    numbers = {mode: number for number, mode in enumerate(MODES)}

    def goals(key):
        ends = [(node["treeids"], node[key]) for node in branches]
        return [place.get(end, leaf.get(end)) for end in ends], [int(end in leaf) for end in ends]

    (on_true, true_leafs), (on_false, false_leafs) = goals("truenodeids"), goals("falsenodeids")
    modes = [numbers[node["modes"]] for node in branches]
    floats = np.array([node["values"] for node in branches], np.float32)
    weights = np.array([weight for _, _, _, weight in leaves], np.float32)
    attributes = {
        "n_targets": 1,
        "aggregate_function": aggregate,
        "post_transform": 0,
        "tree_roots": [place[(tree, 0)] for tree in range(TREES)],
        "nodes_featureids": [node["featureids"] for node in branches],
        "nodes_splits": numpy_helper.from_array(floats),
        "nodes_modes": numpy_helper.from_array(np.array(modes, np.uint8)),
        "nodes_truenodeids": on_true,
        "nodes_falsenodeids": on_false,
        "nodes_trueleafs": true_leafs,
        "nodes_falseleafs": false_leafs,
        "nodes_missing_value_tracks_true": [it["missing_value_tracks_true"] for it in branches],
        "leaf_targetids": [0] * len(leaves),
        "leaf_weights": numpy_helper.from_array(weights),
    }
    outputs = [("variable", TensorProto.FLOAT, [None, 1])]
    return graph("TreeEnsemble", attributes, outputs, version=5)


def features(rows):
    """What is put in front of trees to compute their features: moves, every spread of one operand over
    another, and every reduction, along axes side by side and apart."""
    spread = rows.std(axis=0) + 1e-3
    constants = {
        "centre": rows.mean(axis=0),
        "scale": spread,
        "cube": np.array([-1, 2, 3], np.int64),
        "tall": np.array([-1, 2, 1, 3], np.int64),
        "flat": np.array([0, -1], np.int64),
        "of_column": np.array([0.5, -1.0, 2.0]),
        "of_row": np.array([[0.25], [-0.5]]),
        "of_each": np.arange(6).reshape(1, 2, 3) / 7,
        "of_middle": np.array([[[0.5]], [[-1.5]]]),
        "half": np.array(0.5),
        "least": np.array(-0.75),
        "most": np.array(1.25),
        "last": np.array([-1], np.int64),
        "turned": np.array([2, 0, 0, 1], np.int64),
        "row": np.array(1, np.int64),
        "one": np.array([1], np.int64),
        "two": np.array([2], np.int64),
        "three": np.array([3], np.int64),
        "many": np.array([1, 4, 1], np.int64),
        "rows_and_columns": np.array([1, 2], np.int64),
        "apart": np.array([1, 3], np.int64),
        "picked": np.array([4, 1], np.int64),
    }
    nodes, parts = [], []

    def node(operator, inputs, domain="", **more):
        name = f"{operator.lower()}_{len(nodes)}"
        nodes.append(helper.make_node(operator, inputs, [name], domain=domain, **more))
        return name

    def part(name):
        parts.append(node("Reshape", [name, "flat"]))

    centred = node("Div", [node("Sub", ["X", "centre"]), "scale"])
    cube = node("Reshape", [centred, "cube"])
    for operator, operand in [("Mul", "of_column"), ("Add", "of_row"), ("Sub", "of_each"), ("Div", "most")]:
        part(node(operator, [cube, operand]))
        part(node(operator, [operand, node("Add", [node("Mul", [cube, cube]), "half"])]))
    # Neither is as the result is.
    rows_, columns = node("ReduceMean", [cube, "two"]), node("ReduceMax", [cube, "one"])
    part(node("Mul", [rows_, columns]))
    tall = node("Reshape", [cube, "tall"])
    part(node("Mul", [tall, node("Unsqueeze", [cube, "one"])]))
    part(node("Where", [node("Less", [tall, node("Unsqueeze", [cube, "one"])]), tall, "half"]))
    part(node("Add", [tall, "of_middle"]))
    # Moves, of moves and of constants.
    column = node("Gather", [cube, "turned"], axis=2)
    part(node("Gather", [column, "row"], axis=1))
    part(node("Slice", [column, "one", "three", "two"]))
    part(node("Slice", [node("Gather", [cube, "last"], axis=1), "one", "three", "two"]))
    part(node("Expand", [columns, "many"]))
    part(node("Concat", [rows_, cube, "of_each", column], axis=2))
    part(node("ArrayFeatureExtractor", [centred, "picked"], domain="ai.onnx.ml"))
    part(node("Squeeze", [node("Unsqueeze", [columns, "one"]), "two"]))
    # Chosen and cut.
    down = node("Less", [cube, "of_column"])
    part(node("Cast", [down], to=TensorProto.FLOAT))
    part(node("Where", [down, cube, "half"]))
    part(node("Where", [node("Greater", [columns, "least"]), columns, cube]))
    part(node("Cast", [node("Equal", [node("Cast", [cube], to=TensorProto.INT64), "row"])], to=TensorProto.FLOAT))
    part(node("Clip", [cube, "least", "most"]))
    part(node("Max", [cube, "least", "of_row"]))
    part(node("Min", [columns, cube, "most"]))
    part(node("Mean", [cube, rows_, columns]))
    part(node("Sum", [rows_, cube, columns, "half"]))
    part(node("Neg", [node("Abs", [column])]))
    positive = node("Add", [node("Abs", [cube]), "half"])
    part(node("Sqrt", [positive]))
    keys = helper.make_attribute("keys_int64s", [2, 0, 1, 2])
    counted = node("LabelEncoder", [node("Cast", [positive], to=TensorProto.INT64)], domain="ai.onnx.ml", default_float=-0.5)
    nodes[-1].attribute.extend([keys, helper.make_attribute("values_floats", [0.75, 0.25, 1.5, 9.0])])
    part(counted)
    wide = node("Cast", [cube], to=TensorProto.DOUBLE)
    square = node("ReduceMean", [node("Mul", [wide, wide]), "two"])
    part(node("Cast", [node("Sqrt", [square])], to=TensorProto.FLOAT))
    for name in ["Sum", "Mean", "Max", "Min", "Prod", "SumSquare", "L1", "L2", "LogSum", "LogSumExp"]:
        for axes in ["one", "two", "rows_and_columns"]:
            part(node(f"Reduce{name}", [positive, axes]))
        part(node(f"Reduce{name}", [node("Mul", [tall, tall]) if name == "LogSum" else tall, "apart"]))
    joined = node("Concat", parts, axis=1)
    return nodes, joined, constants


def weighted(rows, dice):
    """All features in one number, of which none can be wrong unseen."""
    nodes, joined, constants = features(rows)
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 3)]
    given = [
        numpy_helper.from_array(value if value.dtype == np.int64 else value.astype(np.float32), name)
        for name, value in constants.items()
    ]
    window = helper.make_tensor_value_info("X", TensorProto.FLOAT, [None, FEATURES])

    def model(last, output, more):
        value = helper.make_tensor_value_info(output, TensorProto.FLOAT, None)
        made = helper.make_graph(nodes + last, "features", [window], [value], given + more)
        return helper.make_model(made, opset_imports=opsets, ir_version=9)

    session = onnxruntime.InferenceSession(model([], joined, []).SerializeToString())
    count = session.run(None, {"X": rows[:1]})[0].shape[1]
    weights = dice.choice([-1, 1], count) * dice.uniform(0.5, 1.0, count)
    weights = numpy_helper.from_array(weights.astype(np.float32)[:, None], "weights")
    return model([helper.make_node("MatMul", [joined, "weights"], ["variable"])], "variable", [weights])


def everything(rows, seed):
    """Name, model, and which number the score is."""
    dice = np.random.default_rng(seed)
    for mode in MODES:
        yield f"made_{mode[7:].lower()}", regressor(rows, dice, [mode]), {}
    for name in ["AVERAGE", "MIN", "MAX"]:
        made = regressor(rows, dice, MODES, aggregate_function=name, base_values=[0.25])
        yield f"made_{name.lower()}", made, {}
    yield "made_mixed_double", regressor(rows, dice, MODES, double=True), {}
    for name in ["SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO", "NONE"]:
        base = [0.5, -0.25, 0.125]
        made = regressor(rows, dice, MODES, 3, post_transform=name, base_values=base)
        yield f"made_three_{name.lower()}", made, {"index": 2}
    made = regressor(rows, dice, MODES, 2, aggregate_function="MIN")
    yield "made_two_min", made, {"index": 1}
    small = regressor(rows, dice, MODES, post_transform="PROBIT", base_values=[0.2])
    scale_weights(small, 0.03)
    yield "made_probit", small, {}
    for name in ["SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO", "NONE"]:
        made = classifier(rows, dice, [7, 8, 9], 3, post_transform=name)
        yield f"made_classes_{name.lower()}", made, {"index": 1}
    odds = classifier(rows, dice, [-1, 1], 1, post_transform="LOGISTIC", base_values=[0.3])
    yield "made_odds", odds, {}
    yield "made_chance", classifier(rows, dice, [4, 5], 1, positive=True), {}
    for number, name in enumerate(["average", "sum", "min", "max"]):
        yield f"made_v5_{name}", ensemble(rows, dice, MODES, number), {}
    yield "made_features", weighted(rows, dice), {}


def scale_weights(model, by):
    for attribute in model.graph.node[0].attribute:
        if attribute.name == "target_weights":
            attribute.floats[:] = [it * by for it in attribute.floats]
