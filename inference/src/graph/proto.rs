//! The parts of an ONNX file that a reader needs, borrowed from its bytes and bounded in number.

use super::wire::{Broken, Value, fields};

/// Nodes, names, attributes and strings of a file together. A forest of a million nodes has as
/// many modes; an isolation forest of a thousand trees has thirty thousand operators.
const ITEMS_MAX: usize = 4_000_000;
/// Numbers in attributes and dimensions: a million tree nodes have ten each.
const NUMBERS_MAX: usize = 16_000_000;

#[derive(Debug, Default)]
pub(super) struct Model<'a> {
    pub(super) graph: Graph<'a>,
    /// Domain and version; the default domain is empty.
    opsets: Vec<(&'a str, i64)>,
    pub(super) has_functions: bool,
}

#[derive(Debug, Default)]
pub(super) struct Graph<'a> {
    pub(super) nodes: Vec<Node<'a>>,
    pub(super) initializers: Vec<TensorProto<'a>>,
    pub(super) has_sparse: bool,
    pub(super) inputs: Vec<Slot<'a>>,
    pub(super) outputs: Vec<Slot<'a>>,
}

#[derive(Debug, Default)]
pub(super) struct Node<'a> {
    pub(super) operator: &'a str,
    pub(super) domain: &'a str,
    pub(super) name: &'a str,
    /// An empty name is an input that is left out.
    pub(super) inputs: Vec<&'a str>,
    pub(super) outputs: Vec<&'a str>,
    pub(super) attributes: Vec<Attribute<'a>>,
}

#[derive(Debug)]
pub(super) struct Attribute<'a> {
    pub(super) name: &'a str,
    pub(super) value: Setting<'a>,
}

#[derive(Debug)]
pub(super) enum Setting<'a> {
    Float(f32),
    Int(i64),
    Text(&'a str),
    Tensor(TensorProto<'a>),
    Floats(Vec<f32>),
    Ints(Vec<i64>),
    Texts(Vec<&'a str>),
    /// A graph, a sparse tensor and the like.
    Other,
}

/// A tensor as it stands in the file; `tensor` turns it into values.
#[derive(Debug, Default, Clone)]
pub(super) struct TensorProto<'a> {
    pub(super) name: &'a str,
    pub(super) dims: Vec<i64>,
    pub(super) kind: i64,
    pub(super) raw: Option<&'a [u8]>,
    /// Typed values, as fields of the message.
    pub(super) typed: Vec<Value<'a>>,
    pub(super) is_external: bool,
}

impl TensorProto<'_> {
    /// The values of a tensor of bytes (`uint8`).
    pub(super) fn bytes(&self) -> Option<Vec<i64>> {
        const UINT8: i64 = 2;
        if self.kind != UINT8 || self.is_external {
            return None;
        }
        if let Some(raw) = self.raw {
            return Some(raw.iter().map(|byte| i64::from(*byte)).collect());
        }
        let mut values = Vec::new();
        for field in &self.typed {
            field.ints(|value| values.push(value)).ok()?;
        }
        Some(values)
    }
}

/// An input or output of the graph.
#[derive(Debug, Default)]
pub(super) struct Slot<'a> {
    pub(super) name: &'a str,
    /// ONNX's number of the element type; 0 if it is no tensor.
    pub(super) kind: i64,
    /// `None` for a dimension of any size; no shape at all if it is not told.
    pub(super) dims: Option<Vec<Option<i64>>>,
}

impl<'a> Model<'a> {
    pub(super) fn read(bytes: &'a [u8]) -> Result<Self, String> {
        let mut budget = Budget::default();
        let read = read_model(bytes, &mut budget);
        if budget.is_spent() {
            return Err(format!(
                "it has more than {ITEMS_MAX} parts or {NUMBERS_MAX} numbers in them"
            ));
        }
        let model = read.map_err(|Broken| "it is damaged, or no ONNX file".to_owned())?;
        if model.graph.nodes.is_empty() {
            return Err("it has no graph".to_owned());
        }
        Ok(model)
    }

