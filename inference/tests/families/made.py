"""Graphs by hand, for what exporters write seldom: every comparison, aggregate and transform."""

import numpy as np
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


def scale_weights(model, by):
    for attribute in model.graph.node[0].attribute:
        if attribute.name == "target_weights":
            attribute.floats[:] = [it * by for it in attribute.floats]
