//! Passwords as Argon2id hashes, in the PHC string format. Only this file names `argon2`.

use argon2::password_hash::{Output, PasswordHash, PasswordHasher, PasswordVerifier, SaltString};
use argon2::{Algorithm, Argon2, Params, Version};
use std::fmt;

/// What one guess costs: OWASP's least for Argon2id, in one lane. A Raspberry Pi 3 bears it: 19 MiB
/// of its memory for the fraction of a second that one login takes.
const COST: Cost = Cost {
    memory_kib: 19 * 1024,
    passes: 2,
    lanes: 1,
};
/// A hash that asks for more than this is refused: checking it could take a small board's memory.
const COST_MAX: Cost = Cost {
    memory_kib: 256 * 1024,
    passes: 16,
    lanes: 8,
};
const SALT_BYTES: usize = 16;
const HASH_BYTES: usize = 32;

#[derive(Debug, Clone, Copy)]
struct Cost {
    memory_kib: u32,
    passes: u32,
    lanes: u32,
}

/// A password's hash that was checked to be one. Never shown by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct HashedPassword(Box<str>);

impl HashedPassword {
    /// Takes its time, on purpose.
    pub(crate) fn new(password: &[u8]) -> Self {
        let salt = salt();
        let hash = argon2()
            .hash_password(password, &salt)
            .expect("the cost and the salt are within Argon2's limits");
        Self(hash.to_string().into())
    }

    /// A hash that no password has, to check against where there is no user: an unknown name then
    /// takes as long as a wrong password.
    pub(crate) fn decoy() -> Self {
        let output = Output::new(&random::<HASH_BYTES>()).expect("a hash of the usual length");
        let Cost {
            memory_kib,
            passes,
            lanes,
        } = COST;
        let salt = salt();
        let text = format!("$argon2id$v=19$m={memory_kib},t={passes},p={lanes}${salt}${output}");
        Self(text.into())
    }

    /// # Errors
    /// What is wrong with it; without the hash itself, which is nobody's to read in a log.
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        let hash = PasswordHash::new(text).map_err(|_| "is no password hash that skerry knows")?;
        let complete = hash.salt.is_some() && hash.hash.is_some();
        if hash.algorithm.as_str() != "argon2id" || !complete {
            return Err("is no Argon2id hash");
        }
        let params = Params::try_from(&hash).map_err(|_| "is no Argon2id hash")?;
        let bearable = params.m_cost() <= COST_MAX.memory_kib
            && params.t_cost() <= COST_MAX.passes
            && params.p_cost() <= COST_MAX.lanes;
        if !bearable {
            return Err("is a hash that costs over 256 MiB, 16 passes or 8 lanes to check");
        }
        Ok(Self(text.into()))
    }

    /// Takes its time, whether the answer is yes or no.
    pub(crate) fn matches(&self, password: &[u8]) -> bool {
        let hash = PasswordHash::new(&self.0).expect("checked when it was parsed or made");
        argon2().verify_password(password, &hash).is_ok()
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for HashedPassword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HashedPassword(…)")
    }
}

fn argon2() -> Argon2<'static> {
    let params = Params::new(COST.memory_kib, COST.passes, COST.lanes, Some(HASH_BYTES));
    let params = params.expect("the cost is within Argon2's limits");
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
}

fn salt() -> SaltString {
    SaltString::encode_b64(&random::<SALT_BYTES>()).expect("a salt of the usual length")
}

/// The system's own randomness, which on Linux waits at most for the boot's first entropy.
pub(crate) fn random<const BYTES: usize>() -> [u8; BYTES] {
    let mut bytes = [0; BYTES];
    let mut filled = 0;
    while filled < BYTES {
        let flags = rustix::rand::GetRandomFlags::empty();
        filled += rustix::rand::getrandom(&mut bytes[filled..], flags)
            .expect("Linux has had getrandom since 3.17");
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_matches_its_password_only_and_tells_its_cost() {
        let hash = HashedPassword::new(b"secret");
        assert!(hash.as_str().starts_with("$argon2id$v=19$m=19456,t=2,p=1$"));
        let read = HashedPassword::parse(hash.as_str()).expect("its own text");
        assert!(read.matches(b"secret"));
        assert!(!read.matches(b"Secret") && !read.matches(b""));
        assert_ne!(hash, HashedPassword::new(b"secret"), "salted");
        assert!(!format!("{hash:?}").contains("argon2id"));
    }

    #[test]
    fn the_decoy_costs_what_a_hash_costs_and_matches_nothing() {
        let decoy = HashedPassword::decoy();
        let cost = |hash: &HashedPassword| {
            let fields: Vec<&str> = hash.as_str().split('$').collect();
            fields[1..4].join("$")
        };
        assert_eq!(cost(&decoy), cost(&HashedPassword::new(b"x")));
        assert!(HashedPassword::parse(decoy.as_str()).is_ok());
        assert!(!decoy.matches(b"") && !decoy.matches(b"secret"));
    }

    #[test]
    fn what_is_no_bearable_argon2id_hash_is_refused() {
        let salt_and_hash = "$c29tZXNhbHRzb21lc2FsdA$\
                             MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE";
        let with = |head: &str| HashedPassword::parse(&format!("{head}{salt_and_hash}"));
        assert!(with("$argon2id$v=19$m=19456,t=2,p=1").is_ok());
        for head in [
            "$argon2i$v=19$m=19456,t=2,p=1",
            "$argon2id$v=19$m=4194304,t=2,p=1",
            "$argon2id$v=19$m=19456,t=99,p=1",
            "$argon2id$v=19$m=19456,t=2,p=99",
            "$argon2id$v=19$m=x,t=2,p=1",
            "$7$101",
        ] {
            assert!(with(head).is_err(), "{head}");
        }
        for text in ["", "secret", "$argon2id$v=19$m=19456,t=2,p=1"] {
            assert!(HashedPassword::parse(text).is_err(), "{text}");
        }
    }
}
