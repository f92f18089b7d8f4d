//! Trees as flat arrays: checked when they are built, walked without a surprise.
//!
//! Every comparison is brought to `x <= threshold`, with the branches swapped where it must be
//! and a flag for what NaN does: `x < t` is `x <= next_down(t)`, `x > t` is the other branch of
//! `x <= t`. So one loop of two loads, a compare and an addition serves what all exporters write,
//! without a jump that a processor could guess wrong. Equality keeps a test of its own.

/// Trees nest; a tree that is deeper than this is damage, or no use.
const NODES_MAX: usize = 4_000_000;

/// A number that thresholds, features and weights are made of.
pub(super) trait Number:
    super::tensor::Element + Copy + PartialOrd + std::ops::AddAssign + std::ops::Neg<Output = Self>
{
    fn from_f32(value: f32) -> Self;
    fn to_f32(self) -> f32;
    fn is_nan(self) -> bool;
    fn is_infinite_below(self) -> bool;
    fn next_down(self) -> Self;
    fn over(self, count: usize) -> Self;
}

macro_rules! number {
    ($type:ty, $narrow:expr) => {
        impl Number for $type {
            fn from_f32(value: f32) -> Self {
                Self::from(value)
            }

            fn to_f32(self) -> f32 {
                $narrow(self)
            }

            fn is_nan(self) -> bool {
                self.is_nan()
            }

            fn is_infinite_below(self) -> bool {
                self == Self::NEG_INFINITY
            }

            fn next_down(self) -> Self {
                self.next_down()
            }

            fn over(self, count: usize) -> Self {
                self / count as Self
            }
        }
    };
}

number!(f32, std::convert::identity);
number!(f64, |value| value as f32);

/// How a branch compares its feature with its threshold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    AtMost,
    Below,
    AtLeast,
    Above,
    Equal,
    Unequal,
}

/// Where a branch leads, by index of the whole list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Goal {
    Branch(usize),
    Leaf(usize),
}

/// A branch as files tell it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Branch<T> {
    pub(super) feature: i64,
    pub(super) mode: Mode,
    pub(super) threshold: T,
    /// NaN goes where `true` goes.
    pub(super) missing_is_true: bool,
    pub(super) on_true: Goal,
    pub(super) on_false: Goal,
}

/// What a leaf adds to which target.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Weight<T> {
    pub(super) target: u32,
    pub(super) value: T,
}

/// Everything a forest is built from.
#[derive(Debug)]
pub(super) struct Parts<T> {
    pub(super) branches: Vec<Branch<T>>,
    pub(super) leaves: Vec<Vec<Weight<T>>>,
    pub(super) roots: Vec<Goal>,
}

/// A branch, or a leaf: that one compares with no number, which nothing is at most, and so leads
/// back to itself.
#[derive(Debug, Clone, Copy)]
struct Node<T> {
    threshold: T,
    /// The feature, and above it the flags.
    feature: u32,
    /// Where it leads if the comparison holds; next to it, where it leads if not.
    yes: u32,
    /// Which leaf it is, if it is one.
    leaf: u32,
}

const NAN_IS_YES: u32 = 1 << 31;
const IS_EQUAL: u32 = 1 << 30;
const FEATURE: u32 = IS_EQUAL - 1;

/// Trees that are walked side by side: the processor looks up one while it waits for another, and
/// has no branch to guess.
const ABREAST: usize = 8;

/// The kinds of branches that occur, so that the usual forest is walked by the shortest loop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    AtMost,
    AtMostOrNan,
    Mixed,
}

#[derive(Debug, Clone, Copy)]
struct Root {
    place: u32,
    /// Branches to its nearest and to its farthest leaf.
    near: u32,
    far: u32,
}

#[derive(Debug)]
pub(super) struct Forest<T> {
    nodes: Vec<Node<T>>,
    roots: Vec<Root>,
    form: Form,
    /// Weights of leaf `i`: `starts[i]..starts[i + 1]`, or just the `i`th if each leaf has one.
    starts: Option<Vec<u32>>,
    weights: Vec<Weight<T>>,
    features: usize,
}

