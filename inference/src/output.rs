//! Which number of a model's answer is its score.

use serde::{Deserialize, Serialize};

/// As configured; what is left out follows from the model, or the model is refused with what
/// there is to choose from.
///
/// By itself a regressor's score is its number, that of a classifier of two classes the
/// probability of the second, and that of an isolation forest its decision score.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Output {
    /// The graph's output that the score is in.
    pub name: Option<String>,
    pub pick: Pick,
}

/// Which number of that output.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Pick {
    #[default]
    Default,
    /// Counted from 0, row by row.
    Index(usize),
    /// A classifier's number for this class.
    Class(String),
}
