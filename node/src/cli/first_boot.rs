//! `skerry first-boot`: its arguments, and what belongs on a stick.

use clap::Args;
use std::path::PathBuf;

const ON_THE_STICK: &str = "\
On the stick (or boot partition), in the folder skerry:
  skerry.toml       the node's configuration, as `skerry run` reads it. {machine}, {hostname},
                    {serial}, {mac} and every column of nodes.csv stand for what this box has there
  nodes.csv         if one stick is for many boxes: a line for each, its columns named in the first:
                      which,name,line
                      b8:27:eb:01:02:03,press-1,hall-1
                      b8:27:eb:0a:0b:0c,press-2,hall-2
                    `which` is a MAC address, the serial number or {machine} of a box, its host
                    name, or * for any box that has no line of its own
  credentials/      passwords and keys, each a file that skerry.toml names as \"credential:FILE\"
  other files       certificates, models, an ACL, which skerry.toml names as \"FILE\"

Of both, a box takes over only what its own skerry.toml names: \"credential:{name}.key\" is the key
of this node, and those of others stay on the stick.

All of it is checked as by `skerry check` before any of it is taken over. What came of it is printed
and, where the stick can be written to, told in skerry-result.txt on it.

Exit code: 0 set up, nothing to do, or configured otherwise before; 1 not possible on this box; 2 what is on the stick is wrong.";

#[derive(Debug, Args)]
#[command(after_help = ON_THE_STICK)]
pub struct FirstBoot {
    /// Where to look, in this order: the first folder with a skerry.toml counts
    #[arg(long, value_name = "DIR", required = true, num_args = 1..)]
    pub from: Vec<PathBuf>,
    /// The folder of the node's configuration
    #[arg(long, value_name = "DIR", default_value = "/etc/skerry")]
    pub into: PathBuf,
    /// Replace a configuration that is there; it is kept as skerry.toml.old
    #[arg(long)]
    pub replace: bool,
    /// A configuration that is the same as this example has never been touched, and is replaced
    #[arg(long, value_name = "FILE")]
    pub example: Option<PathBuf>,
    /// Have systemd hand the credentials to the node: the drop-in of its unit to write
    #[arg(long, value_name = "FILE")]
    pub drop_in: Option<PathBuf>,
    /// Remove the credentials from where they were once they are taken over
    #[arg(long)]
    pub remove_credentials: bool,
    /// Have systemd read its units anew and start this one, once all is in place
    #[arg(long, value_name = "UNIT")]
    pub then_start: Option<String>,
    /// Another root than /, to learn from what box this is
    #[arg(long, value_name = "DIR", default_value = "/", hide = true)]
    pub root: PathBuf,
}