impl<T: Number> Forest<T> {
    pub(super) fn build(parts: &Parts<T>) -> Result<Self, String> {
        let count = parts.branches.len() + parts.leaves.len();
        if count > NODES_MAX {
            return Err(format!(
                "it has {count} nodes, at most {NODES_MAX} are supported"
            ));
        }
        let mut forest = Self {
            nodes: Vec::with_capacity(2 * parts.branches.len() + parts.roots.len()),
            roots: Vec::with_capacity(parts.roots.len()),
            form: Form::AtMost,
            starts: None,
            weights: parts.leaves.iter().flatten().copied().collect(),
            features: 0,
        };
        if u32::try_from(forest.weights.len()).is_err() {
            return Err("it has too many weights".to_owned());
        }
        if parts.leaves.iter().any(|leaf| leaf.len() != 1) {
            let mut end = 0;
            let ends = parts.leaves.iter().map(|leaf| {
                end += leaf.len() as u32;
                end
            });
            forest.starts = Some(std::iter::once(0).chain(ends).collect());
        }
        let mut seen = vec![false; parts.branches.len()];
        for root in &parts.roots {
            let root = forest.grow(parts, *root, &mut seen)?;
            forest.roots.push(root);
        }
        if let Some(lost) = seen.iter().position(|seen| !seen) {
            return Err(format!("no root leads to its branch {lost}"));
        }
        Ok(forest)
    }

    /// Lays out a tree in the order of a walk, so that its first branches lie side by side.
    fn grow(&mut self, parts: &Parts<T>, root: Goal, seen: &mut [bool]) -> Result<Root, String> {
        let place = self.nodes.len();
        let (mut near, mut far) = (u32::MAX, 0);
        self.nodes.push(Node::leaf(place, 0));
        // What is still to be placed, where, and behind how many branches.
        let mut pending = vec![(root, place, 0)];
        while let Some((goal, place, depth)) = pending.pop() {
            match goal {
                Goal::Leaf(leaf) if leaf < parts.leaves.len() => {
                    self.nodes[place] = Node::leaf(place, leaf);
                    (near, far) = (near.min(depth), far.max(depth));
                }
                Goal::Branch(branch) if branch < parts.branches.len() => {
                    if std::mem::replace(&mut seen[branch], true) {
                        return Err(format!(
                            "its branch {branch} is led to twice: it has a cycle"
                        ));
                    }
                    let goals = self.nodes.len();
                    let (node, yes, no) = self.node(branch, &parts.branches[branch])?;
                    self.nodes[place] = Node {
                        yes: goals as u32,
                        ..node
                    };
                    for (goal, place) in [(no, goals + 1), (yes, goals)] {
                        self.nodes.push(Node::leaf(place, 0));
                        pending.push((goal, place, depth + 1));
                    }
                }
                Goal::Leaf(_) | Goal::Branch(_) => {
                    return Err("a branch leads out of its tree".to_owned());
                }
            }
        }
        Ok(Root {
            place: place as u32,
            near,
            far,
        })
    }

