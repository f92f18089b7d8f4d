//! Writing and calling: what a node takes, and asking the server for it.
//!
//! Two kinds of failure are kept apart here, because what is to be made of them differs: an
//! [`Error`] may leave it open whether the server has acted, a StatusCode is its answer.

use super::decode;
use super::encode::{Element, Encoded, Shape};
use super::vendor::{
    Argument as VendorArgument, AttributeId, Browse, BrowseDescription, BrowseDirection,
    BrowseResultMask, Call, CallMethodRequest, DataValue, ExtensionObject, Identifier, NodeId,
    NumericRange, Read, ReadValueId, ReferenceDescription, ReferenceTypeId, StatusCode,
    TimestampsToReturn, Variant, VariantScalarTypeId, VariantTypeId, Write, WriteValue,
};
use super::{REQUEST_TIMEOUT, Session, parse, request};
use crate::opcua::error::Error;
use crate::opcua::value::Value;
use std::time::Duration;

/// Types above a type, at most: a server whose types are in a circle ends here.
const SUPERTYPES_MAX: usize = 32;

/// The server's answer, or its StatusCode in place of one.
pub(crate) type Answer<T> = Result<T, u32>;

/// A variable as somebody who wants to write to it sees it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Writable {
    pub(crate) shape: Shape,
    /// Null where it has no good value, or may not be read.
    pub(crate) holds: Value,
}

/// What a method wants to be called with.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Argument {
    pub(crate) name: String,
    pub(crate) shape: Shape,
}

/// What came of a call.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Called {
    pub(crate) status: u32,
    /// Arguments that the server found wrong, by their place, with its StatusCode.
    pub(crate) wrong: Vec<(usize, u32)>,
    pub(crate) outputs: Vec<Value>,
}

impl Session {
    /// What `node` takes, and what it holds now.
    pub(crate) async fn target(&self, node: &str) -> Result<Answer<Writable>, Error> {
        let attributes = [
            AttributeId::DataType,
            AttributeId::ValueRank,
            AttributeId::Value,
        ];
        let to_read = attributes.map(|attribute| ReadValueId {
            node_id: parse(node),
            attribute_id: attribute as u32,
            ..ReadValueId::default()
        });
        let request = request!(self, Read)
            .timestamps_to_return(TimestampsToReturn::Neither)
            .nodes_to_read(to_read.into());
        let response = self.call("asking for the node's type", request).await?;
        let results = response.results.unwrap_or_default();
        let mut results = results
            .into_iter()
            .chain(std::iter::repeat_with(|| DataValue {
                status: Some(StatusCode::BadUnknownResponse),
                ..DataValue::default()
            }));
        let mut next = || results.next().expect("endless");
        let (data_type, rank, value) = (good(next()), good(next()), good(next()));
        let data_type = match data_type {
            Ok(Variant::NodeId(data_type)) => *data_type,
            Ok(_) => return Ok(Err(StatusCode::BadUnexpectedError.bits())),
            Err(code) => return Ok(Err(code)),
        };
        let rank = match rank {
            Ok(Variant::Int32(rank)) => rank,
            // Whatever the server takes: it has the last word anyway.
            _ => -2,
        };
        let value = value.unwrap_or(Variant::Empty);
        let mut element = self.element(data_type).await?;
        if !matches!(element, Element::Exactly(_))
            && let Some(held) = held(&value)
        {
            element = Element::Exactly(held);
        }
        Ok(Ok(Writable {
            shape: Shape { element, rank },
            holds: self.with_types(|types| decode::nested(types, value, 0)),
        }))
    }

    /// Sets the value, and nothing but the value: many servers refuse to be told a status or time.
    pub(crate) async fn write(
        &self,
        node: &str,
        value: &Encoded,
        patience: Duration,
    ) -> Result<u32, Error> {
        let request = request!(self, Write)
            .timeout(patience)
            .nodes_to_write(vec![WriteValue {
                node_id: parse(node),
                attribute_id: AttributeId::Value as u32,
                index_range: NumericRange::None,
                value: DataValue {
                    value: Some(value.0.clone()),
                    ..DataValue::default()
                },
            }]);
        let response = self.call("writing", request).await?;
        let status = response
            .results
            .and_then(|results| results.first().copied());
        Ok(status.unwrap_or(StatusCode::BadUnknownResponse).bits())
    }

    /// What `method` wants. One that says nothing of it wants nothing.
    pub(crate) async fn arguments(&self, method: &str) -> Result<Answer<Vec<Argument>>, Error> {
        let properties = self
            .related(
                &parse(method),
                BrowseDirection::Forward,
                ReferenceTypeId::HasProperty,
            )
            .await?;
        let properties = match properties {
            Ok(properties) => properties,
            Err(code) => return Ok(Err(code)),
        };
        let Some(inputs) = properties
            .into_iter()
            .find(|property| property.browse_name.name.as_ref() == "InputArguments")
        else {
            return Ok(Ok(Vec::new()));
        };
        let request = request!(self, Read)
            .timestamps_to_return(TimestampsToReturn::Neither)
            .node(ReadValueId {
                node_id: inputs.node_id.node_id,
                attribute_id: AttributeId::Value as u32,
                ..ReadValueId::default()
            });
        let response = self
            .call("asking for the method's arguments", request)
            .await?;
        let read = response.results.and_then(|mut results| results.pop());
        let declared = match read.map(good) {
            Some(Ok(Variant::Array(array))) => array.values,
            Some(Ok(Variant::Empty)) => Vec::new(),
            Some(Err(code)) => return Ok(Err(code)),
            _ => return Ok(Err(StatusCode::BadUnknownResponse.bits())),
        };
        let mut arguments = Vec::with_capacity(declared.len());
        for declared in declared {
            let Variant::ExtensionObject(object) = declared else {
                return Ok(Err(StatusCode::BadUnknownResponse.bits()));
            };
            let Some(declared) = argument(&object) else {
                return Ok(Err(StatusCode::BadUnknownResponse.bits()));
            };
            arguments.push(Argument {
                name: declared.name.as_ref().to_owned(),
                shape: Shape {
                    element: self.element(declared.data_type.clone()).await?,
                    rank: declared.value_rank,
                },
            });
        }
        Ok(Ok(arguments))
    }

