//! A machine with types of its own: an enumeration, a structure that holds another, a measured
//! value with unit and range, and what older servers have in place of definitions. And its events.

use super::{
    AddressSpace, AttributeId, ByteString, ByteStringBody, DataTypeBuilder, DataTypeDefinition,
    DataTypeId, DataValue, DateTime, EUInformation, EnumDefinition, EnumField, Event, EventField,
    ExtensionObject, LocalizedText, NodeId, NumericRange, ObjectBuilder, ObjectId, ObjectTypeId,
    OpcuaServer, QualifiedName, Range, ReferenceDirection, ReferenceTypeId, StatusCode,
    StructureDefinition, StructureField, StructureType, VariableBuilder, Variant, VariantTypeId,
};

/// `SemanticsChanged` (Part 4, 7.39.1).
const SEMANTICS_CHANGED: u32 = 0x4000;

/// What happened to the machine.
#[derive(Debug, Clone)]
pub struct Happening {
    pub id: Vec<u8>,
    pub message: String,
    pub severity: u16,
    /// The condition it is about, whether it is active and whether it is acknowledged.
    pub condition: Option<(String, bool, bool)>,
    pub kind: HappeningKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HappeningKind {
    Own,
    /// Events were given up before this one.
    QueueOverflow,
    /// What comes until the end is how conditions stand, and no news.
    RefreshStart,
    RefreshEnd,
}

impl OpcuaServer {
    /// Adds the machine: `machine/state` (0 Idle, 1 Running, 2 Blocked), `machine/mode` (0 Auto,
    /// 1 Manual), `machine/report` and `machine/opaque`, which are structures, and
    /// `machine/temperature` in °C.
    pub fn add_machine(&self) {
        let mut space = self.nodes.address_space().write();
        let machine = Machine {
            namespace: self.namespace,
            space: &mut space,
        };
        machine.add();
    }

    /// Gives a variable the value of a structure, whose type is known by the id of its encoding.
    pub fn set_structure(&self, name: &str, encoding: &str, bytes: Vec<u8>) {
        let id = NodeId::new(self.namespace, encoding);
        let object = ExtensionObject::new(ByteStringBody::new(ByteString::from(bytes), id));
        self.put(name, object.into(), StatusCode::Good);
    }

    /// Gives an enumeration's variable a value.
    pub fn set_int32(&self, name: &str, value: i32) {
        self.put(name, value.into(), StatusCode::Good);
    }

    /// Measures in another unit from this value on, and says so.
    pub fn set_in_unit(&self, name: &str, value: f64, unit: &str) {
        let property = format!("{name}.EngineeringUnits");
        self.put(&property, unit_of(unit).into(), StatusCode::Good);
        self.put(name, value.into(), StatusCode::from(SEMANTICS_CHANGED));
    }

    /// Tells those who subscribe to the server's events.
    pub fn happen(&self, happening: &Happening) {
        let event = Occurrence {
            happening,
            event_type: match (happening.kind, &happening.condition) {
                (HappeningKind::QueueOverflow, _) => ObjectTypeId::EventQueueOverflowEventType,
                (HappeningKind::RefreshStart, _) => ObjectTypeId::RefreshStartEventType,
                (HappeningKind::RefreshEnd, _) => ObjectTypeId::RefreshEndEventType,
                (HappeningKind::Own, Some(_)) => ObjectTypeId::AlarmConditionType,
                (HappeningKind::Own, None) => ObjectTypeId::BaseEventType,
            }
            .into(),
            time: DateTime::now(),
        };
        let server: NodeId = ObjectId::Server.into();
        let events: [(&dyn Event, &NodeId); 1] = [(&event, &server)];
        self.subscriptions.notify_events(events.into_iter());
    }

