//! A command whose component is left out: not in `--help`, and whoever types it is told why.

use super::Component;
use crate::exit::Exit;
use clap::Args;
use std::ffi::OsString;

/// Takes whatever follows such a command.
#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub struct Unheard {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    _words: Vec<OsString>,
}

impl Component {
    /// Answers its command.
    pub fn refuse_command(&self) -> Exit {
        eprintln!("skerry: {}", self.lack());
        Exit::Usage
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::component::OPCUA;
    use clap::Parser;

    #[derive(Debug, Parser)]
    enum Commands {
        Opcua(Unheard),
    }

    #[test]
    fn whatever_is_asked_of_a_command_that_is_left_out_is_refused() {
        for words in [
            &["skerry", "opcua"][..],
            &["skerry", "opcua", "--help"],
            &["skerry", "opcua", "help"],
            &["skerry", "opcua", "browse", "opc.tcp://plc:4840", "--depth"],
        ] {
            let Commands::Opcua(_) = Commands::try_parse_from(words).unwrap();
        }
        assert_eq!(OPCUA.refuse_command(), Exit::Usage);
    }
}
