//! What is published: telemetry as JSON, of different content each, as from real sensors. A
//! payload of one repeated byte would flatter a broker that compresses.

/// Bytes of one payload.
pub(super) const BYTES: usize = 200;
/// Different payloads. Together they are longer than the window of any fast compression.
const COUNT: usize = 2_048;

pub(super) struct Payloads {
    all: Vec<[u8; BYTES]>,
    next: usize,
}

impl Payloads {
    pub(super) fn new() -> Self {
        let mut noise = Noise(0x9E37_79B9_7F4A_7C15);
        let all = (0..COUNT).map(|number| payload(number, &mut noise));
        Self {
            all: all.collect(),
            next: 0,
        }
    }

    /// One after the other, and from the start again.
    pub(super) fn next(&mut self) -> &[u8; BYTES] {
        self.next = (self.next + 1) % COUNT;
        &self.all[self.next]
    }
}

fn payload(number: usize, noise: &mut Noise) -> [u8; BYTES] {
    let mut json = format!(r#"{{"sensor":"pump{}","seq":{number}"#, number % 20);
    for name in ["vibration", "temperature", "pressure", "flow", "current"] {
        let value = noise.next() % 100_000;
        json += &format!(r#","{name}":{}.{:03}"#, value / 1_000, value % 1_000);
    }
    json += r#","note":""#;
    let mut bytes = [b'-'; BYTES];
    bytes[..json.len()].copy_from_slice(json.as_bytes());
    bytes[BYTES - 2..].copy_from_slice(br#""}"#);
    bytes
}

/// xorshift64: figures must not depend on a crate's idea of randomness.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_are_json_and_differ() {
        let mut payloads = Payloads::new();
        let (first, second) = (*payloads.next(), *payloads.next());
        assert_ne!(first, second);
        for bytes in [first, second] {
            let value: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
            assert!(value["flow"].is_number());
        }
    }
}