    fn put(&self, name: &str, value: Variant, status: StatusCode) {
        let data = DataValue {
            value: Some(value),
            status: Some(status),
            source_timestamp: Some(DateTime::now()),
            server_timestamp: Some(DateTime::now()),
            ..DataValue::default()
        };
        let id = NodeId::new(self.namespace, name);
        self.nodes
            .set_value(&self.subscriptions, &id, None, data)
            .expect("the machine has this variable");
    }
}

struct Machine<'a> {
    namespace: u16,
    space: &'a mut AddressSpace,
}

impl Machine<'_> {
    fn id(&self, name: &str) -> NodeId {
        NodeId::new(self.namespace, name)
    }

    fn add(mut self) {
        self.add_types();
        let folder = self.id("machine");
        self.space.add_folder(
            &folder,
            "machine",
            "machine",
            &ObjectId::ObjectsFolder.into(),
        );
        let states = [("state", "MachineState"), ("mode", "MachineMode")];
        for (name, data_type) in states {
            self.variable(name, self.id(data_type), 0_i32.into());
        }
        let structures = [
            ("report", "Report", "Report.Binary", report(0, None)),
            ("opaque", "Opaque", "Opaque.Binary", vec![1, 2]),
        ];
        for (name, data_type, encoding, bytes) in structures {
            let body = ByteStringBody::new(ByteString::from(bytes), self.id(encoding));
            let value = ExtensionObject::new(body);
            self.variable(name, self.id(data_type), value.into());
        }
        self.variable("temperature", DataTypeId::Double.into(), 20.0.into());
        let temperature = "machine/temperature";
        let range = Range {
            low: -20.0,
            high: 120.0,
        };
        let range = ExtensionObject::from_message(range);
        self.property(temperature, "EURange", range.into());
        self.property(temperature, "EngineeringUnits", unit_of("°C").into());
    }

    fn variable(&mut self, name: &str, data_type: NodeId, value: Variant) {
        let id = self.id(&format!("machine/{name}"));
        VariableBuilder::new(&id, name, name)
            .data_type(data_type)
            .value(value)
            .organized_by(self.id("machine"))
            .insert(self.space);
    }

    fn property(&mut self, of: &str, name: &str, value: Variant) {
        let rank = match value.type_id() {
            VariantTypeId::Array(..) => 1,
            _ => -1,
        };
        VariableBuilder::new(&self.id(&format!("{of}.{name}")), name, name)
            .data_type(DataTypeId::BaseDataType)
            .value(value)
            .value_rank(rank)
            .property_of(self.id(of))
            .insert(self.space);
    }

    fn add_types(&mut self) {
        let states = ["Idle", "Running", "Blocked"];
        let states = (0..).zip(states).map(|(value, name)| EnumField {
            value,
            display_name: LocalizedText::from(name),
            description: LocalizedText::null(),
            name: name.into(),
        });
        let states = EnumDefinition {
            fields: Some(states.collect()),
        };
        let enumeration = DataTypeId::Enumeration;
        self.data_type("MachineState", enumeration, Some(states.into()));
        self.data_type("MachineMode", enumeration, None);
        let modes = ["Auto", "Manual"].map(LocalizedText::from).to_vec();
        self.property("MachineMode", "EnumStrings", modes.into());

        let field = |name: &str, data_type: NodeId| StructureField {
            name: name.into(),
            data_type,
            value_rank: -1,
            ..StructureField::default()
        };
        let standard = |data_type: DataTypeId| data_type.into();
        let position = vec![
            field("x", standard(DataTypeId::Double)),
            field("y", standard(DataTypeId::Double)),
        ];
        let report = vec![
            field("state", self.id("MachineState")),
            StructureField {
                is_optional: true,
                ..field("label", standard(DataTypeId::String))
            },
            StructureField {
                value_rank: 1,
                ..field("samples", standard(DataTypeId::Int32))
            },
            field("position", self.id("Position")),
        ];
        let structures = [
            ("Position", StructureType::Structure, position),
            ("Report", StructureType::StructureWithOptionalFields, report),
        ];
        for (name, kind, fields) in structures {
            let definition = StructureDefinition {
                structure_type: kind,
                fields: Some(fields),
                ..StructureDefinition::default()
            };
            self.data_type(name, DataTypeId::Structure, Some(definition.into()));
            self.encoding(name);
        }
        self.data_type("Opaque", DataTypeId::Structure, None);
        self.encoding("Opaque");
    }

    fn data_type(&mut self, name: &str, of: DataTypeId, definition: Option<DataTypeDefinition>) {
        let builder = DataTypeBuilder::new(&self.id(name), name, name).subtype_of(of);
        match definition {
            Some(definition) => builder.data_type_definition(definition),
            None => builder,
        }
        .insert(self.space);
    }

    fn encoding(&mut self, of: &str) {
        let id = self.id(&format!("{of}.Binary"));
        ObjectBuilder::new(&id, "Default Binary", "Default Binary")
            .reference(
                self.id(of),
                ReferenceTypeId::HasEncoding,
                ReferenceDirection::Inverse,
            )
            .insert(self.space);
    }
}

