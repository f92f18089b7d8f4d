//! Monitoring what a server reports, rather than what its variables hold (Part 4, 7.22.3; Part 9).

use super::types::Types;
use super::vendor::{
    AttributeId, Call, ContentFilter, ContentFilterElement, CreateMonitoredItems, EventFilter,
    EventFilterResult, EventNotificationList, ExtensionObject, FilterOperator,
    MonitoredItemCreateRequest, MonitoringMode, MonitoringParameters, NodeId, Operand,
    QualifiedName, ReadValueId, SimpleAttributeOperand, StatusCode, TimestampsToReturn, Variant,
};
use super::{FIRST_HANDLE, REQUEST_TIMEOUT, Session, UNUSED_HANDLES, decode, parse, request};
use crate::opcua::error::Error;
use crate::opcua::value::Value;
use skerry_store::WallNanos;

/// `BaseEventType`, `ConditionType`, `AcknowledgeableConditionType`, `AlarmConditionType`.
const BASE: u32 = 2041;
const CONDITION: u32 = 2782;
const ACKNOWLEDGEABLE: u32 = 2881;
const ALARM: u32 = 2915;
/// `ConditionType_ConditionRefresh` (Part 9, 5.5.7).
const CONDITION_REFRESH: u32 = 3875;
/// Events that a server is asked to keep of one source while nobody collects them.
const QUEUE_EVENTS: u32 = 10_000;

/// Fields that every event has, in the order in which they are asked for.
const BASE_FIELDS: [&str; 8] = [
    "EventId",
    "EventType",
    "SourceNode",
    "SourceName",
    "Time",
    "ReceiveTime",
    "Message",
    "Severity",
];
/// Where `EventId`, `EventType`, `Time` and `ReceiveTime` are in them.
const ID: usize = 0;
const TYPE: usize = 1;
const TIME: usize = 4;
const RECEIVED: usize = 5;
/// Fields of conditions, of those that are acknowledged, and of alarms: their type, their path,
/// and what they are called here.
const CONDITION_FIELDS: [(u32, &str, &str); 13] = [
    (CONDITION, "ConditionName", "ConditionName"),
    (CONDITION, "BranchId", "BranchId"),
    (CONDITION, "Retain", "Retain"),
    (CONDITION, "EnabledState/Id", "EnabledState"),
    (CONDITION, "Quality", "Quality"),
    (CONDITION, "Comment", "Comment"),
    (CONDITION, "ClientUserId", "ClientUserId"),
    (ACKNOWLEDGEABLE, "AckedState/Id", "AckedState"),
    (ACKNOWLEDGEABLE, "ConfirmedState/Id", "ConfirmedState"),
    (ALARM, "ActiveState/Id", "ActiveState"),
    (ALARM, "SuppressedState/Id", "SuppressedState"),
    (ALARM, "ActiveState/EffectiveDisplayName", "ActiveStateName"),
    // Last, because async-opcua's server does not know it and leaves it out instead of null: the
    // others must not move up.
    (CONDITION, "", "ConditionId"),
];

/// A node whose events are to be monitored; `handle` comes back with them.
#[derive(Debug, Clone)]
pub(crate) struct EventItem<'a> {
    pub(crate) handle: u32,
    pub(crate) node: String,
    /// Events below are not sent.
    pub(crate) severity_min: u16,
    /// Further fields, by their browse paths.
    pub(crate) fields: &'a [String],
    /// Whether the fields of conditions are asked for. A server without alarms may refuse them.
    pub(crate) conditions: bool,
}

/// What happened, in the fields that were asked for, in their order.
#[derive(Debug)]
pub(crate) struct Event {
    pub(crate) handle: u32,
    /// When it happened, and when the server heard of it.
    pub(crate) time: Option<WallNanos>,
    pub(crate) received: Option<WallNanos>,
    pub(crate) fields: Vec<Value>,
}

impl Event {
    /// Of one occurrence, wherever it is reported.
    pub(crate) fn id(&self) -> Option<&str> {
        self.text(ID)
    }

    /// Node id of its type.
    pub(crate) fn event_type(&self) -> Option<&str> {
        self.text(TYPE)
    }

