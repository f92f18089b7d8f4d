//! Where the demo keeps its files, and which ports it uses.

use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};

/// Marks a folder as the demo's, so that it may be emptied at the next start.
const MARKER: &str = ".skerry-demo";

/// The shipped model, so that the demo runs from the binary alone.
const MODEL: &[u8] = include_bytes!("../../../inference/models/bearing/bearing.onnx");
const GOLDEN: &[u8] = include_bytes!("../../../inference/models/bearing/golden.json");

/// The demo's folder.
pub struct Place {
    pub directory: PathBuf,
    pub data_dir: PathBuf,
    pub config_file: PathBuf,
    pub log_file: PathBuf,
}

impl Place {
    /// Makes the folder anew: beside the program, unless `chosen`.
    ///
    /// # Errors
    /// When the folder holds something that is not the demo's, or cannot be written.
    pub fn make(chosen: Option<PathBuf>) -> io::Result<Self> {
        let directory = match chosen {
            Some(directory) => directory,
            None => beside_the_program()?,
        };
        if directory.exists() {
            let ours = directory.join(MARKER).exists();
            let empty = ours || std::fs::read_dir(&directory)?.next().is_none();
            if !empty {
                return Err(io::Error::other(format!(
                    "{} holds something that is not the demo's; name another folder with --dir",
                    directory.display()
                )));
            }
            std::fs::remove_dir_all(&directory)?;
        }
        std::fs::create_dir_all(&directory)?;
        let directory = directory.canonicalize()?;
        std::fs::write(directory.join(MARKER), "made anew at each `skerry demo`\n")?;
        Ok(Self {
            data_dir: directory.join("data"),
            config_file: directory.join("skerry.toml"),
            log_file: directory.join("node.log"),
            directory,
        })
    }

    /// Puts the shipped model and its golden cases where the config can name it.
    pub fn put_model(&self) -> io::Result<String> {
        std::fs::write(self.directory.join("bearing.onnx"), MODEL)?;
        std::fs::write(self.directory.join("bearing.golden.json"), GOLDEN)?;
        Ok("bearing.onnx".to_owned())
    }
}

fn beside_the_program() -> io::Result<PathBuf> {
    let program = std::env::current_exe()?;
    let beside = program.parent().unwrap_or_else(|| Path::new("."));
    let writable = tempfile_in(beside).is_ok();
    match writable {
        true => Ok(beside.join("skerry-demo")),
        false => Ok(std::env::current_dir()?.join("skerry-demo")),
    }
}

fn tempfile_in(directory: &Path) -> io::Result<()> {
    let probe = directory.join(format!(".skerry-demo-{}", std::process::id()));
    std::fs::write(&probe, "")?;
    std::fs::remove_file(&probe)
}

/// Ports of the loopback interface that were free a moment ago. They are fixed in the config, so
/// that the node comes back on the same ones after its crash.
pub struct Ports {
    pub mqtt: u16,
    pub http: u16,
}

impl Ports {
    pub fn choose() -> io::Result<Self> {
        let free = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
        let (mqtt, http) = (free()?, free()?);
        Ok(Self {
            mqtt: mqtt.local_addr()?.port(),
            http: http.local_addr()?.port(),
        })
    }
}
