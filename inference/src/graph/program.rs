//! A graph as a list of steps over values with fixed places.
//!
//! It is built by running it once on a window of zeros: with one row all shapes follow from the
//! file, so whatever does not fit shows then, what does not depend on the window is kept as it
//! came out, and later runs set no memory aside.

use super::catalogue::{self, Made};
use super::feed::Feed;
use super::operator::{Inputs, Operator};
use super::proto::{Model, Node};
use super::shaping;
use super::tensor::Tensor;
use super::{attributes::Attributes, labels::Labels};
use std::collections::HashMap;
use std::sync::Arc;

/// An isolation forest of a thousand trees has thirty thousand.
const NODES_MAX: usize = 100_000;
/// All values between operators together: 64 MiB of floats. A fuzzer has little time for each.
pub(crate) const VALUES_TOTAL_MAX: usize = if cfg!(fuzzing) { 1 << 18 } else { 16_000_000 };

struct Step {
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
        steps
            .iter_mut()
            .try_for_each(|step| step.run(values, scratch))
    }

    pub(super) fn value(&self, place: usize) -> &Tensor {
        &self.values[place]
    }
}

impl Step {
    fn run(&mut self, values: &mut [Tensor], scratch: &mut Vec<Tensor>) -> Result<(), String> {
        scratch.clear();
        scratch.extend(
            self.outputs
                .iter()
                .map(|place| std::mem::take(&mut values[*place])),
        );
        let inputs = Inputs {
            values,
            places: &self.inputs,
        };
        let ran = self.operator.run(&inputs, scratch);
        for (place, output) in self.outputs.iter().zip(scratch.drain(..)) {
            values[*place] = output;
        }
        ran.map_err(|why| format!("{}: {why}", self.told))
    }
}

struct Builder<'a> {
    model: &'a Model<'a>,
    built: Built<'a>,
    /// Whether a value changes with the window, by place.
    changes: Vec<bool>,
    values_total: usize,
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
        values_total: 0,
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
    Ok(builder.built)
}

/// `operator TreeEnsembleRegressor of domain ai.onnx.ml (node 3, "trees")`.
fn told(node: &Node<'_>, index: usize) -> String {
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
        self.built.program.values.push(Tensor::default());
        self.changes.push(changes);
        Ok(place)
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

    fn node(&mut self, node: &'a Node<'a>, told: &str) -> Result<(), String> {
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
                self.built.program.values.push(Tensor::default());
                self.changes.push(changes);
                Ok(self.built.program.values.len() - 1)
            }
            name => self.place(name, changes),
        });
        let outputs: Box<[_]> = outputs.collect::<Result<_, String>>()?;
        if outputs.is_empty() {
            return Err("it has no output".to_owned());
        }
        let mut step = Step {
            operator,
            inputs,
            outputs,
            told: told.into(),
        };
        self.run(&mut step)?;
        self.note(&step, classes, labels);
        if changes {
            self.built.program.steps.push(step);
        }
        Ok(())
    }

    fn run(&mut self, step: &mut Step) -> Result<(), String> {
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
    fn label_table(&self, node: &Node<'_>, inputs: &[Option<usize>]) -> Option<Vec<Arc<str>>> {
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
        step: &Step,
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
