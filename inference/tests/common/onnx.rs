//! Small ONNX files, written byte by byte: a graph that a test needs and no exporter would make.

use sha2::{Digest, Sha256};
use std::path::Path;

fn varint(mut number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = (number & 0x7f) as u8;
        number >>= 7;
        if number == 0 {
            bytes.push(low);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}

fn number(field: u64, value: u64) -> Vec<u8> {
    [varint(field << 3), varint(value)].concat()
}

fn bytes(field: u64, value: &[u8]) -> Vec<u8> {
    [
        varint(field << 3 | 2),
        varint(value.len() as u64),
        value.to_vec(),
    ]
    .concat()
}

fn node(operator: &str, inputs: &[&str], output: &str) -> Vec<u8> {
    let mut node = Vec::new();
    for input in inputs {
        node.extend(bytes(1, input.as_bytes()));
    }
    node.extend(bytes(2, output.as_bytes()));
    node.extend(bytes(4, operator.as_bytes()));
    bytes(1, &node)
}

fn tensor_of_floats(name: &str, dims: &[u64]) -> Vec<u8> {
    let dims: Vec<u8> = dims
        .iter()
        .flat_map(|dim| bytes(1, &number(1, *dim)))
        .collect();
    let tensor = [number(1, 1), bytes(2, &dims)].concat();
    [bytes(1, name.as_bytes()), bytes(2, &bytes(1, &tensor))].concat()
}

fn model(nodes: &[Vec<u8>], constants: &[Vec<u8>], rows: u64, output: &str) -> Vec<u8> {
    let graph = [
        nodes.concat(),
        bytes(2, b"test"),
        constants.concat(),
        bytes(11, &tensor_of_floats("x", &[1, rows, 1])),
        bytes(12, &tensor_of_floats(output, &[1, 1, 1])),
    ];
    let opset = [bytes(1, b""), number(2, 13)].concat();
    [number(1, 8), bytes(8, &opset), bytes(7, &graph.concat())].concat()
}

/// The mean of a window, and what these operators make of it one after the other.
pub(crate) fn mean_then(operators: &[&str], rows: u64) -> Vec<u8> {
    let mut nodes = vec![node("ReduceMean", &["x"], "0")];
    for (at, operator) in operators.iter().enumerate() {
        let (input, output) = (at.to_string(), (at + 1).to_string());
        nodes.push(node(operator, &[&input], &output));
    }
    model(&nodes, &[], rows, &operators.len().to_string())
}

/// Asks for a tensor of 2^40 numbers.
pub(crate) fn bomb(rows: u64) -> Vec<u8> {
    let shape = [1_i64 << 20, 1 << 20].map(i64::to_le_bytes).concat();
    let constant = [
        number(1, 2),
        number(2, 7),
        bytes(8, b"shape"),
        bytes(9, &shape),
    ]
    .concat();
    let nodes = [
        node("ConstantOfShape", &["shape"], "large"),
        node("Sqrt", &["large"], "roots"),
        node("ReduceMean", &["roots"], "one"),
        node("ReduceMean", &["x"], "other"),
        node("Add", &["one", "other"], "sum"),
    ];
    model(&nodes, &[bytes(5, &constant)], rows, "sum")
}

/// A package of this model for windows of `rows` numbers, whose golden case is a window of ones.
pub(crate) fn package(folder: &Path, file: &[u8], rows: usize, golden: f32) -> serde_json::Value {
    std::fs::create_dir_all(folder).unwrap();
    std::fs::write(folder.join("model.onnx"), file).unwrap();
    let sha256 = Sha256::digest(file);
    let sha256: String = sha256.iter().map(|byte| format!("{byte:02x}")).collect();
    let version = folder.file_name().unwrap().to_str().unwrap();
    let window = vec![[1.0]; rows];
    let manifest = serde_json::json!({
        "format": 1, "name": "mean", "version": version, "model": "model.onnx", "sha256": sha256,
        "input": {"rows": rows, "columns": [{"name": "t", "unit": "°C", "range": [-50, 150]}]},
        "golden": {"tolerance": 1e-5, "cases": [{"input": window, "output": golden}]},
        "provenance": {"by": "a test"},
    });
    write_manifest(folder, &manifest);
    manifest
}

pub(crate) fn write_manifest(folder: &Path, manifest: &serde_json::Value) {
    std::fs::write(folder.join("model.json"), manifest.to_string()).unwrap();
}
