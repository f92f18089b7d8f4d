//! In place of `tract` in a build without the feature `nets`.

use crate::graph::Refusal;
use crate::output::Output;
use crate::runner::Runner;

pub(crate) fn load(
    _bytes: &[u8],
    _rows: usize,
    _columns: usize,
    _output: &Output,
) -> Result<Box<dyn Runner>, Refusal> {
    let reason = "it is a net, and this program was built without them".to_owned();
    Err(Refusal::Unsupported(reason))
}
