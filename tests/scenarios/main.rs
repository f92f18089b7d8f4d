//! The node on real parts, one story each. `tests/run` prepares everything and runs this.

use skerry_tests::runner::{self, Scenario};

fn main() -> std::process::ExitCode {
    let scenarios: Vec<Scenario> = vec![];
    runner::main(&scenarios)
}
