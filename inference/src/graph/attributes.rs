//! A node's attributes, asked one by one; what nobody asked for is refused, since an answer
//! without it could be another one.

use super::proto::{Node, Setting, TensorProto};
use std::cell::RefCell;
use std::collections::BTreeSet;

pub(super) struct Attributes<'a> {
    node: &'a Node<'a>,
    asked: RefCell<BTreeSet<&'static str>>,
}

impl<'a> Attributes<'a> {
    pub(super) fn new(node: &'a Node<'a>) -> Self {
        Self {
            node,
            asked: RefCell::default(),
        }
    }

    fn ask(&self, name: &'static str) -> Option<&'a Setting<'a>> {
        self.asked.borrow_mut().insert(name);
        let mut attributes = self.node.attributes.iter();
        let found = attributes.find(|attribute| attribute.name == name);
        found.map(|attribute| &attribute.value)
    }

    pub(super) fn has(&self, name: &'static str) -> bool {
        self.ask(name).is_some()
    }

    pub(super) fn int(&self, name: &'static str) -> Result<Option<i64>, String> {
        match self.ask(name) {
            None => Ok(None),
            Some(Setting::Int(value)) => Ok(Some(*value)),
            Some(_) => Err(wrong(name, "a whole number")),
        }
    }

    pub(super) fn float(&self, name: &'static str) -> Result<Option<f32>, String> {
        match self.ask(name) {
            None => Ok(None),
            Some(Setting::Float(value)) => Ok(Some(*value)),
            Some(_) => Err(wrong(name, "a number")),
        }
    }

    pub(super) fn text(&self, name: &'static str) -> Result<Option<&'a str>, String> {
        match self.ask(name) {
            None => Ok(None),
            Some(Setting::Text(value)) => Ok(Some(value)),
            Some(_) => Err(wrong(name, "a word")),
        }
    }

    /// Empty where it is left out.
    pub(super) fn ints(&self, name: &'static str) -> Result<&'a [i64], String> {
        match self.ask(name) {
            None => Ok(&[]),
            Some(Setting::Ints(values)) => Ok(values),
            Some(_) => Err(wrong(name, "a list of whole numbers")),
        }
    }

    pub(super) fn floats(&self, name: &'static str) -> Result<&'a [f32], String> {
        match self.ask(name) {
            None => Ok(&[]),
            Some(Setting::Floats(values)) => Ok(values),
            Some(_) => Err(wrong(name, "a list of numbers")),
        }
    }

    pub(super) fn texts(&self, name: &'static str) -> Result<&'a [&'a str], String> {
        match self.ask(name) {
            None => Ok(&[]),
            Some(Setting::Texts(values)) => Ok(values),
            Some(_) => Err(wrong(name, "a list of words")),
        }
    }

    pub(super) fn tensor(&self, name: &'static str) -> Result<Option<&'a TensorProto<'a>>, String> {
        match self.ask(name) {
            None => Ok(None),
            Some(Setting::Tensor(tensor)) => Ok(Some(tensor)),
            Some(_) => Err(wrong(name, "a tensor")),
        }
    }

    /// Attributes that change nothing about the answer.
    pub(super) fn ignore(&self, names: &[&'static str]) {
        self.asked.borrow_mut().extend(names);
    }

    /// After all that are known were asked for.
    pub(super) fn finish(&self) -> Result<(), String> {
        let asked = self.asked.borrow();
        let mut attributes = self.node.attributes.iter();
        match attributes.find(|attribute| !asked.contains(attribute.name)) {
            None => Ok(()),
            Some(unknown) => Err(format!("its attribute {} is not known here", unknown.name)),
        }
    }
}

fn wrong(name: &str, due: &str) -> String {
    format!("its attribute {name} is not {due}")
}
