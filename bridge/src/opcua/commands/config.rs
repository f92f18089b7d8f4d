//! What clients may have done, as an operator listed it.

use crate::opcua::address::NodeAddress;
use skerry_store::StreamName;
use std::fmt;
use std::time::Duration;

/// [`Command::max_age`] where nobody says otherwise: about as long as whoever pressed a button
/// looks at the machine for what comes of it.
pub const COMMAND_AGE_MAX: Duration = Duration::from_secs(30);
/// Results of a command go to its topic with this behind it.
const RESULT: &str = "/result";

/// The commands of one endpoint; what is not listed cannot be done.
#[derive(Debug, Clone, PartialEq)]
pub struct Commands {
    /// Where each of them is recorded before and after.
    pub audit: StreamName,
    pub list: Vec<Command>,
}

/// One topic and what a message to it does.
#[derive(Debug, Clone, PartialEq)]
pub struct Command {
    /// Exactly this one. Who may publish to it is the broker's to say.
    pub topic: String,
    /// The stream that messages to it are routed to.
    pub stream: StreamName,
    /// The same of its results.
    pub results: StreamName,
    pub action: Action,
    /// One that is older when it could be sent is not.
    pub max_age: Duration,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    Write {
        node: NodeAddress,
        limits: Limits,
    },
    Call {
        object: NodeAddress,
        method: NodeAddress,
    },
    /// Acknowledges an alarm; which one, the message says.
    Acknowledge,
    /// Confirms what was done about an alarm that was acknowledged.
    Confirm,
}

/// What a number that is written must lie within, both ends included.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Limits {
    pub min: Option<f64>,
    pub max: Option<f64>,
}

impl Command {
    /// Where what came of it is published.
    #[must_use]
    pub fn result_topic(&self) -> String {
        result_topic(&self.topic)
    }
}

/// Where what came of a command to `topic` is published.
#[must_use]
pub fn result_topic(topic: &str) -> String {
    format!("{topic}{RESULT}")
}

impl Limits {
    /// Whether there are any.
    #[must_use]
    pub const fn are_set(self) -> bool {
        self.min.is_some() || self.max.is_some()
    }

    /// Not for a `NaN`, which is not within anything.
    #[must_use]
    pub(crate) fn take(self, number: f64) -> bool {
        let high_enough = self.min.is_none_or(|min| number >= min);
        let low_enough = self.max.is_none_or(|max| number <= max);
        high_enough && low_enough && !(self.are_set() && number.is_nan())
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Write { node, limits } if limits.are_set() => {
                write!(f, "writes {node}, {limits}")
            }
            Self::Write { node, .. } => write!(f, "writes {node}"),
            Self::Call { object, method } => write!(f, "calls {method} of {object}"),
            Self::Acknowledge => f.write_str("acknowledges alarms"),
            Self::Confirm => f.write_str("confirms alarms"),
        }
    }
}

impl fmt::Display for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.min, self.max) {
            (Some(min), Some(max)) => write!(f, "{min} to {max}"),
            (Some(min), None) => write!(f, "at least {min}"),
            (None, Some(max)) => write!(f, "at most {max}"),
            (None, None) => f.write_str("anything"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_include_their_ends_and_no_nan() {
        let limits = Limits {
            min: Some(0.0),
            max: Some(100.0),
        };
        assert!(limits.take(0.0) && limits.take(100.0));
        assert!(!limits.take(-0.1) && !limits.take(100.1) && !limits.take(f64::NAN));
        assert!(Limits::default().take(f64::NAN));
        assert_eq!(limits.to_string(), "0 to 100");
    }
}
