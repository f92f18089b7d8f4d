//! The one error type of the crate.

/// Why rows cannot be packed, or bytes are no packed rows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("offset {offset} is not after {last}: rows are packed in the order of their offsets")]
    NotAhead { offset: u64, last: u64 },
    /// Nothing was taken of the row: finish the block and push it again.
    #[error("the block is full")]
    Full,
    #[error("{what} is {found}, a block may have {max}")]
    TooLarge {
        what: &'static str,
        found: u64,
        max: u64,
    },
    #[error("this is no packed block: it does not begin with F5 53 4B 50")]
    NotPacked,
    #[error("this is a block of format version {version}, known is version 1: use a newer decoder")]
    Version { version: u8 },
    #[error("the block is damaged: its checksum is {found:08x}, it says {stated:08x}")]
    Checksum { found: u32, stated: u32 },
    #[error("malformed {what} at byte {at} of the {section}")]
    Malformed {
        what: &'static str,
        section: Section,
        at: usize,
    },
}

/// The parts of a block that positions are told in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Section {
    Head,
    /// After decompression.
    Columns,
    Bits,
}

impl std::fmt::Display for Section {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Head => "head",
            Self::Columns => "column section",
            Self::Bits => "bit section",
        })
    }
}