    /// The version of a domain's operators that the file was written for.
    pub(super) fn opset(&self, domain: &str) -> i64 {
        let of_domain = |(name, _): &&(&str, i64)| plain(name) == domain;
        let found = self.opsets.iter().find(of_domain);
        found.map_or(1, |(_, version)| *version)
    }
}

/// `ai.onnx` is a longer name of the default domain.
pub(super) fn plain(domain: &str) -> &str {
    if domain == "ai.onnx" { "" } else { domain }
}

/// What the file may still ask for.
struct Budget {
    items: usize,
    numbers: usize,
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            items: ITEMS_MAX,
            numbers: NUMBERS_MAX,
        }
    }
}

impl Budget {
    fn item(&mut self) -> Result<(), Broken> {
        self.items = self.items.checked_sub(1).ok_or(Broken)?;
        if self.items == 0 { Err(Broken) } else { Ok(()) }
    }

    /// Before a field of repeated numbers is read: no encoding takes less than a byte each.
    fn numbers(&mut self, value: Value<'_>) -> Result<(), Broken> {
        let most = match value {
            Value::Bytes(packed) => packed.len(),
            _ => 1,
        };
        self.numbers = self.numbers.saturating_sub(most);
        if self.numbers == 0 {
            Err(Broken)
        } else {
            Ok(())
        }
    }

    fn is_spent(&self) -> bool {
        self.items == 0 || self.numbers == 0
    }
}

fn read_model<'a>(bytes: &'a [u8], budget: &mut Budget) -> Result<Model<'a>, Broken> {
    let mut model = Model::default();
    for field in fields(bytes) {
        match field? {
            (7, value) => model.graph = read_graph(value.bytes()?, budget)?,
            (8, value) => {
                budget.item()?;
                let mut opset = ("", 1);
                for field in fields(value.bytes()?) {
                    match field? {
                        (1, value) => opset.0 = value.text()?,
                        (2, value) => opset.1 = value.int()?,
                        _ => {}
                    }
                }
                model.opsets.push(opset);
            }
            (25, _) => model.has_functions = true,
            _ => {}
        }
    }
    Ok(model)
}

fn read_graph<'a>(bytes: &'a [u8], budget: &mut Budget) -> Result<Graph<'a>, Broken> {
    let mut graph = Graph::default();
    for field in fields(bytes) {
        let (number, value) = field?;
        match number {
            1 => graph.nodes.push(read_node(value.bytes()?, budget)?),
            5 => graph
                .initializers
                .push(read_tensor(value.bytes()?, budget)?),
            11 => graph.inputs.push(read_slot(value.bytes()?, budget)?),
            12 => graph.outputs.push(read_slot(value.bytes()?, budget)?),
            15 => graph.has_sparse = true,
            _ => {}
        }
    }
    Ok(graph)
}

fn read_node<'a>(bytes: &'a [u8], budget: &mut Budget) -> Result<Node<'a>, Broken> {
    budget.item()?;
    let mut node = Node::default();
    for field in fields(bytes) {
        let (number, value) = field?;
        match number {
            1 | 2 => {
                budget.item()?;
                let names = if number == 1 {
                    &mut node.inputs
                } else {
                    &mut node.outputs
                };
                names.push(value.text()?);
            }
            3 => node.name = value.text()?,
            4 => node.operator = value.text()?,
            5 => node
                .attributes
                .push(read_attribute(value.bytes()?, budget)?),
            7 => node.domain = plain(value.text()?),
            _ => {}
        }
    }
    Ok(node)
}

/// Numbers of `AttributeProto.type`.
mod kind {
    pub(super) const FLOAT: i64 = 1;
    pub(super) const INT: i64 = 2;
    pub(super) const STRING: i64 = 3;
    pub(super) const TENSOR: i64 = 4;
    pub(super) const FLOATS: i64 = 6;
    pub(super) const INTS: i64 = 7;
    pub(super) const STRINGS: i64 = 8;
}

