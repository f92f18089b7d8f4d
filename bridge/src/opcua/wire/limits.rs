//! What the server takes at once, by its own word (Part 5, 6.3.2 and 6.3.11): asked once a
//! session, when the first request of several operations is due, and kept to by all of them.

use super::{Session, Value};
use crate::opcua::error::{Error, status};
use std::time::Duration;

/// `Server_ServerCapabilities_OperationLimits_…` and, last, `…_MinSupportedSampleRate`
/// (Part 6, annex A).
const LIMITS: [&str; 4] = ["i=11705", "i=11710", "i=11714", "i=2272"];

/// Operations in one request, where the server does not say or would take more: an answer of
/// about a megabyte.
const OPERATIONS_MAX: usize = 1_000;
/// A browse answers with many references for each node.
const BROWSES_MAX: usize = 100;
/// No server samples slower than this at its fastest; one that says so means something else.
const SAMPLING_MIN_MAX: Duration = Duration::from_secs(60);

/// Operations in one request, by service; never 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    pub(crate) reads: usize,
    pub(crate) browses: usize,
    pub(crate) items: usize,
    /// Faster than this nothing is sampled.
    pub(crate) sampling_min: Duration,
}

impl Session {
    /// What fits into one request.
    ///
    /// # Errors
    /// When the connection broke; a server that does not tell is taken to have no limits.
    pub(crate) async fn limits(&self) -> Result<Limits, Error> {
        self.limits
            .get_or_try_init(|| self.ask_limits())
            .await
            .copied()
    }

    async fn ask_limits(&self) -> Result<Limits, Error> {
        let nodes = LIMITS.map(str::to_owned);
        let mut told = Vec::with_capacity(nodes.len());
        match self.read_once(&nodes).await {
            Ok(samples) => told.extend(samples.into_iter().map(|sample| sample.value)),
            Err(error) if error.is_broken_connection() => return Err(error),
            // Four may be too many already.
            Err(error) if error.status() == Some(status::BAD_TOO_MANY_OPERATIONS) => {
                for node in nodes {
                    let mut samples = self.read_once(&[node]).await?;
                    told.push(samples.pop().map_or(Value::Null, |sample| sample.value));
                }
            }
            Err(error) => tracing::debug!(%error, "the server does not tell its limits"),
        }
        let limits = Limits::told(&told);
        tracing::debug!(?limits, "what the server takes in one request");
        Ok(limits)
    }
}

impl Limits {
    fn told(values: &[Value]) -> Self {
        let [reads, browses, items, sampling] = std::array::from_fn(|index| values.get(index));
        // 0 is "no limit".
        let at_most = |value: Option<&Value>, most: usize| match value {
            Some(Value::UInt(limit @ 1..)) => usize::try_from(*limit).unwrap_or(most).min(most),
            _ => most,
        };
        let sampling_min = match sampling {
            Some(Value::Double(ms)) => Duration::try_from_secs_f64(ms / 1000.0).unwrap_or_default(),
            _ => Duration::ZERO,
        };
        Self {
            reads: at_most(reads, OPERATIONS_MAX),
            browses: at_most(browses, BROWSES_MAX),
            items: at_most(items, OPERATIONS_MAX),
            sampling_min: match sampling_min > SAMPLING_MIN_MAX {
                true => Duration::ZERO,
                false => sampling_min,
            },
        }
    }
}

/// How many operations go into the next request: what the server allows, and less where it
/// finds that too many all the same.
pub(crate) struct Portion(usize);

impl Portion {
    pub(crate) const fn new(most: usize) -> Self {
        Self(if most == 0 { 1 } else { most })
    }

    pub(crate) fn split<'a, T>(&self, rest: &'a [T]) -> (&'a [T], &'a [T]) {
        rest.split_at(self.0.min(rest.len()))
    }

    /// Whether to ask again with half of what `error` was the answer to.
    pub(crate) const fn halved(&mut self, error: &Error) -> bool {
        let too_much = matches!(
            error.status(),
            Some(
                status::BAD_TOO_MANY_OPERATIONS
                    | status::BAD_ENCODING_LIMITS_EXCEEDED
                    | status::BAD_REQUEST_TOO_LARGE
                    | status::BAD_RESPONSE_TOO_LARGE
            )
        );
        let halved = too_much && self.0 > 1;
        if halved {
            self.0 /= 2;
        }
        halved
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_may_set_limits_or_none() {
        let none = Limits::told(&[]);
        assert_eq!((none.reads, none.browses, none.items), (1_000, 100, 1_000));
        assert_eq!(none.sampling_min, Duration::ZERO);
        let small = Limits::told(&[
            Value::UInt(20),
            Value::UInt(0),
            Value::UInt(u64::MAX),
            Value::Double(250.0),
        ]);
        assert_eq!((small.reads, small.browses, small.items), (20, 100, 1_000));
        assert_eq!(small.sampling_min, Duration::from_millis(250));
        for nonsense in [-1.0, f64::NAN, 1e12] {
            let values = [
                Value::Null,
                Value::Null,
                Value::Null,
                Value::Double(nonsense),
            ];
            assert_eq!(Limits::told(&values).sampling_min, Duration::ZERO);
        }
    }

    #[test]
    fn a_portion_shrinks_to_one_and_then_the_error_stands() {
        let error = Error::Service {
            step: "reading",
            status: status::BAD_TOO_MANY_OPERATIONS,
            detail: String::new(),
        };
        let mut portion = Portion::new(3);
        assert!(portion.halved(&error));
        assert_eq!(portion.split(&[1, 2, 3]).0, [1]);
        assert!(!portion.halved(&error));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn the_server_is_asked_and_kept_to() {
        use skerry_simulation::opcua_server::{OpcuaServer, Quirks, TagValue};
        let directory = tempfile::tempdir().unwrap();
        let tags = (0..20).map(|number| (format!("tag{number}"), TagValue::Count(number)));
        let quirks = Quirks {
            operations_max: Some(3),
            ..Quirks::default()
        };
        let start = OpcuaServer::start_odd(0, directory.path(), tags.collect(), quirks);
        let server = start.await.unwrap();
        let visit = crate::opcua::Visit::new(server.url().parse().unwrap());
        let session = visit.session().await.unwrap();
        let limits = session.limits().await.unwrap();
        assert_eq!((limits.reads, limits.browses, limits.items), (3, 3, 3));
        let nodes: Vec<String> = (0..20)
            .map(|number| format!("ns=2;s=tag{number}"))
            .collect();
        let values = session.read(&nodes).await.unwrap();
        assert_eq!((values.len(), &values[19].value), (20, &Value::Int(19)));
        let error = session.read_once(&nodes).await.unwrap_err();
        assert_eq!(error.status(), Some(status::BAD_TOO_MANY_OPERATIONS));
        session.leave(false).await;
    }
}
