//! A graph as a list of steps over values with fixed places.
//!
//! It is built by running it once on a window of zeros: with one row all shapes follow from the
//! file, so whatever does not fit shows then, what does not depend on the window is kept as it
//! came out, and later runs set no memory aside. Then most operators become less: moves of numbers
//! are no step at all ([`super::moves`]), and what is left of others is a loop ([`super::kernel`]).

use super::catalogue::{self, Made};
use super::feed::Feed;
use super::kernel::{Kernel, Site};
use super::moves::{self, Moved, Moves, Origin};
use super::operator::{Inputs, Operator};
use super::proto::{self, Model};
use super::shaping;
use super::tensor::{Data, Tensor};
use super::{attributes::Attributes, labels::Labels};
use std::collections::HashMap;
use std::sync::Arc;

/// An isolation forest of a thousand trees has thirty thousand.
const NODES_MAX: usize = 100_000;
/// All values between operators together: 64 MiB of floats. A fuzzer has little time for each.
pub(crate) const VALUES_TOTAL_MAX: usize = if cfg!(fuzzing) { 1 << 18 } else { 16_000_000 };
/// Numbers that one operator's moves are followed over, so that a file cannot make load hold much.
const FOLLOWED_MAX: usize = 16 * crate::config::WINDOW_VALUES_MAX;

enum Step {
    Operator(Node),
    Kernel(Kernel),
}

struct Node {
    operator: Box<dyn Operator>,
    inputs: Box<[Option<usize>]>,
    outputs: Box<[usize]>,
    /// As messages name it.
    told: Box<str>,
}

pub(super) struct Program {
    feed: Feed,
    values: Vec<Tensor>,
    steps: Vec<Step>,
    /// The outputs of the step that runs; kept so that no run sets memory aside.
    scratch: Vec<Tensor>,
}

/// What the graph's names stand for, and what is known of them.
pub(super) struct Built<'a> {
    pub(super) program: Program,
    pub(super) places: HashMap<&'a str, usize>,
    /// The classes that the numbers of a value are about, by its place.
    pub(super) classes: HashMap<usize, Vec<Arc<str>>>,
    /// Every list of classes in the graph.
    pub(super) class_lists: Vec<Vec<Arc<str>>>,
}

impl Program {
    pub(super) fn run(&mut self, window: &[f32]) -> Result<(), String> {
        let Self {
            feed,
            values,
            steps,
            scratch,
        } = self;
        feed.fill(window, values)?;
        steps.iter_mut().try_for_each(|step| match step {
            Step::Operator(node) => node.run(values, scratch),
            Step::Kernel(kernel) => {
                kernel(values);
                Ok(())
            }
        })
    }

    pub(super) fn value(&self, place: usize) -> &Tensor {
        &self.values[place]
    }
}

impl Node {
    fn run(&mut self, values: &mut [Tensor], scratch: &mut Vec<Tensor>) -> Result<(), String> {
        let ran = if let [place] = self.outputs[..] {
            // Most have one output, and this is the shorter way.
            let mut output = [std::mem::take(&mut values[place])];
            let ran = self.compute(values, &mut output);
            let [output] = output;
            values[place] = output;
            ran
        } else {
            scratch.clear();
            let places = self.outputs.iter();
            scratch.extend(places.map(|place| std::mem::take(&mut values[*place])));
            let ran = self.compute(values, scratch);
            for (place, output) in self.outputs.iter().zip(scratch.drain(..)) {
                values[*place] = output;
            }
            ran
        };
        ran.map_err(|why| format!("{}: {why}", self.told))
    }

    fn compute(&mut self, values: &[Tensor], outputs: &mut [Tensor]) -> Result<(), String> {
        let inputs = Inputs {
            values,
            places: &self.inputs,
        };
        self.operator.run(&inputs, outputs)
    }
}

struct Builder<'a> {
    model: &'a Model<'a>,
    built: Built<'a>,
    /// Whether a value changes with the window, by place.
    changes: Vec<bool>,
    /// What a value is made of, by place, if its numbers were only moved and stand elsewhere.
    moved: Vec<Option<Moved>>,
    values_total: usize,
    /// Numbers whose moves were followed.
    followed_total: usize,
}