/// The bytes of a `Report` (Part 6, 5.2.6): a mask, the state, the label if any, two samples, and
/// a position.
#[must_use]
pub fn report(state: i32, label: Option<&str>) -> Vec<u8> {
    let mut bytes = u32::from(label.is_some()).to_le_bytes().to_vec();
    bytes.extend(state.to_le_bytes());
    if let Some(label) = label {
        let length = i32::try_from(label.len()).expect("labels are short");
        bytes.extend(length.to_le_bytes());
        bytes.extend(label.as_bytes());
    }
    for number in [2, state, -state] {
        bytes.extend(number.to_le_bytes());
    }
    for number in [1.5_f64, f64::NAN] {
        bytes.extend(number.to_le_bytes());
    }
    bytes
}

fn unit_of(text: &str) -> ExtensionObject {
    ExtensionObject::from_message(EUInformation {
        namespace_uri: "http://www.opcfoundation.org/UA/units/un/cefact".into(),
        unit_id: -1,
        display_name: LocalizedText::from(text),
        description: LocalizedText::null(),
    })
}

/// A happening as the server's subscriptions ask for it, field by field.
struct Occurrence<'a> {
    happening: &'a Happening,
    event_type: NodeId,
    time: DateTime,
}

impl Event for Occurrence<'_> {
    fn get_field(
        &self,
        _type_definition_id: &NodeId,
        attribute_id: AttributeId,
        index_range: &NumericRange,
        browse_path: &[QualifiedName],
    ) -> Variant {
        self.get_value(attribute_id, index_range, browse_path)
    }

    fn time(&self) -> &DateTime {
        &self.time
    }

    fn event_type_id(&self) -> &NodeId {
        &self.event_type
    }
}

impl EventField for Occurrence<'_> {
    fn get_value(
        &self,
        _attribute_id: AttributeId,
        _index_range: &NumericRange,
        remaining_path: &[QualifiedName],
    ) -> Variant {
        let path: Vec<&str> = remaining_path.iter().map(|it| it.name.as_ref()).collect();
        let condition = self.happening.condition.as_ref();
        let of =
            condition.map(|(name, active, acknowledged)| (name.as_str(), *active, *acknowledged));
        match (path.as_slice(), of) {
            (["EventId"], _) => ByteString::from(self.happening.id.clone()).into(),
            (["EventType"], _) => self.event_type.clone().into(),
            (["SourceName"], _) => "machine".into(),
            (["Time"], _) => self.time.into(),
            (["Message"], _) => LocalizedText::from(self.happening.message.as_str()).into(),
            (["Severity"], _) => self.happening.severity.into(),
            (["ConditionName"], Some((name, ..))) => name.into(),
            (["Retain"], Some((_, active, acknowledged))) => (active || !acknowledged).into(),
            (["ActiveState", "Id"], Some((_, active, _))) => active.into(),
            (["AckedState", "Id"], Some((.., acknowledged))) => acknowledged.into(),
            _ => Variant::Empty,
        }
    }
}