    fn node(&mut self, index: usize, branch: &Branch<T>) -> Result<(Node<T>, Goal, Goal), String> {
        let Branch {
            mode,
            threshold,
            missing_is_true,
            on_true,
            on_false,
            ..
        } = *branch;
        let feature = u32::try_from(branch.feature)
            .ok()
            .filter(|it| *it < FEATURE);
        let feature = feature
            .ok_or_else(|| format!("its branch {index} asks for feature {}", branch.feature))?;
        self.features = self.features.max(feature as usize + 1);
        let strict = matches!(mode, Mode::Below | Mode::AtLeast);
        if threshold.is_nan() || strict && threshold.is_infinite_below() {
            return Err(format!("its branch {index} compares with no number"));
        }
        let (flag, swapped) = match mode {
            Mode::AtMost | Mode::Below => (0, false),
            Mode::Above | Mode::AtLeast => (0, true),
            Mode::Equal => (IS_EQUAL, false),
            Mode::Unequal => (IS_EQUAL, true),
        };
        // Where it is swapped, NaN fails the comparison as told and so passes the one made of it,
        // but for `!=`, which NaN passes.
        let nan_is_yes = match mode {
            Mode::Above | Mode::AtLeast => !missing_is_true,
            Mode::Unequal => false,
            _ => missing_is_true,
        };
        self.form = match (flag, nan_is_yes, self.form) {
            (0, false, form) => form,
            (0, true, Form::AtMost) => Form::AtMostOrNan,
            (0, true, form) => form,
            _ => Form::Mixed,
        };
        let node = Node {
            threshold: if strict {
                threshold.next_down()
            } else {
                threshold
            },
            feature: feature | flag | if nan_is_yes { NAN_IS_YES } else { 0 },
            yes: 0,
            leaf: 0,
        };
        let (yes, no) = if swapped {
            (on_false, on_true)
        } else {
            (on_true, on_false)
        };
        Ok((node, yes, no))
    }

    pub(super) fn trees(&self) -> usize {
        self.roots.len()
    }

    /// How long a row must be.
    pub(super) fn features(&self) -> usize {
        self.features
    }

    pub(super) fn weights(&self) -> &[Weight<T>] {
        &self.weights
    }

    /// Hands over the weights of each tree's leaf for this row, in the order of the trees.
    pub(super) fn walk(&self, row: &[T], leaf: impl FnMut(&[Weight<T>])) {
        match self.form {
            Form::AtMost => self.walk_by(row, leaf, |node, x| x <= node.threshold),
            Form::AtMostOrNan => self.walk_by(row, leaf, |node, x| {
                (x <= node.threshold) | (x.is_nan() & (node.feature & NAN_IS_YES != 0))
            }),
            Form::Mixed => self.walk_by(row, leaf, |node, x| {
                if x.is_nan() {
                    node.feature & NAN_IS_YES != 0
                } else if node.feature & IS_EQUAL != 0 {
                    x == node.threshold
                } else {
                    x <= node.threshold
                }
            }),
        }
    }

    fn walk_by(
        &self,
        row: &[T],
        mut leaf: impl FnMut(&[Weight<T>]),
        is_yes: impl Fn(&Node<T>, T) -> bool,
    ) {
        let (groups, rest) = self.roots.as_chunks::<ABREAST>();
        for roots in groups {
            for place in self.leaves(row, roots, &is_yes) {
                leaf(self.weights_at(place));
            }
        }
        for root in rest {
            let [place] = self.leaves(row, &[*root], &is_yes);
            leaf(self.weights_at(place));
        }
    }

    /// Where this row ends up in each of some trees.
    fn leaves<const TREES: usize>(
        &self,
        row: &[T],
        roots: &[Root; TREES],
        is_yes: impl Fn(&Node<T>, T) -> bool,
    ) -> [u32; TREES] {
        let next = |place: u32| {
            let node = &self.nodes[place as usize];
            let x = row[(node.feature & FEATURE) as usize];
            node.yes.wrapping_add(u32::from(!is_yes(node, x)))
        };
        let near = roots.iter().map(|root| root.near).min().unwrap_or(0);
        let far = roots.iter().map(|root| root.far).max().unwrap_or(0);
        let mut places = roots.map(|root| root.place);
        for _ in 0..near {
            for place in &mut places {
                *place = next(*place);
            }
        }
        for _ in near..far {
            let mut moved = 0;
            for place in &mut places {
                let before = std::mem::replace(place, next(*place));
                moved |= before ^ *place;
            }
            if moved == 0 {
                break;
            }
        }
        places
    }

    fn weights_at(&self, place: u32) -> &[Weight<T>] {
        let leaf = self.nodes[place as usize].leaf as usize;
        match &self.starts {
            None => &self.weights[leaf..=leaf],
            Some(starts) => &self.weights[starts[leaf] as usize..starts[leaf + 1] as usize],
        }
    }
}