/// Makes every node ready, in the order of the file, which is one that they can run in.
pub(super) fn build<'a>(model: &'a Model<'a>, feed: Feed) -> Result<Built<'a>, String> {
    let graph = &model.graph;
    if graph.nodes.len() > NODES_MAX {
        let count = graph.nodes.len();
        return Err(format!(
            "it has {count} operators, at most {NODES_MAX} are supported"
        ));
    }
    if graph.has_sparse {
        return Err("it has sparse initializers, which are not supported".to_owned());
    }
    let mut builder = Builder {
        model,
        built: Built {
            program: Program {
                feed,
                values: Vec::new(),
                steps: Vec::new(),
                scratch: Vec::new(),
            },
            places: HashMap::new(),
            classes: HashMap::new(),
            class_lists: Vec::new(),
        },
        changes: Vec::new(),
        moved: Vec::new(),
        values_total: 0,
        followed_total: 0,
    };
    // The feed's values come first, in its order.
    for input in super::feed::inputs(graph) {
        builder.place(input.name, true)?;
    }
    let program = &mut builder.built.program;
    program.feed.prepare(&mut program.values)?;
    for initializer in &graph.initializers {
        let tensor = Tensor::read(initializer)?;
        builder.constant(initializer.name, tensor)?;
    }
    for (index, node) in graph.nodes.iter().enumerate() {
        let told = told(node, index);
        builder
            .node(node, &told)
            .map_err(|why| format!("{told}: {why}"))?;
    }
    builder.bring_outputs();
    Ok(builder.built)
}

/// `operator TreeEnsembleRegressor of domain ai.onnx.ml (node 3, "trees")`.
fn told(node: &proto::Node<'_>, index: usize) -> String {
    let domain = if node.domain.is_empty() {
        "ai.onnx"
    } else {
        node.domain
    };
    let (operator, name) = (node.operator, node.name);
    format!("operator {operator} of domain {domain} (node {index}, {name:?})")
}

impl<'a> Builder<'a> {
    fn place(&mut self, name: &'a str, changes: bool) -> Result<usize, String> {
        let place = self.built.program.values.len();
        if self.built.places.insert(name, place).is_some() {
            return Err(format!("{name:?} is made twice"));
        }
        self.add(changes);
        Ok(place)
    }

    fn add(&mut self, changes: bool) {
        self.built.program.values.push(Tensor::default());
        self.changes.push(changes);
        self.moved.push(None);
    }

    fn constant(&mut self, name: &'a str, tensor: Tensor) -> Result<(), String> {
        self.count(&tensor)?;
        let place = self.place(name, false)?;
        self.built.program.values[place] = tensor;
        Ok(())
    }

    fn count(&mut self, tensor: &Tensor) -> Result<(), String> {
        self.values_total += tensor.len();
        if self.values_total > VALUES_TOTAL_MAX {
            return Err(format!("its values are more than {VALUES_TOTAL_MAX}"));
        }
        Ok(())
    }

