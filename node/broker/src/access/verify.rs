//! Checking a password without holding anything else up.
//!
//! Argon2id is slow on purpose, so it runs on threads that may block, a few at a time, and a thousand
//! devices that come back after their switch did would wait for minutes. Hence the passwords that
//! were right of late are remembered, as BLAKE3 hashes under a key that is made at each start and
//! never leaves the process. That gives nothing away:
//! - Only a password that Argon2id found right is remembered, so what is quick is the right one;
//!   each wrong guess, and each unknown name, costs a full Argon2id.
//! - Who can read this process' memory to get at key and hash can read passwords as they arrive.
//! - An entry counts for an hour, and only with the very hash it was checked against: it ends with
//!   the user's line in the file.

use super::password::{HashedPassword, random};
use bytes::Bytes;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;

/// Argon2id runs at once. Two take 38 MiB and half the cores of a Raspberry Pi for as long as they
/// run; the rest wait their turn.
const AT_ONCE_MAX: usize = 2;
const REMEMBERED_FOR: Duration = Duration::from_secs(3600);
const REMEMBERED_MAX: usize = 10_000;

pub(super) struct Verifier {
    turns: Arc<Semaphore>,
    key: [u8; blake3::KEY_LEN],
    right: Mutex<HashMap<Box<str>, Right>>,
    decoy: Arc<HashedPassword>,
}

/// A password that was right.
struct Right {
    digest: blake3::Hash,
    checked_against: Arc<HashedPassword>,
    at: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Right,
    /// Without a run of Argon2id.
    RightAsBefore,
    Wrong,
    /// Nothing was checked.
    TooEarly,
}

impl Verifier {
    pub(super) fn new() -> Self {
        Self {
            turns: Arc::new(Semaphore::new(AT_ONCE_MAX)),
            key: random(),
            right: Mutex::default(),
            decoy: Arc::new(HashedPassword::decoy()),
        }
    }

    /// Whether `password` is the user's, whose hash is `hash`; there is none for an unknown user.
    /// `may_try` is asked again when it is this login's turn: of many guesses at once, those whose
    /// turn comes after the first failures are as late as they would have been one by one.
    pub(super) async fn verify(
        &self,
        user: &str,
        hash: Option<&Arc<HashedPassword>>,
        password: Bytes,
        may_try: impl Fn() -> bool,
    ) -> Verdict {
        if !may_try() {
            return Verdict::TooEarly;
        }
        let digest = self.digest(user, &password);
        if hash.is_some_and(|hash| self.remembers(user, hash, digest)) {
            return Verdict::RightAsBefore;
        }
        let turn = Arc::clone(&self.turns).acquire_owned().await;
        let turn = turn.expect("nobody closes the semaphore");
        if !may_try() {
            return Verdict::TooEarly;
        }
        // Many devices with one login come at once: the first has paid for the others.
        if hash.is_some_and(|hash| self.remembers(user, hash, digest)) {
            return Verdict::RightAsBefore;
        }
        let checked = Arc::clone(hash.unwrap_or(&self.decoy));
        // The turn goes along: if nobody waits for the answer any more, the work goes on. And it comes
        // back: the next one is to find what this one learnt.
        let checking = tokio::task::spawn_blocking(move || (checked.matches(&password), turn));
        let Ok((matches, _turn)) = checking.await else {
            return Verdict::Wrong;
        };
        match hash {
            Some(hash) if matches => {
                self.remember(user, hash, digest);
                Verdict::Right
            }
            _ => Verdict::Wrong,
        }
    }