    fn text(&self, index: usize) -> Option<&str> {
        match self.fields.get(index)? {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }
}

/// The names of the fields that an event of an item with these `fields` has, in their order. An
/// item without conditions has the first of them.
pub(crate) fn field_names(fields: &[String]) -> impl Iterator<Item = &str> {
    let own = fields.iter().map(String::as_str);
    let conditions = CONDITION_FIELDS.iter().map(|(_, _, name)| *name);
    BASE_FIELDS.into_iter().chain(own).chain(conditions)
}

impl Session {
    /// Monitors the events of `items`; for each, the server's reason not to.
    pub(crate) async fn monitor_events(
        &self,
        subscription: u32,
        items: &[EventItem<'_>],
    ) -> Result<Vec<Result<(), u32>>, Error> {
        let to_create = items
            .iter()
            .map(|item| MonitoredItemCreateRequest {
                item_to_monitor: ReadValueId {
                    node_id: parse(&item.node),
                    attribute_id: AttributeId::EventNotifier as u32,
                    ..ReadValueId::default()
                },
                monitoring_mode: MonitoringMode::Reporting,
                requested_parameters: MonitoringParameters {
                    client_handle: item.handle + FIRST_HANDLE,
                    sampling_interval: 0.0,
                    queue_size: QUEUE_EVENTS,
                    discard_oldest: true,
                    filter: ExtensionObject::from_message(filter(item)),
                },
            })
            .collect();
        let request = request!(self, CreateMonitoredItems, subscription, &UNUSED_HANDLES)
            .timestamps_to_return(TimestampsToReturn::Neither)
            .items_to_create(to_create);
        let response = self.call("monitoring events", request).await?;
        let results = response.results.into_iter().zip(items);
        Ok(results
            .map(|(created, item)| match created.result.status_code {
                code if code.is_bad() => Err(code.bits()),
                _ => {
                    self.tell_unknown_fields(item, &created.result.filter_result);
                    Ok(())
                }
            })
            .collect())
    }

    /// Fields that somebody asked for and that will always be missing are worth a word.
    fn tell_unknown_fields(&self, item: &EventItem<'_>, result: &ExtensionObject) {
        let result = result.inner_as::<EventFilterResult>();
        let codes = result.and_then(|result| result.select_clause_results.as_ref());
        let fields = field_names(item.fields).zip(codes.into_iter().flatten());
        for (field, reason) in fields.filter(|(_, code)| code.is_bad()) {
            if item.fields.iter().any(|own| own == field) {
                tracing::warn!(
                    server = self.address(), node = item.node, field, %reason,
                    "the server's events do not have this field"
                );
            }
        }
    }

    /// Has the server report every condition that is of interest at present (Part 9, 5.5.7).
    pub(crate) async fn refresh_conditions(&self, subscription: u32) -> Result<(), Error> {
        let step = "asking for the present alarms";
        let request = request!(self, Call).method((
            NodeId::new(0, CONDITION),
            NodeId::new(0, CONDITION_REFRESH),
            Some(vec![Variant::UInt32(subscription)]),
        ));
        let response = self.call(step, request).await?;
        let code = response
            .results
            .and_then(|results| results.first().map(|result| result.status_code))
            .unwrap_or(StatusCode::BadUnknownResponse);
        match code.is_bad() {
            true => Err(Error::Service {
                step,
                status: code.bits(),
                detail: code.to_string(),
            }),
            false => Ok(()),
        }
    }
}

/// The events of a notification.
pub(super) fn events(types: &mut Types, list: EventNotificationList) -> Vec<Event> {
    let events = list.events.unwrap_or_default().into_iter();
    events
        .map(|event| {
            let fields = event.event_fields.unwrap_or_default();
            let time = |index: usize| match fields.get(index) {
                Some(Variant::DateTime(moment)) => decode::time(moment),
                _ => None,
            };
            Event {
                handle: event.client_handle.wrapping_sub(FIRST_HANDLE),
                time: time(TIME),
                received: time(RECEIVED),
                fields: fields.into_iter().map(|it| plain(types, it)).collect(),
            }
        })
        .collect()
}

/// A field by its value alone: the field's name tells its type, and of a text its words count.
fn plain(types: &mut Types, field: Variant) -> Value {
    match field {
        Variant::LocalizedText(text) => decode::nested(types, Variant::String(text.text), 0),
        field => match decode::nested(types, field, 0) {
            Value::Typed(_, value) => *value,
            value => value,
        },
    }
}

fn filter(item: &EventItem<'_>) -> EventFilter {
    let base = BASE_FIELDS.iter().map(|name| (BASE, *name));
    let own = item.fields.iter().map(|path| (BASE, path.as_str()));
    let conditions = CONDITION_FIELDS.iter().map(|(of, path, _)| (*of, *path));
    let conditions = conditions.filter(|_| item.conditions);
    let fields = base.chain(own).chain(conditions);
    EventFilter {
        select_clauses: Some(fields.map(|(of, path)| field(of, path)).collect()),
        where_clause: match item.severity_min {
            0 | 1 => ContentFilter::default(),
            least => ContentFilter {
                elements: Some(vec![ContentFilterElement::from((
                    FilterOperator::GreaterThanOrEqual,
                    vec![
                        Operand::SimpleAttributeOperand(field(BASE, "Severity")),
                        Operand::literal(least),
                    ],
                ))]),
            },
        },
    }
}

/// A field by the names on its way, `2:Batch/2:Number`; without any, the condition itself.
fn field(of: u32, path: &str) -> SimpleAttributeOperand {
    let names = path.split('/').filter(|name| !name.is_empty());
    let names = names.map(|name| match name.split_once(':') {
        Some((index, name)) => QualifiedName::new(index.parse().unwrap_or_default(), name),
        None => QualifiedName::new(0, name),
    });
    let attribute = match path {
        "" => AttributeId::NodeId,
        _ => AttributeId::Value,
    };
    SimpleAttributeOperand {
        type_definition_id: NodeId::new(0, of),
        browse_path: Some(names.collect()),
        attribute_id: attribute as u32,
        ..SimpleAttributeOperand::default()
    }
}
