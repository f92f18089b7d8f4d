//! OneHotEncoder, LabelEncoder, ArrayFeatureExtractor.

use super::attributes::Attributes;
use super::kernel::{Kernel, Site, map};
use super::labels::Labels;
use super::moves::Moves;
use super::operator::{Inputs, Operator};
use super::tensor::{Data, Element, Tensor, each_kind};
use std::rc::Rc;
use std::sync::Arc;

struct OneHotEncoder {
    categories: Labels,
    unknown_is_zeros: bool,
}

impl OneHotEncoder {
    fn place(&self, input: &Tensor, index: usize) -> Result<Option<usize>, String> {
        let number = match &input.data {
            Data::Text(words) => {
                let Labels::Words(known) = &self.categories else {
                    return Err("it is given words and knows numbers".to_owned());
                };
                return Ok(known.iter().position(|word| *word == words[index]));
            }
            Data::F32(values) => values[index] as i64,
            Data::F64(values) => values[index] as i64,
            Data::I64(values) => values[index],
            Data::I32(values) => i64::from(values[index]),
            Data::Bool(_) => return Err("it encodes no bool".to_owned()),
        };
        let Labels::Numbers(known) = &self.categories else {
            return Err("it is given numbers and knows words".to_owned());
        };
        Ok(known.iter().position(|known| *known == number))
    }
}

impl Operator for OneHotEncoder {
    fn run(&mut self, inputs: &Inputs<'_>, outputs: &mut [Tensor]) -> Result<(), String> {
        let input = inputs.get(0)?;
        let mut shape = input.shape.clone();
        let count = self.categories.len();
        shape
            .push(count)
            .map_err(|_| "its input has too many dimensions")?;
        let encoded = outputs[0].set::<f32>(&shape)?;
        for index in 0..input.len() {
            let place = self.place(input, index)?;
            if place.is_none() && !self.unknown_is_zeros {
                return Err("a value is none of its categories".to_owned());
            }
            encoded.extend((0..count).map(|it| if place == Some(it) { 1.0 } else { 0.0 }));
        }
        Ok(())
    }
}

pub(super) fn one_hot(attributes: &Attributes<'_>) -> Result<Box<dyn Operator>, String> {
    Ok(Box::new(OneHotEncoder {
        categories: Labels::read(attributes, "cats_int64s", "cats_strings")?,
        unknown_is_zeros: attributes.int("zeros")?.unwrap_or(1) != 0,
    }))
}

/// What identifies a key; floats by their bits, so that NaN is found.
trait Key: Element {
    type Id: Ord + 'static;
    fn id(&self) -> Self::Id;
}

impl Key for i64 {
    type Id = i64;

    fn id(&self) -> i64 {
        *self
    }
}

impl Key for f32 {
    type Id = u32;

    fn id(&self) -> u32 {
        // Zero has two signs, NaN many bits.
        if self.is_nan() {
            f32::NAN.to_bits()
        } else {
            (*self + 0.0).to_bits()
        }
    }
}

impl Key for Arc<str> {
    type Id = Arc<str>;

    fn id(&self) -> Arc<str> {
        Arc::clone(self)
    }
}

struct LabelEncoder<K: Key, V>(Rc<Table<K, V>>);

struct Table<K: Key, V> {
    /// In the order of the keys.
    values: Vec<(K::Id, V)>,
    default: V,
}

impl<K: Key, V: Element> LabelEncoder<K, V> {
    fn boxed(keys: &[K], values: &[V], default: V) -> Result<Box<dyn Operator>, String> {
        if keys.len() != values.len() {
            return Err(format!(
                "it has {} keys for {} values",
                keys.len(),
                values.len()
            ));
        }
        let pairs = keys.iter().zip(values);
        let mut values: Vec<_> = pairs
            .map(|(key, value)| (key.id(), value.clone()))
            .collect();
        // Of a key that comes twice, the first counts.
        values.sort_by(|(one, _), (other, _)| one.cmp(other));
        values.dedup_by(|(later, _), (first, _)| later == first);
        Ok(Box::new(Self(Rc::new(Table { values, default }))))
    }
}

impl<K: Key, V: Element> Table<K, V> {
    fn find(&self, key: &K) -> V {
        let id = key.id();
        let found = self.values.binary_search_by(|(known, _)| known.cmp(&id));
        found.map_or(&self.default, |at| &self.values[at].1).clone()
    }
}