impl<T: Number> Node<T> {
    fn leaf(place: usize, leaf: usize) -> Self {
        Self {
            threshold: T::from_f32(f32::NAN),
            feature: 0,
            yes: (place as u32).wrapping_sub(1),
            leaf: leaf as u32,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weight(value: f32) -> Vec<Weight<f32>> {
        vec![Weight { target: 0, value }]
    }

    /// One branch over feature 0: 1 if it is true, 0 if not.
    fn one(mode: Mode, threshold: f32, missing_is_true: bool) -> Result<Forest<f32>, String> {
        Forest::build(&Parts {
            branches: vec![Branch {
                feature: 0,
                mode,
                threshold,
                missing_is_true,
                on_true: Goal::Leaf(1),
                on_false: Goal::Leaf(0),
            }],
            leaves: vec![weight(0.0), weight(1.0)],
            roots: vec![Goal::Branch(0)],
        })
    }

    fn is_true(forest: &Forest<f32>, x: f32) -> bool {
        let mut sum = 0.0;
        forest.walk(&[x], |weights| sum += weights[0].value);
        sum > 0.5
    }

    #[test]
    fn every_comparison_is_what_it_says_next_to_its_threshold_and_for_nan() {
        type Compare = fn(f32, f32) -> bool;
        let modes: [(Mode, Compare); 6] = [
            (Mode::AtMost, |x, t| x <= t),
            (Mode::Below, |x, t| x < t),
            (Mode::AtLeast, |x, t| x >= t),
            (Mode::Above, |x, t| x > t),
            (Mode::Equal, |x, t| x == t),
            (Mode::Unequal, |x, t| x != t),
        ];
        for (mode, compare) in modes {
            for threshold in [0.0, -0.0, 1.5, -7e-40, 3e38, f32::INFINITY, f32::MIN] {
                for missing_is_true in [false, true] {
                    let forest = one(mode, threshold, missing_is_true).unwrap();
                    let near = [threshold, threshold.next_down(), threshold.next_up()];
                    let far = [f32::NEG_INFINITY, -1.0, -0.0, 0.0, 2.0, f32::INFINITY];
                    for x in near.into_iter().chain(far) {
                        let told = compare(x, threshold);
                        assert_eq!(is_true(&forest, x), told, "{x} {mode:?} {threshold}");
                    }
                    let told = missing_is_true || compare(f32::NAN, threshold);
                    assert_eq!(is_true(&forest, f32::NAN), told, "NaN {mode:?}");
                }
            }
        }
    }

    #[test]
    fn what_does_not_lead_each_way_once_is_refused() {
        let branch = |on_true, on_false| Branch {
            feature: 0,
            mode: Mode::AtMost,
            threshold: 0.0_f32,
            missing_is_true: false,
            on_true,
            on_false,
        };
        let build = |branches, roots| {
            Forest::build(&Parts {
                branches,
                leaves: vec![weight(1.0)],
                roots,
            })
            .map(|_| ())
        };
        let (leaf, start) = (Goal::Leaf(0), vec![Goal::Branch(0)]);
        build(vec![branch(leaf, leaf)], start.clone()).unwrap();
        let itself = build(vec![branch(Goal::Branch(0), leaf)], start.clone());
        assert!(itself.unwrap_err().contains("cycle"));
        let round = vec![branch(leaf, Goal::Branch(1)), branch(Goal::Branch(0), leaf)];
        assert!(build(round, start.clone()).unwrap_err().contains("cycle"));
        let out = build(vec![branch(Goal::Branch(9), leaf)], start.clone());
        assert!(out.unwrap_err().contains("out of its tree"));
        let lost = build(vec![branch(leaf, leaf), branch(leaf, leaf)], start);
        assert!(lost.unwrap_err().contains("no root leads to its branch 1"));
        assert!(one(Mode::Below, f32::NAN, false).is_err());
        assert!(one(Mode::AtLeast, f32::NEG_INFINITY, false).is_err());
    }
}
