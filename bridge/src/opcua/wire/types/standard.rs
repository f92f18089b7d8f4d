//! Types of the standard itself: the built-in ones, and structures that plants use and that many
//! servers do not define in their address space.

use super::super::vendor::{Identifier, NodeId};
use super::definition::{Definition, ENUMERATION, Enumeration, Layout, Structure};
use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

/// `DiagnosticInfo`, the last of them (Part 6, table 1): up to here a type's id is its number.
const BUILT_IN_MAX: u32 = 25;
const INT32: u8 = 6;
const STRUCTURE: u32 = 22;
const VARIANT: u8 = 24;
const NUMBER: u32 = 26;
const UNSIGNED_INTEGER: u32 = 28;

const UINT32: u32 = 7;
const INT64: u32 = 8;
const INT16: u32 = 4;
const BOOLEAN: u32 = 1;
const FLOAT: u32 = 10;
const DOUBLE: u32 = 11;
const STRING: u32 = 12;
const DATE_TIME: u32 = 13;
const NODE_ID: u32 = 17;
const QUALIFIED_NAME: u32 = 20;
const LOCALIZED_TEXT: u32 = 21;
const ANY: u32 = 24;
const RANGE: u32 = 884;
const EU_INFORMATION: u32 = 887;
const INT32_TYPE: u32 = INT32 as u32;
const BUILD_INFO: u32 = 338;
const SERVER_STATE: u32 = 852;
const AXIS_SCALE: u32 = 12077;

/// Data type, names of its numbers from 0 on (Part 5, 12.6; Part 8, 5.6.6).
const ENUMERATIONS: &[(u32, &[&str])] = &[
    (
        SERVER_STATE,
        &[
            "Running",
            "Failed",
            "NoConfiguration",
            "Suspended",
            "Shutdown",
            "Test",
            "CommunicationFault",
            "Unknown",
        ],
    ),
    (AXIS_SCALE, &["Linear", "Log", "Ln"]),
];

/// Their names and types, all of them scalar.
type Fields = &'static [(&'static str, u32)];

/// Data type, name, fields with their types (Part 8, 5.6; Part 5, 12.2; Part 3, 8.6 and 8.39).
const STRUCTURES: &[(u32, &str, Fields)] = &[
    (RANGE, "Range", &[("Low", DOUBLE), ("High", DOUBLE)]),
    (
        EU_INFORMATION,
        "EUInformation",
        &[
            ("NamespaceUri", STRING),
            ("UnitId", INT32_TYPE),
            ("DisplayName", LOCALIZED_TEXT),
            ("Description", LOCALIZED_TEXT),
        ],
    ),
    (
        BUILD_INFO,
        "BuildInfo",
        &[
            ("ProductUri", STRING),
            ("ManufacturerName", STRING),
            ("ProductName", STRING),
            ("SoftwareVersion", STRING),
            ("BuildNumber", STRING),
            ("BuildDate", DATE_TIME),
        ],
    ),
    (
        862,
        "ServerStatusDataType",
        &[
            ("StartTime", DATE_TIME),
            ("CurrentTime", DATE_TIME),
            ("State", SERVER_STATE),
            ("BuildInfo", BUILD_INFO),
            ("SecondsTillShutdown", UINT32),
            ("ShutdownReason", LOCALIZED_TEXT),
        ],
    ),
    (
        7594,
        "EnumValueType",
        &[
            ("Value", INT64),
            ("DisplayName", LOCALIZED_TEXT),
            ("Description", LOCALIZED_TEXT),
        ],
    ),
    (
        8912,
        "TimeZoneDataType",
        &[("Offset", INT16), ("DaylightSavingInOffset", BOOLEAN)],
    ),
    (
        891,
        "Annotation",
        &[
            ("Message", STRING),
            ("UserName", STRING),
            ("AnnotationTime", DATE_TIME),
        ],
    ),
    (12080, "XVType", &[("X", DOUBLE), ("Value", FLOAT)]),
    (
        12171,
        "ComplexNumberType",
        &[("Real", FLOAT), ("Imaginary", FLOAT)],
    ),
    (
        12172,
        "DoubleComplexNumberType",
        &[("Real", DOUBLE), ("Imaginary", DOUBLE)],
    ),
    (
        14533,
        "KeyValuePair",
        &[("Key", QUALIFIED_NAME), ("Value", ANY)],
    ),
    (
        18806,
        "RationalNumber",
        &[("Numerator", INT32_TYPE), ("Denominator", UINT32)],
    ),
    (
        18808,
        "3DVector",
        &[("X", DOUBLE), ("Y", DOUBLE), ("Z", DOUBLE)],
    ),
    (
        18810,
        "3DCartesianCoordinates",
        &[("X", DOUBLE), ("Y", DOUBLE), ("Z", DOUBLE)],
    ),
    (
        18812,
        "3DOrientation",
        &[("A", DOUBLE), ("B", DOUBLE), ("C", DOUBLE)],
    ),
    (
        18814,
        "3DFrame",
        &[("CartesianCoordinates", 18810), ("Orientation", 18812)],
    ),
];

static DEFINITIONS: LazyLock<HashMap<u32, Definition>> = LazyLock::new(|| {
    let scalars = STRUCTURES.iter().map(|(id, name, fields)| {
        let structure = Structure::of_scalars(name, fields);
        (*id, Definition::Structure(Arc::new(structure)))
    });
    let enumerations = ENUMERATIONS.iter().map(|(id, names)| {
        let names = Arc::new(Enumeration::from_names(names));
        let supertype = NodeId::new(0, ENUMERATION);
        (*id, Definition::Enumeration(names, supertype))
    });
    let mut definitions: HashMap<u32, Definition> = scalars.chain(enumerations).collect();
    let mut argument = Structure::of_scalars(
        "Argument",
        &[
            ("Name", STRING),
            ("DataType", NODE_ID),
            ("ValueRank", INT32_TYPE),
            ("ArrayDimensions", UINT32),
            ("Description", LOCALIZED_TEXT),
        ],
    );
    argument.fields[3].rank = 1;
    let mut axis = Structure::of_scalars(
        "AxisInformation",
        &[
            ("EngineeringUnits", EU_INFORMATION),
            ("EURange", RANGE),
            ("Title", LOCALIZED_TEXT),
            ("AxisScaleType", AXIS_SCALE),
            ("AxisSteps", DOUBLE),
        ],
    );
    axis.fields[4].rank = 1;
    definitions.insert(296, Definition::Structure(Arc::new(argument)));
    definitions.insert(12079, Definition::Structure(Arc::new(axis)));
    definitions
});

pub(super) fn definition(id: &NodeId) -> Option<&'static Definition> {
    DEFINITIONS.get(&number(id)?)
}

/// How types that need no definition are encoded: the built-in ones as themselves, numbers of
/// any kind with their type, enumerations as Int32.
pub(super) fn layout(id: &NodeId) -> Option<Layout<'static>> {
    let number = number(id)?;
    Some(match number {
        STRUCTURE => Layout::Object,
        1..=BUILT_IN_MAX => Layout::BuiltIn(u8::try_from(number).ok()?, None),
        NUMBER..=UNSIGNED_INTEGER => Layout::BuiltIn(VARIANT, None),
        ENUMERATION => Layout::BuiltIn(INT32, None),
        _ => return None,
    })
}

pub(super) fn is_built_in(id: &NodeId) -> bool {
    id.is_null() || layout(id).is_some()
}

fn number(id: &NodeId) -> Option<u32> {
    match id.identifier {
        Identifier::Numeric(number) if id.namespace == 0 => Some(number),
        _ => None,
    }
}
