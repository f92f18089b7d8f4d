//! The families of models that exporters write, against what onnxruntime answered to them.

use super::*;
use crate::output::Pick;
use serde::Deserialize;
use std::path::{Path, PathBuf};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/families")
}

#[derive(Deserialize)]
struct Family {
    name: String,
    /// The file of rows that it is tested on.
    rows: String,
    columns: usize,
    output: Chosen,
    scores: Vec<f32>,
    classes: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct Chosen {
    name: Option<String>,
    index: Option<usize>,
    class: Option<String>,
}

impl Family {
    fn all() -> Vec<Self> {
        let text = std::fs::read(folder().join("models.json")).unwrap();
        serde_json::from_slice(&text).unwrap()
    }

    fn bytes(&self) -> Vec<u8> {
        std::fs::read(folder().join(format!("{}.onnx", self.name))).unwrap()
    }

    fn output(&self) -> Output {
        let Chosen { name, index, class } = &self.output;
        let of_class = class.clone().map_or(Pick::Default, Pick::Class);
        Output {
            name: name.clone(),
            pick: index.map_or(of_class, Pick::Index),
        }
    }

    fn load(&self, bytes: &[u8]) -> Result<Box<dyn Runner>, Refusal> {
        load(bytes, 1, self.columns, &self.output())
    }

