//! From the attributes of tree operators to the parts of a forest.

use super::attributes::Attributes;
use super::ensemble::Width;
use super::forest::{Branch, Goal, Mode, Number, Parts, Weight};
use super::tensor::{Data, Tensor};
use std::collections::HashMap;

type WithBase<T> = (Parts<T>, Vec<T>);

/// Where the two operators of versions 1 to 3 keep what leaves say.
struct Names {
    ids: &'static str,
    nodes: &'static str,
    trees: &'static str,
    weights: &'static str,
    weights_as_tensor: &'static str,
}

pub(super) fn of_regressor(
    attributes: &Attributes<'_>,
    input: &Tensor,
) -> Result<Width<WithBase<f32>, WithBase<f64>>, String> {
    let names = Names {
        ids: "target_ids",
        nodes: "target_nodeids",
        trees: "target_treeids",
        weights: "target_weights",
        weights_as_tensor: "target_weights_as_tensor",
    };
    of_nodes(attributes, &names, input)
}

pub(super) fn of_classifier(
    attributes: &Attributes<'_>,
    input: &Tensor,
) -> Result<Width<WithBase<f32>, WithBase<f64>>, String> {
    let names = Names {
        ids: "class_ids",
        nodes: "class_nodeids",
        trees: "class_treeids",
        weights: "class_weights",
        weights_as_tensor: "class_weights_as_tensor",
    };
    of_nodes(attributes, &names, input)
}

fn of_nodes(
    attributes: &Attributes<'_>,
    names: &Names,
    input: &Tensor,
) -> Result<Width<WithBase<f32>, WithBase<f64>>, String> {
    let values = attributes.tensor("nodes_values_as_tensor")?;
    let is_double = values.is_some_and(|it| it.kind == super::tensor::kind::DOUBLE);
    if is_double || matches!(input.data, Data::F64(_)) {
        Ok(Width::Double(read_nodes::<f64>(attributes, names)?))
    } else {
        Ok(Width::Float(read_nodes::<f32>(attributes, names)?))
    }
}

/// A list of numbers, as floats or as a tensor.
fn numbers<T: Number>(
    attributes: &Attributes<'_>,
    plain: &'static str,
    as_tensor: &'static str,
) -> Result<Vec<T>, String> {
    let floats = attributes.floats(plain)?;
    match attributes.tensor(as_tensor)? {
        None => Ok(floats.iter().map(|value| T::from_f32(*value)).collect()),
        Some(_) if !floats.is_empty() => Err(format!("it has both {plain} and {as_tensor}")),
        Some(tensor) => converted(&Tensor::read(tensor)?),
    }
}

fn converted<T: Number>(tensor: &Tensor) -> Result<Vec<T>, String> {
    if let Ok(values) = tensor.values::<T>() {
        return Ok(values.to_vec());
    }
    let floats = tensor.values::<f32>()?;
    Ok(floats.iter().map(|value| T::from_f32(*value)).collect())
}

fn read_nodes<T: Number>(
    attributes: &Attributes<'_>,
    names: &Names,
) -> Result<WithBase<T>, String> {
    attributes.ignore(&["nodes_hitrates", "nodes_hitrates_as_tensor"]);
    let trees = attributes.ints("nodes_treeids")?;
    let nodes = attributes.ints("nodes_nodeids")?;
    let features = attributes.ints("nodes_featureids")?;
    let on_true = attributes.ints("nodes_truenodeids")?;
    let on_false = attributes.ints("nodes_falsenodeids")?;
    let missing = attributes.ints("nodes_missing_value_tracks_true")?;
    let modes = attributes.texts("nodes_modes")?;
    let thresholds: Vec<T> = numbers(attributes, "nodes_values", "nodes_values_as_tensor")?;
    let base = numbers(attributes, "base_values", "base_values_as_tensor")?;
    let count = trees.len();
    let lengths = [nodes, features, on_true, on_false].map(<[i64]>::len);
    let all_fit = lengths.iter().all(|length| *length == count)
        && modes.len() == count
        && thresholds.len() == count
        && (missing.is_empty() || missing.len() == count);
    if count == 0 || !all_fit {
        return Err("its lists of nodes differ in length".to_owned());
    }

    let mut parts = Parts {
        branches: Vec::new(),
        leaves: Vec::new(),
        roots: Vec::new(),
    };
    let mut goals = HashMap::with_capacity(count);
    for (index, mode) in modes.iter().enumerate() {
        let goal = if *mode == "LEAF" {
            parts.leaves.push(Vec::new());
            Goal::Leaf(parts.leaves.len() - 1)
        } else {
            // Where it leads is known when all nodes are.
            parts.branches.push(Branch {
                feature: features[index],
                mode: named(mode)?,
                threshold: thresholds[index],
                missing_is_true: missing.get(index).is_some_and(|it| *it != 0),
                on_true: Goal::Leaf(usize::MAX),
                on_false: Goal::Leaf(usize::MAX),
            });
            Goal::Branch(parts.branches.len() - 1)
        };
        let (tree, node) = (trees[index], nodes[index]);
        if goals.insert((tree, node), goal).is_some() {
            return Err(format!("node {node} of tree {tree} comes twice"));
        }
        // The first node of a tree is its root.
        if index == 0 || trees[index - 1] != tree {
            parts.roots.push(goal);
        }
    }
    let find = |tree: i64, node: i64| {
        let found = goals.get(&(tree, node)).copied();
        found.ok_or_else(|| format!("tree {tree} has no node {node}"))
    };
    for index in 0..count {
        if let Goal::Branch(branch) = find(trees[index], nodes[index])? {
            parts.branches[branch].on_true = find(trees[index], on_true[index])?;
            parts.branches[branch].on_false = find(trees[index], on_false[index])?;
        }
    }
    read_weights(attributes, names, &mut parts.leaves, find)?;
    Ok((parts, base))
}

