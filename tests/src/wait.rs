//! Waiting for a condition instead of for a duration.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Long enough for a start of the slowest part on a busy two-core machine.
pub const START: Duration = Duration::from_secs(120);
/// Long enough for a backlog of some thousand records to drain after an outage.
pub const DRAIN: Duration = Duration::from_secs(180);

const POLL: Duration = Duration::from_millis(50);

/// Polls `probe` until it gives a value. What it last complained of is in the error.
pub fn until<T>(
    what: &str,
    deadline: Duration,
    mut probe: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let start = Instant::now();
    loop {
        let complaint = match probe() {
            Ok(Some(value)) => return Ok(value),
            Ok(None) => None,
            Err(error) => Some(error),
        };
        if start.elapsed() > deadline {
            let seconds = deadline.as_secs();
            match complaint {
                Some(error) => bail!("{what}: not within {seconds} s; last: {error:#}"),
                None => bail!("{what}: not within {seconds} s"),
            }
        }
        std::thread::sleep(POLL);
    }
}

/// Polls until `probe` is true.
pub fn until_true(
    what: &str,
    deadline: Duration,
    mut probe: impl FnMut() -> Result<bool>,
) -> Result<()> {
    until(what, deadline, || Ok(probe()?.then_some(())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_the_value_once_there_is_one() {
        let mut calls = 0;
        let value = until("three calls", START, || {
            calls += 1;
            Ok((calls == 3).then_some(calls))
        });
        assert_eq!(value.unwrap(), 3);
    }

    #[test]
    fn names_what_it_waited_for_and_the_last_complaint() {
        let error = until::<()>("the moon", Duration::ZERO, || bail!("not risen")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the moon: not within 0 s; last: not risen"
        );
    }
}
