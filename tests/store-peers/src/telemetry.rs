//! The load: JSON telemetry of 200 bytes, as an MQTT sensor sends it. Seeded.

/// Bytes of one payload.
pub(crate) const BYTES: usize = 200;

/// An endless sequence of readings.
#[derive(Debug, Clone)]
pub(crate) struct Telemetry {
    number: u64,
    state: u64,
}

impl Telemetry {
    pub(crate) const fn new() -> Self {
        Self {
            number: 0,
            state: 0x9E37_79B9_7F4A_7C15,
        }
    }

    /// The next readings, `bytes` of them.
    pub(crate) fn of_bytes(&mut self, bytes: u64) -> impl Iterator<Item = Vec<u8>> {
        self.take((bytes / BYTES as u64) as usize)
    }

    /// xorshift64: figures must not depend on a crate's idea of randomness.
    fn noise(&mut self) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state
    }
}

impl Iterator for Telemetry {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        let n = self.number;
        self.number += 1;
        let values: Vec<String> = (0..5)
            .map(|_| format!("{:.3}", (self.noise() % 100_000) as f64 / 1000.0))
            .collect();
        let mut json = format!(
            "{{\"sensor\":\"pump{}\",\"seq\":{n},\"ts\":{},\"vibration\":{},\"temperature\":{},\
             \"pressure\":{},\"flow\":{},\"current\":{},\"state\":\"running\"",
            n % 20,
            1_790_000_000_000_u64 + n * 7,
            values[0],
            values[1],
            values[2],
            values[3],
            values[4],
        );
        json.push_str(",\"note\":\"");
        while json.len() < BYTES - 2 {
            json.push('-');
        }
        json.truncate(BYTES - 2);
        json.push_str("\"}");
        // Without room behind it, like what comes from a socket.
        Some(json.into_bytes().into_boxed_slice().into_vec())
    }
}