    pub(crate) async fn call_method(
        &self,
        object: &str,
        method: &str,
        arguments: &[Encoded],
        patience: Duration,
    ) -> Result<Called, Error> {
        let request = request!(self, Call)
            .timeout(patience)
            .method(CallMethodRequest {
                object_id: parse(object),
                method_id: parse(method),
                input_arguments: Some(arguments.iter().map(|it| it.0.clone()).collect()),
            });
        let response = self.call("calling the method", request).await?;
        let Some(result) = response.results.and_then(|mut results| results.pop()) else {
            return Ok(Called {
                status: StatusCode::BadUnknownResponse.bits(),
                wrong: Vec::new(),
                outputs: Vec::new(),
            });
        };
        let statuses = result.input_argument_results.unwrap_or_default();
        let outputs = result.output_arguments.unwrap_or_default();
        Ok(Called {
            status: result.status_code.bits(),
            wrong: statuses
                .into_iter()
                .enumerate()
                .filter(|(_, status)| status.is_bad())
                .map(|(place, status)| (place, status.bits()))
                .collect(),
            outputs: self.with_types(|types| {
                let output = |output| decode::nested(types, output, 0).told();
                outputs.into_iter().map(output).collect()
            }),
        })
    }

    /// The built-in type that a type comes down to. Many PLCs have types of their own for plain
    /// numbers; what stands above them says what is sent.
    async fn element(&self, mut data_type: NodeId) -> Result<Element, Error> {
        for _ in 0..SUPERTYPES_MAX {
            if let Some(element) = built_in(&data_type) {
                return Ok(element);
            }
            let above = self
                .related(
                    &data_type,
                    BrowseDirection::Inverse,
                    ReferenceTypeId::HasSubtype,
                )
                .await?;
            match above.ok().and_then(|mut above| above.pop()) {
                Some(above) => data_type = above.node_id.node_id,
                None => break,
            }
        }
        Ok(Element::Any)
    }

    async fn related(
        &self,
        node: &NodeId,
        browse_direction: BrowseDirection,
        reference_type: ReferenceTypeId,
    ) -> Result<Answer<Vec<ReferenceDescription>>, Error> {
        let request = request!(self, Browse).nodes_to_browse(vec![BrowseDescription {
            node_id: node.clone(),
            browse_direction,
            reference_type_id: reference_type.into(),
            include_subtypes: true,
            node_class_mask: 0,
            result_mask: BrowseResultMask::All as u32,
        }]);
        let response = self.call("browsing", request).await?;
        let result = response.results.and_then(|mut results| results.pop());
        Ok(match result {
            Some(result) if result.status_code.is_bad() => Err(result.status_code.bits()),
            Some(result) => Ok(result.references.unwrap_or_default()),
            None => Err(StatusCode::BadUnknownResponse.bits()),
        })
    }
}

fn good(data: DataValue) -> Answer<Variant> {
    match data.status {
        Some(status) if status.is_bad() => Err(status.bits()),
        _ => Ok(data.value.unwrap_or(Variant::Empty)),
    }
}

fn argument(object: &ExtensionObject) -> Option<&VendorArgument> {
    object.inner_as::<VendorArgument>()
}

/// The type of what a variable holds.
fn held(value: &Variant) -> Option<VariantScalarTypeId> {
    match value.type_id() {
        VariantTypeId::Scalar(scalar) | VariantTypeId::Array(scalar, _)
            if scalar != VariantScalarTypeId::Variant =>
        {
            Some(scalar)
        }
        _ => None,
    }
}

/// What stands for itself in the standard's own namespace (Part 6, annex A).
fn built_in(data_type: &NodeId) -> Option<Element> {
    let Identifier::Numeric(number) = data_type.identifier else {
        return None;
    };
    match number {
        _ if data_type.namespace != 0 => None,
        24 => Some(Element::Any),
        1..=25 => {
            let scalar = VariantScalarTypeId::from_encoding_mask(u8::try_from(number).ok()?)?;
            Some(Element::Exactly(scalar))
        }
        26 => Some(Element::Number),
        27 => Some(Element::Integer),
        28 => Some(Element::UInteger),
        // An enumeration is sent as its number.
        29 => Some(Element::Exactly(VariantScalarTypeId::Int32)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_standard_s_types_come_down_to_what_is_sent() {
        let of = |number: u32| built_in(&NodeId::new(0, number));
        assert_eq!(of(11), Some(Element::Exactly(VariantScalarTypeId::Double)));
        assert_eq!(of(29), Some(Element::Exactly(VariantScalarTypeId::Int32)));
        assert_eq!(of(24), Some(Element::Any));
        // Duration stands below Double.
        assert_eq!(of(290), None);
        assert_eq!(built_in(&NodeId::new(2, 11_u32)), None);
        assert_eq!(held(&Variant::Empty), None);
        let list = Variant::from(vec![1.0_f64]);
        assert_eq!(held(&list), Some(VariantScalarTypeId::Double));
    }
}