impl<K: Key, V: Element> Operator for LabelEncoder<K, V> {
    fn run(&mut self, inputs: &Inputs<'_>, outputs: &mut [Tensor]) -> Result<(), String> {
        let input = inputs.get(0)?;
        let keys = input.values::<K>()?;
        let encoded = outputs[0].set::<V>(&input.shape)?;
        encoded.extend(keys.iter().map(|key| self.0.find(key)));
        Ok(())
    }

    fn kernel(&self, site: &mut Site<'_>) -> Option<Kernel> {
        let table = Rc::clone(&self.0);
        map(site, move |key: &K| table.find(key))
    }
}

/// A list of an encoder: by name of its type, or as a tensor.
fn list(
    attributes: &Attributes<'_>,
    (ints, floats, texts, tensor): (&'static str, &'static str, &'static str, &'static str),
) -> Result<Data, String> {
    let (ints, floats) = (attributes.ints(ints)?, attributes.floats(floats)?);
    let texts = attributes.texts(texts)?;
    match (attributes.tensor(tensor)?, ints, floats, texts) {
        (Some(tensor), [], [], []) => Ok(Tensor::read(tensor)?.data),
        (None, ints @ [_, ..], [], []) => Ok(Data::I64(ints.to_vec())),
        (None, [], floats @ [_, ..], []) => Ok(Data::F32(floats.to_vec())),
        (None, [], [], texts @ [_, ..]) => {
            Ok(Data::Text(texts.iter().copied().map(Arc::from).collect()))
        }
        _ => Err("it does not have one list of keys and one of values".to_owned()),
    }
}

pub(super) fn label_encoder(attributes: &Attributes<'_>) -> Result<Box<dyn Operator>, String> {
    let keys = list(
        attributes,
        ("keys_int64s", "keys_floats", "keys_strings", "keys_tensor"),
    )?;
    let values = list(
        attributes,
        (
            "values_int64s",
            "values_floats",
            "values_strings",
            "values_tensor",
        ),
    )?;
    let int = attributes.int("default_int64")?.unwrap_or(-1);
    let float = attributes.float("default_float")?.unwrap_or(-0.0);
    let text = attributes.text("default_string")?.unwrap_or("_Unused");
    if attributes.has("default_tensor") {
        return Err("a default_tensor is not supported".to_owned());
    }
    match values {
        Data::I64(values) => encoder(&keys, &values, int),
        Data::F32(values) => encoder(&keys, &values, float),
        Data::Text(values) => encoder(&keys, &values, text.into()),
        _ => Err("its values are of a type that is not supported".to_owned()),
    }
}

fn encoder<V: Element>(keys: &Data, values: &[V], default: V) -> Result<Box<dyn Operator>, String> {
    match keys {
        Data::I64(keys) => LabelEncoder::boxed(keys, values, default),
        Data::F32(keys) => LabelEncoder::boxed(keys, values, default),
        Data::Text(keys) => LabelEncoder::boxed(keys, values, default),
        _ => Err("its keys are of a type that is not supported".to_owned()),
    }
}

struct ArrayFeatureExtractor;

impl Operator for ArrayFeatureExtractor {
    fn run(&mut self, inputs: &Inputs<'_>, outputs: &mut [Tensor]) -> Result<(), String> {
        let (input, indices) = (inputs.get(0)?, inputs.get(1)?);
        let indices = indices.values::<i64>()?;
        let (columns, rows) = match input.shape.split_last() {
            Some((columns, rows)) => (*columns, rows),
            None => return Err("it takes columns out of none".to_owned()),
        };
        let mut shape = super::tensor::Shape::new();
        // One dimension comes out as one row.
        let rows = if rows.is_empty() { &[1][..] } else { rows };
        shape.extend(rows.iter().copied());
        shape
            .push(indices.len())
            .map_err(|_| "its input has too many dimensions")?;
        let inside = |index: &&i64| usize::try_from(**index).is_ok_and(|index| index < columns);
        if let Some(index) = indices.iter().find(|index| !inside(index)) {
            return Err(format!("it asks for column {index} of {columns}"));
        }
        each_kind!(&input.data, values => take(values, columns, indices, &shape, &mut outputs[0]))
    }

    fn moves(&self, _first: &Tensor) -> Moves {
        Moves::OfFirst
    }
}

fn take<T: Element>(
    values: &[T],
    columns: usize,
    indices: &[i64],
    shape: &[usize],
    output: &mut Tensor,
) -> Result<(), String> {
    let taken = output.set::<T>(shape)?;
    for row in values.chunks_exact(columns.max(1)) {
        taken.extend(indices.iter().map(|index| row[*index as usize].clone()));
    }
    Ok(())
}

pub(super) fn array_feature_extractor() -> Box<dyn Operator> {
    Box::new(ArrayFeatureExtractor)
}