    fn node(&mut self, node: &'a proto::Node<'a>, told: &str) -> Result<(), String> {
        if node.operator == "Constant" && node.domain.is_empty() {
            let attributes = Attributes::new(node);
            let value = shaping::constant(&attributes)?;
            attributes.finish()?;
            let name = node.outputs.first().ok_or("it has no output")?;
            return self.constant(name, value);
        }
        let find = |name: &&'a str| match *name {
            "" => Ok(None),
            name => {
                let place = self.built.places.get(name);
                place
                    .map(|place| Some(*place))
                    .ok_or_else(|| format!("{name:?} is made nowhere before"))
            }
        };
        let inputs: Box<[_]> = node.inputs.iter().map(find).collect::<Result<_, _>>()?;
        let first = inputs.first().copied().flatten();
        let first = first.map(|place| &self.built.program.values[place]);
        let opset = self.model.opset(node.domain);
        let Made { operator, classes } = catalogue::make(node, first, opset)?;
        // With one row a shape is the same for every window.
        let depends = |place: &Option<usize>| place.is_some_and(|place| self.changes[place]);
        let changes = node.operator != "Shape" && inputs.iter().any(depends);
        let labels = self.label_table(node, &inputs);
        let outputs = node.outputs.iter().map(|name| match *name {
            // An output that nobody asks for is written all the same, under no name.
            "" => {
                self.add(changes);
                Ok(self.built.program.values.len() - 1)
            }
            name => self.place(name, changes),
        });
        let outputs: Box<[_]> = outputs.collect::<Result<_, String>>()?;
        if outputs.is_empty() {
            return Err("it has no output".to_owned());
        }
        let mut node = Node {
            operator,
            inputs,
            outputs,
            told: told.into(),
        };
        self.run(&mut node)?;
        self.note(&node, classes, labels);
        if changes {
            self.settle(node);
        }
        Ok(())
    }

    /// Finds the least that does for each window what the node did.
    fn settle(&mut self, mut node: Node) {
        let output = node.outputs[0];
        if let Some(moved) = self.follow(&mut node) {
            self.moved[output] = Some(moved);
            return;
        }
        let mut site = self.site(&node.inputs, output);
        let spare = site.spare;
        let kernel = match node.outputs.len() {
            1 => node.operator.kernel(&mut site),
            _ => None,
        };
        if kernel.is_none() {
            for input in node.inputs.iter_mut().flatten() {
                *input = site.whole(*input);
            }
        }
        let (kernels, set_aside) = (site.kernels, spare - site.spare);
        self.values_total += set_aside;
        self.keep(kernels);
        let step = kernel.map_or(Step::Operator(node), Step::Kernel);
        self.built.program.steps.push(step);
    }

    fn site<'s>(&'s mut self, inputs: &[Option<usize>], output: usize) -> Site<'s> {
        Site {
            values: &mut self.built.program.values,
            changes: &mut self.changes,
            moved: &mut self.moved,
            kernels: Vec::new(),
            spare: FOLLOWED_MAX.min(VALUES_TOTAL_MAX - self.values_total),
            inputs: inputs.into(),
            output,
        }
    }

    fn keep(&mut self, kernels: Vec<Kernel>) {
        let steps = kernels.into_iter().map(Step::Kernel);
        self.built.program.steps.extend(steps);
    }

    /// Where the numbers of the node's output come from, if it only moves them.
    fn follow(&mut self, node: &mut Node) -> Option<Moved> {
        let values = &self.built.program.values;
        let first = (*node.inputs.first()?)?;
        let moves = node.operator.moves(&values[first]);
        let (moved, others) = match moves {
            Moves::Not => return None,
            Moves::Shape | Moves::OfFirst => node.inputs.split_at(1),
            Moves::OfAll => (&node.inputs[..], &[][..]),
        };
        if others.iter().flatten().any(|place| self.changes[*place]) {
            return None;
        }
        // Whatever a file makes of it, load takes no longer for it than for the values themselves.
        let numbers = moved.iter().flatten().chain(&node.outputs);
        let count = numbers.map(|place| values[*place].len()).sum::<usize>();
        self.followed_total += count;
        if count > FOLLOWED_MAX || self.followed_total > VALUES_TOTAL_MAX {
            return None;
        }
        let mut origins: Vec<Origin> = Vec::new();
        for place in moved.iter().flatten() {
            match &self.moved[*place] {
                Some(moved) => origins.extend(moved.origins()),
                None => {
                    let indices = 0..values[*place].len() as u32;
                    origins.extend(indices.map(|index| (*place as u32, index)));
                }
            }
        }
        let inputs = node.inputs.iter();
        let inputs: Vec<_> = inputs.map(|it| it.map(|place| &values[place])).collect();
        moves::follow(&mut *node.operator, moves, &inputs, &origins)
    }

    /// Whoever reads an output finds it in its place; of what else was moved nothing is kept.
    fn bring_outputs(&mut self) {
        for output in &self.model.graph.outputs {
            if let Some(place) = self.built.places.get(output.name).copied() {
                let mut site = self.site(&[], place);
                site.bring(place);
                let kernels = site.kernels;
                self.keep(kernels);
            }
        }
        let values = self.built.program.values.iter_mut();
        for (value, moved) in values.zip(&self.moved) {
            if moved.is_some() {
                value.data = Data::default();
            }
        }
    }

    fn run(&mut self, step: &mut Node) -> Result<(), String> {
        let program = &mut self.built.program;
        step.run(&mut program.values, &mut program.scratch)
            .map_err(|why| why.replacen(&format!("{}: ", step.told), "", 1))?;
        for place in &step.outputs {
            let count = self.built.program.values[*place].len();
            self.values_total += count;
        }
        if self.values_total > VALUES_TOTAL_MAX {
            return Err(format!("with it, values are more than {VALUES_TOTAL_MAX}"));
        }
        Ok(())
    }

    /// Where a label is taken out of a constant list, the list names the classes.
    fn label_table(
        &self,
        node: &proto::Node<'_>,
        inputs: &[Option<usize>],
    ) -> Option<Vec<Arc<str>>> {
        let table = inputs
            .first()
            .copied()
            .flatten()
            .filter(|place| !self.changes[*place])?;
        if node.operator != "ArrayFeatureExtractor" {
            return None;
        }
        let table = &self.built.program.values[table];
        if let Ok(numbers) = table.values::<i64>() {
            return Some(Labels::Numbers(numbers.to_vec()).names());
        }
        let words = table.values::<Arc<str>>().ok()?;
        Some(words.to_vec())
    }

    /// Keeps what the step tells of classes, and passes on what is known of its input.
    fn note(
        &mut self,
        step: &Node,
        classes: Option<(usize, Labels)>,
        labels: Option<Vec<Arc<str>>>,
    ) {
        let built = &mut self.built;
        built.class_lists.extend(labels);
        if let Some((output, labels)) = classes {
            let names = labels.names();
            built.class_lists.push(names.clone());
            if let Some(place) = step.outputs.get(output) {
                built.classes.insert(*place, names);
            }
        } else if let ([Some(from)], [to]) = (&step.inputs[..], &step.outputs[..]) {
            // Cast, Identity, Softmax and the like leave each number where it was.
            let (values, classes) = (&built.program.values, &mut built.classes);
            if values[*from].shape == values[*to].shape
                && let Some(names) = classes.get(from).cloned()
            {
                classes.insert(*to, names);
            }
        }
    }
}
