//! Data changes straight from their bytes.
//!
//! Most of what a plant sends is numbers, and the crate's own way to them, through its DateTime and
//! a read call per field, costs as much as all the rest from socket to disk. So the notification
//! is read here, plain values by hand; whatever else a value may be, the crate reads.

use super::FIRST_HANDLE;
use super::vendor::{
    AsyncSecureChannel, BinaryDecodable, BinaryEncodable, Context, DataValue, DynEncodable,
    EncodingResult, ExpandedMessageInfo, ExpandedNodeId, FallbackTypeLoader, GeneratedTypeLoader,
    NodeId, TypeLoader, TypeLoaderCollection, TypeLoaderPriority, UaNullable, VendorError,
};
use crate::opcua::value::{Sample, Value};
use skerry_store::WallNanos;
use std::io::Read;

/// `DataChangeNotification_Encoding_DefaultBinary` (Part 6, annex A).
const DATA_CHANGE: u32 = 811;
/// Ticks of 100 ns between OPC-UA's epoch, 1601-01-01, and Unix's.
const TICKS_TO_UNIX: i64 = 116_444_736_000_000_000;
/// What a change takes at least: a handle and a mask.
const CHANGE_BYTES_MIN: usize = 5;
/// Types of a variant that are defined or reserved (Part 6, 5.2.2.16).
const TYPE_MAX: u8 = 31;
/// Bits of a variant's encoding beside its type: an array, and its dimensions.
const ARRAY_BITS: u8 = 0xC0;

/// Bits of a DataValue's mask (Part 6, 5.2.2.17).
mod has {
    pub(super) const VALUE: u8 = 0x01;
    pub(super) const STATUS: u8 = 0x02;
    pub(super) const SOURCE_TIME: u8 = 0x04;
    pub(super) const SERVER_TIME: u8 = 0x08;
    pub(super) const SOURCE_PICOSECONDS: u8 = 0x10;
    pub(super) const SERVER_PICOSECONDS: u8 = 0x20;
    pub(super) const NOTHING_ELSE: u8 = 0x40;
}

/// A notification of data changes, in the order in which they came.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Changes {
    /// With what is in the bytes, and nothing of what the server says of types and units.
    pub(super) samples: Vec<Sample>,
    /// What is no number, to be taken apart yet: the value of the sample at this place.
    pub(super) others: Vec<(usize, DataValue)>,
}

/// Has what comes on `channel` read by this file.
pub(super) fn read_on(channel: &AsyncSecureChannel) {
    let mut loaders = TypeLoaderCollection::new_empty();
    // Asked in this order.
    loaders.add_type_loader(Loader);
    loaders.add_type_loader(GeneratedTypeLoader);
    loaders.add_type_loader(FallbackTypeLoader);
    *channel.encoding_context().write().loaders_mut() = loaders;
}

struct Loader;

impl TypeLoader for Loader {
    fn load_from_binary(
        &self,
        node_id: &NodeId,
        stream: &mut dyn Read,
        context: &Context<'_>,
        length: Option<usize>,
    ) -> Option<EncodingResult<Box<dyn DynEncodable>>> {
        let length = length.filter(|_| node_id.namespace == 0)?;
        (node_id.as_u32() == Some(DATA_CHANGE)).then(|| {
            let changes = body(stream, length).and_then(|body| changes(&body, context))?;
            Ok(Box::new(changes) as Box<dyn DynEncodable>)
        })
    }

    fn priority(&self) -> TypeLoaderPriority {
        TypeLoaderPriority::Core
    }
}

/// What is announced is believed up to here; beyond it grows with what comes.
const BODY_BYTES_BELIEVED: usize = 1024 * 1024;

fn body(stream: &mut dyn Read, length: usize) -> EncodingResult<Vec<u8>> {
    let mut body = Vec::with_capacity(length.min(BODY_BYTES_BELIEVED));
    stream.take(length as u64).read_to_end(&mut body)?;
    match body.len() == length {
        true => Ok(body),
        false => Err(ends_early()),
    }
}