    fn rows(&self) -> Vec<Vec<f32>> {
        let width = if self.rows == "ai4i" { 6 } else { 32 };
        let bytes = std::fs::read(folder().join(format!("{}.rows", self.rows))).unwrap();
        let (numbers, _) = bytes.as_chunks::<4>();
        let numbers: Vec<f32> = numbers.iter().map(|it| f32::from_le_bytes(*it)).collect();
        let rows = numbers.chunks_exact(width);
        rows.map(|row| row[..self.columns].to_vec()).collect()
    }
}

/// Relative to the answer, or absolute where that is below one.
const TOLERANCE: f32 = 1e-4;

#[test]
fn every_family_answers_as_onnxruntime_does() {
    let families = Family::all();
    assert!(families.len() > 70, "{}", families.len());
    let mut wrong = Vec::new();
    for family in &families {
        let name = &family.name;
        let mut runner = match family.load(&family.bytes()) {
            Ok(runner) => runner,
            Err(refusal) => {
                wrong.push(format!("{name}: {refusal:?}"));
                continue;
            }
        };
        let rows = family.rows();
        for (index, (row, due)) in rows.iter().zip(&family.scores).enumerate() {
            let got = runner.run(row).unwrap();
            let class = family
                .classes
                .as_ref()
                .map(|classes| classes[index].as_str());
            let close = (got.value - due).abs() <= TOLERANCE * due.abs().max(1.0);
            if !close || got.class.as_deref() != class {
                wrong.push(format!(
                    "{name}, row {index}: {got:?} where {due} {class:?} is due"
                ));
                break;
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The mistakes of a disk or a foe: whatever the bytes are, a refusal or an answer, and soon.
#[test]
fn a_damaged_file_is_refused_or_answers_and_neither_panics_nor_hangs() {
    let names = [
        "tree_binary",
        "logistic_multi",
        "columns",
        "svm_binary",
        "mlp_binary",
        "normalized",
        "made_v5_sum",
    ];
    let (mut refused, mut ran) = (0, 0);
    for family in Family::all().iter().filter(|it| names.contains(&&*it.name)) {
        let (whole, row) = (family.bytes(), family.rows().remove(0));
        let mut hold = |bytes: &[u8]| match family.load(bytes) {
            Err(_) => refused += 1,
            Ok(mut runner) => {
                drop(runner.run(&row));
                ran += 1;
            }
        };
        let stride = whole.len() / 120 + 1;
        for at in (0..whole.len()).step_by(stride) {
            hold(&whole[..at]);
            for flip in [0x01, 0x80, 0xff] {
                let mut bytes = whole.clone();
                bytes[at] ^= flip;
                hold(&bytes);
            }
        }
    }
    assert!(refused > 1_000 && ran > 500, "{refused} refused, {ran} ran");
}

/// Just enough of protobuf to write graphs that no exporter would.
mod write {
    pub(super) fn varint(mut value: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        while value >= 0x80 {
            bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        bytes.push(value as u8);
        bytes
    }

    pub(super) fn bytes(number: u64, content: &[u8]) -> Vec<u8> {
        [
            varint(number << 3 | 2),
            varint(content.len() as u64),
            content.to_vec(),
        ]
        .concat()
    }

    fn int(number: u64, value: u64) -> Vec<u8> {
        [varint(number << 3), varint(value)].concat()
    }

    fn attribute(name: &str, kind: u64, values: &[Vec<u8>]) -> Vec<u8> {
        let content = [bytes(1, name.as_bytes()), values.concat(), int(20, kind)].concat();
        bytes(5, &content)
    }

    pub(super) fn ints(name: &str, values: &[u64]) -> Vec<u8> {
        let values: Vec<_> = values.iter().map(|value| int(8, *value)).collect();
        attribute(name, 7, &values)
    }

    pub(super) fn floats(name: &str, values: &[f32]) -> Vec<u8> {
        let value = |value: &f32| [varint(7 << 3 | 5), value.to_le_bytes().to_vec()].concat();
        attribute(name, 6, &values.iter().map(value).collect::<Vec<_>>())
    }

    pub(super) fn texts(name: &str, values: &[&str]) -> Vec<u8> {
        let values: Vec<_> = values.iter().map(|it| bytes(9, it.as_bytes())).collect();
        attribute(name, 8, &values)
    }

    pub(super) fn node(
        operator: &str,
        domain: &str,
        from: &str,
        to: &str,
        more: &[Vec<u8>],
    ) -> Vec<u8> {
        let content = [
            bytes(1, from.as_bytes()),
            bytes(2, to.as_bytes()),
            bytes(4, operator.as_bytes()),
            bytes(7, domain.as_bytes()),
            more.concat(),
        ];
        bytes(1, &content.concat())
    }

    /// A tensor of whole numbers that the graph is given.
    pub(super) fn initializer(name: &str, values: &[u64]) -> Vec<u8> {
        let raw: Vec<u8> = values.iter().flat_map(|it| it.to_le_bytes()).collect();
        let content = [
            int(1, values.len() as u64),
            int(2, 7),
            bytes(8, name.as_bytes()),
            bytes(9, &raw),
        ];
        bytes(5, &content.concat())
    }

    /// From input `X` of floats to output `Y` of floats.
    pub(super) fn model(parts: &[Vec<u8>]) -> Vec<u8> {
        let slot =
            |name: &str| [bytes(1, name.as_bytes()), bytes(2, &bytes(1, &int(1, 1)))].concat();
        let graph = [parts.concat(), bytes(11, &slot("X")), bytes(12, &slot("Y"))].concat();
        bytes(7, &graph)
    }
}

fn refusal(model: &[u8], columns: usize) -> String {
    match load(model, 1, columns, &Output::default()) {
        Ok(_) => panic!("it was taken"),
        Err(refusal) => format!("{refusal:?}"),
    }
}

#[test]
fn an_operator_that_is_not_known_is_named() {
    let scaled = write::node(
        "Scaler",
        "ai.onnx.ml",
        "X",
        "S",
        &[
            write::floats("offset", &[1.0]),
            write::floats("scale", &[2.0]),
        ],
    );
    let foreign = write::node("Nonsense", "com.acme", "S", "Y", &[]);
    let told = refusal(&write::model(&[scaled.clone(), foreign]), 3);
    let named = "operator Nonsense of domain com.acme (node 1";
    assert!(
        told.contains(named) && told.contains("not among the operators"),
        "{told}"
    );
    // What an attribute that is not known would change, nobody knows.
    let odd = write::node("Neg", "", "S", "Y", &[write::ints("twice", &[1])]);
    let told = refusal(&write::model(&[scaled.clone(), odd]), 3);
    assert!(
        told.contains("operator Neg") && told.contains("attribute twice"),
        "{told}"
    );
    let early = write::node("Neg", "", "later", "Y", &[]);
    let told = refusal(&write::model(&[scaled, early]), 3);
    assert!(
        told.contains("\\\"later\\\" is made nowhere before"),
        "{told}"
    );
}

/// Two branches, the second of which leads to `back`.
fn tree(back: u64) -> Vec<u8> {
    let attributes = [
        write::ints("nodes_treeids", &[0; 4]),
        write::ints("nodes_nodeids", &[0, 1, 2, 3]),
        write::ints("nodes_featureids", &[0; 4]),
        write::texts("nodes_modes", &["BRANCH_LEQ", "BRANCH_LEQ", "LEAF", "LEAF"]),
        write::floats("nodes_values", &[1.0, 2.0, 0.0, 0.0]),
        write::ints("nodes_truenodeids", &[2, back, 0, 0]),
        write::ints("nodes_falsenodeids", &[1, 3, 0, 0]),
        write::ints("target_treeids", &[0; 2]),
        write::ints("target_nodeids", &[2, 3]),
        write::ints("target_ids", &[0; 2]),
        write::floats("target_weights", &[5.0, 7.0]),
    ];
    write::model(&[write::node(
        "TreeEnsembleRegressor",
        "ai.onnx.ml",
        "X",
        "Y",
        &attributes,
    )])
}

#[test]
fn a_tree_with_a_cycle_is_refused_at_load() {
    let mut runner = load(&tree(2), 1, 1, &Output::default()).unwrap();
    assert_eq!(runner.run(&[0.5]), Ok(Score::from(5.0)));
    assert_eq!(runner.run(&[3.0]), Ok(Score::from(7.0)));
    assert_eq!(
        runner.run(&[1.5]),
        Ok(Score::from(5.0)),
        "two branches share a leaf"
    );
    for back in [0, 1] {
        let told = refusal(&tree(back), 1);
        assert!(told.contains("has a cycle"), "{told}");
    }
    assert!(refusal(&tree(9), 1).contains("tree 0 has no node 9"));
}

#[test]
fn memory_is_not_set_aside_on_the_word_of_a_file() {
    let scaled = |from| {
        let attributes = [
            write::floats("offset", &[0.0]),
            write::floats("scale", &[1.0]),
        ];
        write::node("Scaler", "ai.onnx.ml", from, "Y", &attributes)
    };
    for size in [1 << 40, u64::MAX, 5_000_000] {
        let bomb = write::node("ConstantOfShape", "", "size", "large", &[]);
        let shape = write::initializer("size", &[1, size]);
        let told = refusal(&write::model(&[shape, bomb, scaled("large")]), 1);
        assert!(told.contains("operator ConstantOfShape"), "{told}");
    }
}

#[test]
fn a_score_that_must_be_chosen_is_refused_with_the_choice() {
    let families = Family::all();
    let named = |name: &str| families.iter().find(|family| family.name == name).unwrap();
    let told = |name: &str, output: &Output| {
        let family = named(name);
        match load(&family.bytes(), 1, family.columns, output) {
            Ok(_) => panic!("{name} was taken"),
            Err(Refusal::Output { got }) => got,
            Err(other) => panic!("{other:?}"),
        }
    };
    let classes = told("forest_words", &Output::default());
    assert!(
        classes.contains(r#"["heat", "none", "power", "strain", "wear"]"#),
        "{classes}"
    );
    let lost = Output {
        name: None,
        pick: Pick::Class("rust".to_owned()),
    };
    assert!(told("forest_words", &lost).contains("\"heat\""));
    let beyond = Output {
        name: Some("probabilities".to_owned()),
        pick: Pick::Index(5),
    };
    assert!(told("forest_tensor", &beyond).contains("5 numbers in \"probabilities\""));
    let several = told(
        "isolation_samples",
        &Output {
            name: Some("nonsense".to_owned()),
            pick: Pick::Default,
        },
    );
    assert!(
        several.contains("scores [1, 1] of float, score_samples [1, 1]"),
        "{several}"
    );
}

#[test]
fn a_window_that_does_not_fit_is_refused_with_what_is_taken() {
    let families = Family::all();
    let family = families
        .iter()
        .find(|family| family.name == "frame")
        .unwrap();
    let refused = |rows, columns| {
        let loaded = load(&family.bytes(), rows, columns, &Output::default());
        matches!(loaded, Err(Refusal::Shape { wants }) if wants.contains("air [?, 1] of float"))
    };
    assert!(refused(1, 5) && refused(2, 6) && refused(6, 1));
    // One input of many columns takes several rows, one after the other.
    let family = families
        .iter()
        .find(|family| family.name == "tree_binary")
        .unwrap();
    let mut runner = load(&family.bytes(), 2, 3, &Output::default()).unwrap();
    let due = family.scores[0];
    assert!((runner.run(&family.rows()[0]).unwrap().value - due).abs() < TOLERANCE);
    assert!(runner.run(&[0.0; 5]).is_err());
}