fn read_attribute<'a>(bytes: &'a [u8], budget: &mut Budget) -> Result<Attribute<'a>, Broken> {
    budget.item()?;
    let (mut name, mut told) = ("", None);
    let (mut float, mut int, mut text, mut tensor) = (0.0, 0, "", None);
    let (mut floats, mut ints, mut texts) = (Vec::new(), Vec::new(), Vec::new());
    // Old exporters leave the type out; then it is what the last field is.
    let mut found = 0;
    for field in fields(bytes) {
        let (number, value) = field?;
        found = match number {
            1 => {
                name = value.text()?;
                continue;
            }
            2 => {
                float = value.float()?;
                kind::FLOAT
            }
            3 => {
                int = value.int()?;
                kind::INT
            }
            4 => {
                // Only strings that are text are asked for by name.
                text = value.text().unwrap_or("\u{fffd}");
                kind::STRING
            }
            5 => {
                tensor = Some(read_tensor(value.bytes()?, budget)?);
                kind::TENSOR
            }
            7 => {
                budget.numbers(value)?;
                value.floats(|value| floats.push(value))?;
                kind::FLOATS
            }
            8 => {
                budget.numbers(value)?;
                value.ints(|value| ints.push(value))?;
                kind::INTS
            }
            9 => {
                budget.item()?;
                texts.push(value.text()?);
                kind::STRINGS
            }
            20 => {
                told = Some(value.int()?);
                continue;
            }
            _ => continue,
        };
    }
    let value = match told.unwrap_or(found) {
        kind::FLOAT => Setting::Float(float),
        kind::INT => Setting::Int(int),
        kind::STRING => Setting::Text(text),
        kind::TENSOR => Setting::Tensor(tensor.ok_or(Broken)?),
        kind::FLOATS => Setting::Floats(floats),
        kind::INTS => Setting::Ints(ints),
        kind::STRINGS => Setting::Texts(texts),
        _ => Setting::Other,
    };
    Ok(Attribute { name, value })
}

fn read_tensor<'a>(bytes: &'a [u8], budget: &mut Budget) -> Result<TensorProto<'a>, Broken> {
    budget.item()?;
    let mut tensor = TensorProto::default();
    for field in fields(bytes) {
        let (number, value) = field?;
        match number {
            1 => {
                budget.numbers(value)?;
                value.ints(|value| tensor.dims.push(value))?;
            }
            2 => tensor.kind = value.int()?,
            8 => tensor.name = value.text()?,
            9 => tensor.raw = Some(value.bytes()?),
            4..=7 | 10 | 11 => {
                budget.item()?;
                tensor.typed.push(value);
            }
            13 => tensor.is_external = true,
            14 => tensor.is_external |= value.int()? != 0,
            _ => {}
        }
    }
    Ok(tensor)
}

fn read_slot<'a>(bytes: &'a [u8], budget: &mut Budget) -> Result<Slot<'a>, Broken> {
    budget.item()?;
    let mut slot = Slot::default();
    for field in fields(bytes) {
        match field? {
            (1, value) => slot.name = value.text()?,
            (2, value) => {
                for field in fields(value.bytes()?) {
                    // The first member is the tensor; sequences and maps have no element type.
                    if let (1, value) = field? {
                        read_type(value.bytes()?, &mut slot, budget)?;
                    }
                }
            }
            _ => {}
        }
    }
    Ok(slot)
}

fn read_type(bytes: &[u8], slot: &mut Slot<'_>, budget: &mut Budget) -> Result<(), Broken> {
    for field in fields(bytes) {
        match field? {
            (1, value) => slot.kind = value.int()?,
            (2, value) => {
                let dims = slot.dims.insert(Vec::new());
                for field in fields(value.bytes()?) {
                    let (1, value) = field? else { continue };
                    budget.item()?;
                    let mut dim = None;
                    for field in fields(value.bytes()?) {
                        if let (1, value) = field? {
                            dim = Some(value.int()?);
                        }
                    }
                    dims.push(dim);
                }
            }
            _ => {}
        }
    }
    Ok(())
}