fn changes(body: &[u8], context: &Context<'_>) -> EncodingResult<Changes> {
    let mut bytes = Bytes(body);
    let count = match i32::from_le_bytes(bytes.take()?) {
        -1 => 0,
        count => usize::try_from(count)
            .map_err(|_| VendorError::decoding(format!("{count} changes in a notification")))?,
    };
    if count > bytes.0.len() / CHANGE_BYTES_MIN {
        return Err(ends_early());
    }
    let mut changes = Changes {
        samples: Vec::with_capacity(count),
        others: Vec::new(),
    };
    for place in 0..count {
        let handle = u32::from_le_bytes(bytes.take()?).wrapping_sub(FIRST_HANDLE);
        let mut ahead = Bytes(bytes.0);
        let sample = match plain(&mut ahead, handle)? {
            Some(plain) => {
                bytes = ahead;
                plain
            }
            None => {
                let data = DataValue::decode(&mut bytes.0, context)?;
                changes.others.push((place, data));
                Sample::empty(handle)
            }
        };
        changes.samples.push(sample);
    }
    // What is left is diagnostics, which nobody asked for.
    Ok(changes)
}

/// `None` where it is not for this file to read.
fn plain(bytes: &mut Bytes<'_>, handle: u32) -> EncodingResult<Option<Sample>> {
    let [mask] = bytes.take()?;
    if mask >= has::NOTHING_ELSE {
        return Err(VendorError::decoding(format!(
            "a value with mask {mask:#04x}"
        )));
    }
    let has = |bit| mask & bit != 0;
    let mut sample = Sample::empty(handle);
    if has(has::VALUE) {
        match number(bytes)? {
            Some(value) => sample.value = value,
            None => return Ok(None),
        }
    }
    if has(has::STATUS) {
        sample.status = u32::from_le_bytes(bytes.take()?);
    }
    if has(has::SOURCE_TIME) {
        sample.source_time = time(i64::from_le_bytes(bytes.take()?));
    }
    if has(has::SOURCE_PICOSECONDS) {
        bytes.take::<2>()?;
    }
    if has(has::SERVER_TIME) {
        sample.server_time = time(i64::from_le_bytes(bytes.take()?));
    }
    if has(has::SERVER_PICOSECONDS) {
        bytes.take::<2>()?;
    }
    Ok(Some(sample))
}

fn number(bytes: &mut Bytes<'_>) -> EncodingResult<Option<Value>> {
    let [encoding] = bytes.take()?;
    Ok(Some(match encoding {
        0 => Value::Null,
        1 => Value::Bool(bytes.take::<1>()? != [0]),
        2 => Value::Int(i8::from_le_bytes(bytes.take()?).into()),
        3 => Value::UInt(u8::from_le_bytes(bytes.take()?).into()),
        4 => Value::Int(i16::from_le_bytes(bytes.take()?).into()),
        5 => Value::UInt(u16::from_le_bytes(bytes.take()?).into()),
        6 => Value::Int(i32::from_le_bytes(bytes.take()?).into()),
        7 => Value::UInt(u32::from_le_bytes(bytes.take()?).into()),
        8 => Value::Int(i64::from_le_bytes(bytes.take()?)),
        9 => Value::UInt(u64::from_le_bytes(bytes.take()?)),
        10 => Value::Float(f32::from_le_bytes(bytes.take()?)),
        11 => Value::Double(f64::from_le_bytes(bytes.take()?)),
        other if other & !ARRAY_BITS > TYPE_MAX => {
            // The crate takes it for no value.
            return Err(VendorError::decoding(format!("a value of type {other}")));
        }
        _ => return Ok(None),
    }))
}

/// 0 and less are no time (Part 6, 5.2.2.5).
fn time(ticks: i64) -> Option<WallNanos> {
    let ticks = (ticks > 0).then_some(ticks)?;
    let nanos = ticks.checked_sub(TICKS_TO_UNIX)?.checked_mul(100)?;
    Some(WallNanos(nanos))
}

fn ends_early() -> VendorError {
    VendorError::decoding("a notification ends before its last change")
}

/// What is left to be read.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn take<const COUNT: usize>(&mut self) -> EncodingResult<[u8; COUNT]> {
        let (taken, left) = self.0.split_first_chunk().ok_or_else(ends_early)?;
        self.0 = left;
        Ok(*taken)
    }
}

/// What the crate asks of anything that it may be given to send; this is only ever received.
impl BinaryEncodable for Changes {
    fn byte_len(&self, _: &Context<'_>) -> usize {
        0
    }

    fn encode<S: std::io::Write + ?Sized>(&self, _: &mut S, _: &Context<'_>) -> EncodingResult<()> {
        Err(VendorError::encoding("changes are received, never sent"))
    }
}

