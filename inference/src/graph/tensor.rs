//! Values between operators: dense, small, of the few types that exporters of models use.

use super::proto::TensorProto;
use std::sync::Arc;

pub(super) const RANK_MAX: usize = 6;
/// Of one tensor. A window has 16,384. A fuzzer has little time for each.
pub(super) const VALUES_MAX: usize = if cfg!(fuzzing) { 1 << 16 } else { 4_000_000 };

pub(super) type Shape = heapless::Vec<usize, RANK_MAX>;

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Data {
    F32(Vec<f32>),
    F64(Vec<f64>),
    I64(Vec<i64>),
    I32(Vec<i32>),
    Bool(Vec<bool>),
    Text(Vec<Arc<str>>),
}

impl Default for Data {
    fn default() -> Self {
        Self::F32(Vec::new())
    }
}

#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Tensor {
    pub(super) shape: Shape,
    pub(super) data: Data,
}

/// A type that tensors are made of.
pub(super) trait Element: Clone + Default + 'static {
    const NAME: &'static str;
    fn of(data: &Data) -> Option<&[Self]>;
    fn of_mut(data: &mut Data) -> Option<&mut Vec<Self>>;
    /// The values to write into, emptied; of another type before, they are replaced.
    fn emptied(data: &mut Data) -> &mut Vec<Self>;
}

macro_rules! element {
    ($type:ty, $variant:ident, $name:literal) => {
        impl Element for $type {
            const NAME: &'static str = $name;

            fn of(data: &Data) -> Option<&[Self]> {
                match data {
                    Data::$variant(values) => Some(values),
                    _ => None,
                }
            }

            fn of_mut(data: &mut Data) -> Option<&mut Vec<Self>> {
                match data {
                    Data::$variant(values) => Some(values),
                    _ => None,
                }
            }

            fn emptied(data: &mut Data) -> &mut Vec<Self> {
                if !matches!(data, Data::$variant(_)) {
                    *data = Data::$variant(Vec::new());
                }
                let Data::$variant(values) = data else {
                    unreachable!("it was made one");
                };
                values.clear();
                values
            }
        }
    };
}

element!(f32, F32, "float");
element!(f64, F64, "double");
element!(i64, I64, "int64");
element!(i32, I32, "int32");
element!(bool, Bool, "bool");
element!(Arc<str>, Text, "string");

/// Does the same with the values of whatever type a tensor has.
macro_rules! each_kind {
    ($data:expr, $values:ident => $body:expr) => {
        match $data {
            $crate::graph::tensor::Data::F32($values) => $body,
            $crate::graph::tensor::Data::F64($values) => $body,
            $crate::graph::tensor::Data::I64($values) => $body,
            $crate::graph::tensor::Data::I32($values) => $body,
            $crate::graph::tensor::Data::Bool($values) => $body,
            $crate::graph::tensor::Data::Text($values) => $body,
        }
    };
}
pub(super) use each_kind;

impl Tensor {
    pub(super) fn new<T: Element>(shape: &[usize], values: Vec<T>) -> Self {
        let mut tensor = Self::default();
        *T::emptied(&mut tensor.data) = values;
        tensor.shape = shape.iter().copied().collect();
        tensor
    }

    pub(super) fn len(&self) -> usize {
        self.shape.iter().product()
    }

    pub(super) fn kind(&self) -> &'static str {
        match self.data {
            Data::F32(_) => f32::NAME,
            Data::F64(_) => f64::NAME,
            Data::I64(_) => i64::NAME,
            Data::I32(_) => i32::NAME,
            Data::Bool(_) => bool::NAME,
            Data::Text(_) => <Arc<str>>::NAME,
        }
    }

    /// `[1, 3] of float`.
    pub(super) fn told(&self) -> String {
        format!("{:?} of {}", &self.shape[..], self.kind())
    }

    pub(super) fn values<T: Element>(&self) -> Result<&[T], String> {
        T::of(&self.data).ok_or_else(|| format!("{} came where {} is due", self.kind(), T::NAME))
    }

    /// Gives it this shape and the values to fill, which are empty and have room: memory is taken
    /// at the first run only.
    pub(super) fn set<T: Element>(&mut self, shape: &[usize]) -> Result<&mut Vec<T>, String> {
        if self.shape != *shape {
            count(shape)?;
            self.shape = Shape::from_slice(shape).map_err(|_| rank(shape.len()))?;
        }
        let count = self.len();
        let values = T::emptied(&mut self.data);
        values.reserve(count);
        Ok(values)
    }

    /// As one row of features: `[1, n]` or `[n]`.
    pub(super) fn row_len(&self) -> Result<usize, String> {
        match self.shape[..] {
            [n] | [1, n] => Ok(n),
            _ => Err(format!("{} came where one row is due", self.told())),
        }
    }

    pub(super) fn read(proto: &TensorProto<'_>) -> Result<Self, String> {
        let name = proto.name;
        if proto.is_external {
            return Err(format!(
                "tensor {name:?} is in another file: export it into one"
            ));
        }
        let shape: Vec<usize> = proto
            .dims
            .iter()
            .map(|dim| {
                usize::try_from(*dim)
                    .map_err(|_| format!("tensor {name:?} has a dimension of {dim}"))
            })
            .collect::<Result<_, _>>()?;
        let count = count(&shape)?;
        let data = read_data(proto, count).ok_or_else(|| {
            format!(
                "tensor {name:?} of type {} is damaged or of no type that is supported",
                proto.kind
            )
        })?;
        let found = each_kind!(&data, values => values.len());
        if found != count {
            return Err(format!("tensor {name:?} has {found} values for {count}"));
        }
        let shape = Shape::from_slice(&shape).map_err(|_| rank(shape.len()))?;
        Ok(Self { shape, data })
    }
}

