//! A node of the test's own, on a port of its own.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

pub(crate) fn config(directory: &Path, port: u16) -> String {
    let directory = directory.display();
    format!(
        "[node]\nname = \"test\"\ndata_dir = \"{directory}\"\nallow_volatile = true\n\
         [http]\nlisten = \"127.0.0.1:{port}\"\n\
         [mqtt]\nlisten = \"127.0.0.1:0\"\n"
    )
}

pub(crate) struct Node {
    process: Child,
    pub(crate) address: String,
    _config: tempfile::TempDir,
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

pub(crate) fn node_on(directory: &Path) -> Node {
    let (place, port) = (tempfile::tempdir().unwrap(), free_port());
    let file = place.path().join("skerry.toml");
    std::fs::write(&file, config(directory, port)).unwrap();
    let process = Command::new(env!("CARGO_BIN_EXE_skerry"))
        .arg("run")
        .arg(&file)
        .env("SKERRY_LOG", "off")
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let node = Node {
        process,
        address: format!("127.0.0.1:{port}"),
        _config: place,
    };
    let deadline = Instant::now() + Duration::from_secs(30);
    while !ready(&node.address) {
        assert!(Instant::now() < deadline, "the node does not start");
        std::thread::sleep(Duration::from_millis(50));
    }
    node
}

fn ready(address: &str) -> bool {
    let answer = ureq::get(format!("http://{address}/readyz")).call();
    answer.is_ok_and(|answer| answer.status() == 200)
}