    fn digest(&self, user: &str, password: &[u8]) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        hasher.update(&(user.len() as u64).to_le_bytes());
        hasher.update(user.as_bytes()).update(password);
        hasher.finalize()
    }

    fn remembers(&self, user: &str, hash: &HashedPassword, digest: blake3::Hash) -> bool {
        let right = self.right();
        right.get(user).is_some_and(|right| {
            // `blake3::Hash` compares in constant time.
            right.digest == digest
                && *right.checked_against == *hash
                && right.at.elapsed() < REMEMBERED_FOR
        })
    }

    fn remember(&self, user: &str, hash: &Arc<HashedPassword>, digest: blake3::Hash) {
        let mut right = self.right();
        if right.len() >= REMEMBERED_MAX && !right.contains_key(user) {
            let oldest = right.iter().min_by_key(|(_, right)| right.at);
            if let Some(oldest) = oldest.map(|(user, _)| user.clone()) {
                right.remove(&oldest);
            }
        }
        let entry = Right {
            digest,
            checked_against: Arc::clone(hash),
            at: Instant::now(),
        };
        right.insert(user.into(), entry);
    }

    fn right(&self) -> MutexGuard<'_, HashMap<Box<str>, Right>> {
        self.right.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[tokio::test]
    async fn a_right_password_is_remembered_with_its_hash_only() {
        let verifier = Verifier::new();
        let one = Arc::new(HashedPassword::new(b"one"));
        let two = Arc::new(HashedPassword::new(b"two"));
        let again = Arc::new(HashedPassword::new(b"one"));
        let password = |text: &'static str| Bytes::from_static(text.as_bytes());
        for (user, hash, given, expected) in [
            ("ada", Some(&one), "no", Verdict::Wrong),
            ("ada", Some(&one), "one", Verdict::Right),
            ("ada", Some(&one), "one", Verdict::RightAsBefore),
            ("ada", Some(&one), "no", Verdict::Wrong),
            ("ada", Some(&one), "one", Verdict::RightAsBefore),
            ("bob", Some(&one), "one", Verdict::Right),
            ("ada", Some(&two), "one", Verdict::Wrong),
            ("ada", Some(&again), "one", Verdict::Right),
            ("ada", None, "one", Verdict::Wrong),
        ] {
            let verdict = verifier.verify(user, hash, password(given), || true).await;
            assert_eq!(verdict, expected, "{user} {given}");
        }
    }

    #[tokio::test]
    async fn guesses_that_came_at_once_are_throttled_all_the_same() {
        let (verifier, tries) = (Arc::new(Verifier::new()), AtomicUsize::new(0));
        let guess = Bytes::from_static(b"x");
        // The first question is asked of all at once, the second when it is one's turn.
        let may_try = || tries.fetch_add(1, Ordering::Relaxed) < 6;
        let guesses = [(); 4].map(|()| verifier.verify("eve", None, guess.clone(), may_try));
        let [first, second, third, fourth] = guesses;
        let verdicts = tokio::join!(first, second, third, fourth);
        let expected = (
            Verdict::Wrong,
            Verdict::Wrong,
            Verdict::TooEarly,
            Verdict::TooEarly,
        );
        assert_eq!(verdicts, expected);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn an_unknown_user_takes_as_long_as_a_wrong_password() {
        let verifier = Verifier::new();
        let hash = Arc::new(HashedPassword::new(b"one"));
        let guess = Bytes::from_static(b"x");
        let (mut unknown, mut wrong) = (Duration::MAX, Duration::MAX);
        // The quickest of some: the machine may have other work.
        for _ in 0..8 {
            let start = Instant::now();
            verifier.verify("eve", None, guess.clone(), || true).await;
            unknown = unknown.min(start.elapsed());
            let start = Instant::now();
            verifier
                .verify("ada", Some(&hash), guess.clone(), || true)
                .await;
            wrong = wrong.min(start.elapsed());
        }
        // The decoy costs what a hash costs, as its own test shows; a name that is not even tried
        // would be a thousand times quicker, whatever else the machine does.
        assert!(unknown > wrong / 10, "{unknown:?} {wrong:?}");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_thousand_devices_with_one_login_cost_a_few_checks() {
        let verifier = Arc::new(Verifier::new());
        let hash = Arc::new(HashedPassword::new(b"one"));
        let mut logins = tokio::task::JoinSet::new();
        for _ in 0..1000 {
            let (verifier, hash) = (Arc::clone(&verifier), Arc::clone(&hash));
            logins.spawn(async move {
                let password = Bytes::from_static(b"one");
                verifier.verify("ada", Some(&hash), password, || true).await
            });
        }
        let verdicts = logins.join_all().await;
        let full = verdicts
            .iter()
            .filter(|verdict| **verdict == Verdict::Right);
        assert!(full.count() <= AT_ONCE_MAX);
        assert!(!verdicts.contains(&Verdict::Wrong));
    }
}
