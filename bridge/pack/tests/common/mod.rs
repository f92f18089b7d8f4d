//! Records that own what they have, and some that look like a plant's.

use skerry_pack::{Block, Error, Header, Packer, Row};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    pub offset: u64,
    pub timestamp_ms: i64,
    pub key: Vec<u8>,
    pub value: Vec<u8>,
    pub headers: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

impl Record {
    pub(crate) fn push(&self, packer: &mut Packer) -> Result<(), Error> {
        let headers = self.headers.iter().map(|(name, value)| Header {
            name,
            value: value.as_deref(),
        });
        packer.push(Row {
            offset: self.offset,
            timestamp_ms: self.timestamp_ms,
            key: &self.key,
            value: &self.value,
            headers,
        })
    }
}

pub(crate) fn rows(block: &Block) -> Vec<Record> {
    let rows = block.rows().map(|row| Record {
        offset: row.offset,
        timestamp_ms: row.timestamp_ms,
        key: row.key.to_vec(),
        value: row.value.to_vec(),
        headers: row
            .headers
            .map(|header| (header.name.to_vec(), header.value.map(<[u8]>::to_vec)))
            .collect(),
    });
    rows.collect()
}

/// What the uplink has to send of five pumps, in turn.
pub(crate) fn telemetry(count: usize) -> Vec<Record> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut noise = |below: i64| {
        state = state
            .wrapping_mul(0x5851_F42D_4C95_7F2D)
            .wrapping_add(0x1405_7B7E_F767_814F);
        ((state >> 33) as i64) % below
    };
    let mut values = [[2_400, 61_000]; 5];
    let mut nanos = 1_764_168_164_123_456_789;
    let records = (0..count).map(|number| {
        let pump = number % 5;
        let [vibration, temperature] = &mut values[pump];
        *vibration += noise(41) - 20;
        *temperature += noise(11) - 5;
        nanos += 50_000_000 + noise(200_000);
        let offset = 700 + number as u64;
        let value = format!(
            r#"{{"vibration":{:.3},"temperature":{:.2},"time":{},"unit":"mm/s","ok":{}}}"#,
            *vibration as f64 / 1e3,
            *temperature as f64 / 1e3,
            nanos / 1_000_000,
            number % 7 != 3,
        );
        let headers = [
            ("skerry-node", "vessel-7".to_owned()),
            ("skerry-epoch", "00000000000000f3".to_owned()),
            ("skerry-stream", "telemetry".to_owned()),
            ("skerry-offset", offset.to_string()),
            ("skerry-kind", "mqtt".to_owned()),
            ("skerry-ingest-time", nanos.to_string()),
        ];
        let headers = headers.map(|(n, v)| (n.as_bytes().to_vec(), Some(v.into_bytes())));
        Record {
            offset,
            timestamp_ms: nanos / 1_000_000,
            key: format!("pump{pump}").into_bytes(),
            value: value.into_bytes(),
            headers: headers.into(),
        }
    });
    records.collect()
}

/// The block with a checksum that fits, as one has who makes blocks to do harm.
pub(crate) fn resealed(mut block: Vec<u8>) -> Vec<u8> {
    if let Some(content) = block.len().checked_sub(4) {
        let checksum = crc32c::crc32c(&block[..content]);
        block[content..].copy_from_slice(&checksum.to_le_bytes());
    }
    block
}