/// ONNX's numbers of element types.
pub(super) mod kind {
    pub(crate) const FLOAT: i64 = 1;
    pub(crate) const INT32: i64 = 6;
    pub(crate) const INT64: i64 = 7;
    pub(crate) const STRING: i64 = 8;
    pub(crate) const BOOL: i64 = 9;
    pub(crate) const DOUBLE: i64 = 11;
}

fn read_data(proto: &TensorProto<'_>, count: usize) -> Option<Data> {
    fn raw<const N: usize, T>(raw: &[u8], of: impl Fn([u8; N]) -> T) -> Option<Vec<T>> {
        let (chunks, rest) = raw.as_chunks::<N>();
        rest.is_empty()
            .then(|| chunks.iter().map(|chunk| of(*chunk)).collect())
    }
    // No value takes less than a byte, so the file's size bounds what is set aside.
    let typed_bytes: usize = proto
        .typed
        .iter()
        .map(|value| value.bytes().map_or(1, <[u8]>::len))
        .sum();
    if proto.raw.is_none() && typed_bytes > VALUES_MAX * 8 || count > VALUES_MAX {
        return None;
    }
    let ints = || {
        let mut values = Vec::new();
        for field in &proto.typed {
            field.ints(|value| values.push(value)).ok()?;
        }
        Some(values)
    };
    let data = match (proto.kind, proto.raw) {
        (kind::FLOAT, Some(bytes)) => Data::F32(raw(bytes, f32::from_le_bytes)?),
        (kind::FLOAT, None) => {
            let mut values = Vec::new();
            for field in &proto.typed {
                field.floats(|value| values.push(value)).ok()?;
            }
            Data::F32(values)
        }
        (kind::DOUBLE, Some(bytes)) => Data::F64(raw(bytes, f64::from_le_bytes)?),
        (kind::DOUBLE, None) => {
            let mut values = Vec::new();
            for field in &proto.typed {
                field.doubles(|value| values.push(value)).ok()?;
            }
            Data::F64(values)
        }
        (kind::INT64, Some(bytes)) => Data::I64(raw(bytes, i64::from_le_bytes)?),
        (kind::INT64, None) => Data::I64(ints()?),
        (kind::INT32, Some(bytes)) => Data::I32(raw(bytes, i32::from_le_bytes)?),
        (kind::INT32, None) => Data::I32(ints()?.into_iter().map(|value| value as i32).collect()),
        (kind::BOOL, Some(bytes)) => Data::Bool(bytes.iter().map(|byte| *byte != 0).collect()),
        (kind::BOOL, None) => Data::Bool(ints()?.into_iter().map(|value| value != 0).collect()),
        (kind::STRING, None) => {
            let texts = proto
                .typed
                .iter()
                .map(|field| field.text().ok().map(Arc::from));
            Data::Text(texts.collect::<Option<_>>()?)
        }
        _ => return None,
    };
    Some(data)
}

/// How many values a shape holds, if that is within bounds. A dimension of none does not make the
/// others any: so the product of whatever part of the shape is within bounds too.
pub(super) fn count(shape: &[usize]) -> Result<usize, String> {
    let largest = shape
        .iter()
        .try_fold(1_usize, |count, dim| count.checked_mul((*dim).max(1)));
    if largest.is_none_or(|largest| largest > VALUES_MAX) {
        return Err(format!(
            "a tensor of shape {shape:?} is too large: at most {VALUES_MAX} values"
        ));
    }
    Ok(shape.iter().product())
}

fn rank(rank: usize) -> String {
    format!("a tensor of rank {rank}: at most {RANK_MAX} is supported")
}
