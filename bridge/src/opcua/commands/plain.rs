//! Why a server does not do what it is told, in words that say what to do.

use crate::opcua::wire::status_name;

/// The StatusCodes of Write and Call (Part 4, 5.11.4 and 5.12.2) of Acknowledge and Confirm (Part 9,
/// 5.7.3 and 5.7.4), and of paths, as numbers (Part 6, annex A).
const WORDS: [(u32, &str); 22] = [
    (
        0x801F_0000,
        "this user may not do that at the server; another login may",
    ),
    (0x8033_0000, "the server does not take this for a node id"),
    (0x8034_0000, "the server has no such node"),
    (0x803B_0000, "the server lets nobody write this node"),
    (
        0x803C_0000,
        "the server does not take this value: it lies outside of what the node may hold",
    ),
    (0x8073_0000, "the server cannot write this node in this way"),
    (0x8074_0000, "the server takes no value of this type here"),
    (0x8075_0000, "the server has no such method on this object"),
    (0x8076_0000, "the method wants more arguments"),
    (0x80E5_0000, "the method takes fewer arguments"),
    (0x80AB_0000, "the server does not take an argument"),
    (0x8111_0000, "the method cannot be called now"),
    (0x800B_0000, "the server does not do that for anybody"),
    (
        0x80AF_0000,
        "the machine is in a state in which it does not take this",
    ),
    (
        0x8031_0000,
        "the server has no connection to the device behind this node",
    ),
    (0x808B_0000, "the device behind this node has failed"),
    (
        0x809A_0000,
        "the server does not know this event any more: the alarm may have come again",
    ),
    (0x80CF_0000, "the alarm was acknowledged before"),
    (0x80D0_0000, "the alarm was confirmed before"),
    (0x8099_0000, "the alarm is switched off"),
    (0x806F_0000, "no node has this path"),
    (
        0x806D_0000,
        "more than one node has this path: name the namespace, as in 2:Speed, or use the id",
    ),
];

/// What a bad StatusCode of a command means, with its name.
pub(crate) fn words(status: u32) -> String {
    let name = status_name(status);
    // The low half tells of the value, not of what was wrong.
    let known = WORDS.iter().find(|(code, _)| *code == status & 0xFFFF_0000);
    match known {
        Some((_, words)) => format!("{words} ({name})"),
        None => format!("the server refuses: {name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_those_of_the_names() {
        for (number, name) in [
            (0x801F_0000, "BadUserAccessDenied"),
            (0x8034_0000, "BadNodeIdUnknown"),
            (0x803B_0000, "BadNotWritable"),
            (0x803C_0000, "BadOutOfRange"),
            (0x8073_0000, "BadWriteNotSupported"),
            (0x8074_0000, "BadTypeMismatch"),
            (0x8075_0000, "BadMethodInvalid"),
            (0x8076_0000, "BadArgumentsMissing"),
            (0x80E5_0000, "BadTooManyArguments"),
            (0x80AB_0000, "BadInvalidArgument"),
            (0x8111_0000, "BadNotExecutable"),
            (0x800B_0000, "BadServiceUnsupported"),
            (0x80AF_0000, "BadInvalidState"),
            (0x8031_0000, "BadNoCommunication"),
            (0x8033_0000, "BadNodeIdInvalid"),
            (0x808B_0000, "BadDeviceFailure"),
            (0x809A_0000, "BadEventIdUnknown"),
            (0x80CF_0000, "BadConditionBranchAlreadyAcked"),
            (0x80D0_0000, "BadConditionBranchAlreadyConfirmed"),
            (0x806F_0000, "BadNoMatch"),
            (0x806D_0000, "BadTooManyMatches"),
            (0x8099_0000, "BadConditionDisabled"),
        ] {
            let words = words(number);
            assert!(words.ends_with(&format!("({name})")), "{words}");
        }
        assert_eq!(words(0x8001_0000), "the server refuses: BadUnexpectedError");
    }
}