impl UaNullable for Changes {}

impl ExpandedMessageInfo for Changes {
    fn full_type_id(&self) -> ExpandedNodeId {
        ExpandedNodeId::new(NodeId::new(0, DATA_CHANGE))
    }

    fn full_json_type_id(&self) -> ExpandedNodeId {
        self.full_type_id()
    }

    fn full_xml_type_id(&self) -> ExpandedNodeId {
        self.full_type_id()
    }

    fn full_data_type_id(&self) -> ExpandedNodeId {
        self.full_type_id()
    }
}

#[cfg(test)]
mod tests {
    use super::super::vendor::{ContextOwned, DateTime, StatusCode, Variant};
    use super::super::{decode, types::Types};
    use super::*;

    /// A notification of these values as the crate encodes it, read here.
    fn read(values: &[DataValue]) -> EncodingResult<Changes> {
        let context = ContextOwned::default();
        let context = context.context();
        let mut body = i32::try_from(values.len()).unwrap().to_le_bytes().to_vec();
        for (handle, value) in (1_u32..).zip(values) {
            body.extend(handle.to_le_bytes());
            body.extend(value.encode_to_vec(&context));
        }
        body.extend([255; 4]);
        changes(&body, &context)
    }

    #[test]
    fn reads_what_the_crate_reads() {
        let plain = [
            Variant::Empty,
            Variant::Boolean(true),
            Variant::SByte(-1),
            Variant::Byte(200),
            Variant::Int16(i16::MIN),
            Variant::UInt16(u16::MAX),
            Variant::Int32(i32::MIN),
            Variant::UInt32(u32::MAX),
            Variant::Int64(i64::MIN),
            Variant::UInt64(u64::MAX),
            Variant::Float(0.1),
            Variant::Double(-1e300),
        ];
        let other = [
            Variant::from("text"),
            Variant::from(DateTime::ymd_hms(2026, 1, 2, 3, 4, 5)),
            Variant::from(vec![1_i32, 2, 3]),
        ];
        let values: Vec<DataValue> = plain
            .iter()
            .chain(&other)
            .map(|variant| DataValue {
                value: Some(variant.clone()),
                status: Some(StatusCode::UncertainInitialValue),
                source_timestamp: Some(DateTime::ymd_hms_nano(2026, 1, 1, 0, 0, 0, 123_456_700)),
                source_picoseconds: Some(7),
                server_timestamp: Some(DateTime::null()),
                server_picoseconds: Some(9),
            })
            .chain([DataValue::default()])
            .collect();
        let Changes { samples, others } = read(&values).unwrap();
        assert_eq!(samples.len(), values.len());
        let places: Vec<usize> = others.iter().map(|(place, _)| *place).collect();
        assert_eq!(places, [12, 13, 14]);
        for (place, data) in others {
            assert_eq!(samples[place], Sample::empty(place as u32));
            assert_eq!(data, values[place]);
        }
        for (handle, (read, value)) in (0..).zip(samples.into_iter().zip(values)) {
            if !places.contains(&(handle as usize)) {
                let by_the_crate = decode::sample(&mut Types::default(), handle, value);
                assert_eq!(read, by_the_crate);
            }
        }
    }

    #[test]
    fn refuses_what_cannot_be() {
        let context = ContextOwned::default();
        let context = context.context();
        let refused = |body: &[u8]| changes(body, &context).is_err();
        assert!(!refused(&[255; 4]), "no changes");
        assert!(refused(&(-2_i32).to_le_bytes()));
        assert!(refused(&i32::MAX.to_le_bytes()));
        let one = |change: &[u8]| [&[1, 0, 0, 0, 1, 0, 0, 0], change].concat();
        assert!(!refused(&one(&[1, 3, 7])));
        assert!(refused(&one(&[1, 63, 7])), "a type that is none");
        assert!(refused(&one(&[0x41, 3, 7])), "a mask with too much in it");
        assert!(refused(&one(&[3, 3, 7])), "a status that is missing");
    }

    #[test]
    fn times_out_of_range_are_none() {
        assert_eq!(time(0), None);
        assert_eq!(time(i64::MIN), None);
        assert_eq!(time(i64::MAX), None);
        assert_eq!(time(TICKS_TO_UNIX + 1), Some(WallNanos(100)));
    }
}