fn read_weights<T: Number>(
    attributes: &Attributes<'_>,
    names: &Names,
    leaves: &mut [Vec<Weight<T>>],
    find: impl Fn(i64, i64) -> Result<Goal, String>,
) -> Result<(), String> {
    let ids = attributes.ints(names.ids)?;
    let nodes = attributes.ints(names.nodes)?;
    let trees = attributes.ints(names.trees)?;
    let weights: Vec<T> = numbers(attributes, names.weights, names.weights_as_tensor)?;
    if [nodes.len(), trees.len(), weights.len()] != [ids.len(); 3] {
        return Err("its lists of weights differ in length".to_owned());
    }
    for (index, value) in weights.into_iter().enumerate() {
        let (tree, node) = (trees[index], nodes[index]);
        let Goal::Leaf(leaf) = find(tree, node)? else {
            return Err(format!(
                "node {node} of tree {tree} has a weight and is no leaf"
            ));
        };
        let target = u32::try_from(ids[index]).map_err(|_| "a weight is about no target")?;
        leaves[leaf].push(Weight { target, value });
    }
    Ok(())
}

fn named(mode: &str) -> Result<Mode, String> {
    match mode {
        "BRANCH_LEQ" => Ok(Mode::AtMost),
        "BRANCH_LT" => Ok(Mode::Below),
        "BRANCH_GTE" => Ok(Mode::AtLeast),
        "BRANCH_GT" => Ok(Mode::Above),
        "BRANCH_EQ" => Ok(Mode::Equal),
        "BRANCH_NEQ" => Ok(Mode::Unequal),
        other => Err(format!("a node of mode {other} is not known here")),
    }
}

fn numbered(mode: i64) -> Result<Mode, String> {
    match mode {
        0 => Ok(Mode::AtMost),
        1 => Ok(Mode::Below),
        2 => Ok(Mode::AtLeast),
        3 => Ok(Mode::Above),
        4 => Ok(Mode::Equal),
        5 => Ok(Mode::Unequal),
        // onnxruntime takes whole numbers only, and 1.5 for 1: no two runtimes need agree.
        6 => Err("set membership (BRANCH_MEMBER) is not supported".to_owned()),
        other => Err(format!("a node of mode {other} is not known here")),
    }
}

/// The operator of version 5, whose thresholds are a tensor.
pub(super) fn of_ensemble(
    attributes: &Attributes<'_>,
) -> Result<Width<Parts<f32>, Parts<f64>>, String> {
    let splits = attributes.tensor("nodes_splits")?;
    let splits = Tensor::read(splits.ok_or("it has no nodes_splits")?)?;
    if matches!(splits.data, Data::F64(_)) {
        Ok(Width::Double(read_ensemble(attributes, &splits)?))
    } else {
        Ok(Width::Float(read_ensemble(attributes, &splits)?))
    }
}

fn read_ensemble<T: Number>(
    attributes: &Attributes<'_>,
    splits: &Tensor,
) -> Result<Parts<T>, String> {
    attributes.ignore(&["nodes_hitrates"]);
    let thresholds: Vec<T> = converted(splits)?;
    let features = attributes.ints("nodes_featureids")?;
    let on_true = attributes.ints("nodes_truenodeids")?;
    let on_false = attributes.ints("nodes_falsenodeids")?;
    let true_is_leaf = attributes.ints("nodes_trueleafs")?;
    let false_is_leaf = attributes.ints("nodes_falseleafs")?;
    let missing = attributes.ints("nodes_missing_value_tracks_true")?;
    let modes = attributes
        .tensor("nodes_modes")?
        .ok_or("it has no nodes_modes")?;
    let modes = modes.bytes().ok_or("its nodes_modes are no bytes")?;
    let targets = attributes.ints("leaf_targetids")?;
    let weights = attributes
        .tensor("leaf_weights")?
        .ok_or("it has no leaf_weights")?;
    let weights: Vec<T> = converted(&Tensor::read(weights)?)?;
    let roots = attributes.ints("tree_roots")?;

    let count = thresholds.len();
    let lengths = [features, on_true, on_false, true_is_leaf, false_is_leaf].map(<[i64]>::len);
    let all_fit = lengths.iter().all(|length| *length == count)
        && modes.len() == count
        && (missing.is_empty() || missing.len() == count)
        && targets.len() == weights.len();
    if count == 0 || !all_fit {
        return Err("its lists of nodes or leaves differ in length".to_owned());
    }
    let index = |value: i64| usize::try_from(value).unwrap_or(usize::MAX);
    let goal = |to: i64, is_leaf: i64| match is_leaf {
        0 => Goal::Branch(index(to)),
        _ => Goal::Leaf(index(to)),
    };
    let mut branches = Vec::with_capacity(count);
    for node in 0..count {
        branches.push(Branch {
            feature: features[node],
            mode: numbered(modes[node])?,
            threshold: thresholds[node],
            missing_is_true: missing.get(node).is_some_and(|it| *it != 0),
            on_true: goal(on_true[node], true_is_leaf[node]),
            on_false: goal(on_false[node], false_is_leaf[node]),
        });
    }
    let weight = |(target, value): (&i64, T)| {
        let target = u32::try_from(*target).unwrap_or(u32::MAX);
        vec![Weight { target, value }]
    };
    Ok(Parts {
        branches,
        leaves: targets.iter().zip(weights).map(weight).collect(),
        roots: roots
            .iter()
            .map(|root| Goal::Branch(index(*root)))
            .collect(),
    })
}
