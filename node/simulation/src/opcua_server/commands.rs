//! What clients may do to the plant: setpoints to write and methods to call.

use super::{
    Argument, AttributeId, DataEncoding, DataTypeId, DataValue, MethodBuilder, NodeId,
    NumericRange, ObjectId, OpcuaServer, StatusCode, TimestampsToReturn, VariableBuilder, Variant,
};

/// The data type Int16 (Part 6, annex A).
const INT16: u32 = 4;

impl OpcuaServer {
    /// Adds a variable that clients may write, a number of this data type of namespace 0.
    pub fn add_setpoint(&self, name: &str, data_type: u32, first: f64) {
        let value = match data_type {
            INT16 => Variant::from(first as i16),
            _ => Variant::from(first),
        };
        VariableBuilder::new(&NodeId::new(self.namespace, name), name, name)
            .data_type(NodeId::new(0, data_type))
            .value_rank(-1)
            .value(value)
            .writable()
            .organized_by(ObjectId::ObjectsFolder)
            .insert(&mut *self.nodes.address_space().write());
    }

    /// What a variable holds, if it is a number.
    #[must_use]
    pub fn number(&self, name: &str) -> Option<f64> {
        let space = self.nodes.address_space().read();
        let node = space.find(&NodeId::new(self.namespace, name))?;
        let value = node.as_node().get_attribute(
            TimestampsToReturn::Neither,
            AttributeId::Value,
            &NumericRange::None,
            &DataEncoding::Binary,
        );
        number(&value?.value?)
    }

    /// From now on `taken` gets what clients write to a variable, in place of the variable, and
    /// answers with a StatusCode; it may take its time.
    pub fn on_write(&self, name: &str, taken: impl Fn(f64) -> u32 + Send + Sync + 'static) {
        let taken = move |data: DataValue, _: &NumericRange| {
            let written = data.value.as_ref().and_then(number);
            written.map_or(StatusCode::BadTypeMismatch, |it| taken(it).into())
        };
        let id = NodeId::new(self.namespace, name);
        self.nodes.inner().add_write_callback(id, taken);
    }

    /// Adds a method of the folder Objects that takes one Double; `called` gets it.
    pub fn add_method(
        &self,
        name: &str,
        called: impl Fn(f64) -> Result<f64, u32> + Send + Sync + 'static,
    ) {
        let id = NodeId::new(self.namespace, name);
        let mut space = self.nodes.address_space().write();
        let double = |name: &str| Argument {
            name: name.into(),
            data_type: DataTypeId::Double.into(),
            value_rank: -1,
            ..Argument::default()
        };
        MethodBuilder::new(&id, name, name)
            .component_of(ObjectId::ObjectsFolder)
            .executable(true)
            .user_executable(true)
            .input_args(
                &mut *space,
                &NodeId::new(self.namespace, format!("{name}/in")),
                &[double("level")],
            )
            .insert(&mut *space);
        self.nodes
            .inner()
            .add_method_callback(id, move |inputs| match inputs {
                [Variant::Double(level)] => match called(*level) {
                    Ok(answer) => Ok(vec![answer.into()]),
                    Err(code) => Err(code.into()),
                },
                _ => Err(StatusCode::BadInvalidArgument),
            });
    }
}

fn number(value: &Variant) -> Option<f64> {
    match value {
        Variant::Double(number) => Some(*number),
        Variant::Int16(number) => Some((*number).into()),
        _ => None,
    }
}
