//! Through proxies that others wrote: microsocks and tinyproxy, where they are installed.

use super::proxies::{class, login, works_through};
use super::*;
use std::process::{Child, Command, Stdio};

/// Runs until dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// The proxy, once it listens on `port`; `None`, and a word, where there is none.
async fn running(command: &mut Command, port: u16) -> Option<Running> {
    let quiet = command.stdout(Stdio::null()).stderr(Stdio::null());
    let Ok(child) = quiet.spawn() else {
        eprintln!("not run: {command:?} is not installed");
        return None;
    };
    let running = Running(child);
    let listens = async {
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port))
            .await
            .is_err()
        {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_secs(20), listens)
        .await
        .expect("the proxy listens");
    Some(running)
}

async fn free_port() -> u16 {
    broker().await.1
}

#[tokio::test]
async fn microsocks_is_logged_in_to() {
    let port = free_port().await;
    let mut command = Command::new("microsocks");
    let port_text = port.to_string();
    command.args([
        "-i",
        "127.0.0.1",
        "-p",
        &port_text,
        "-u",
        "u",
        "-P",
        "secret",
    ]);
    let Some(_proxy) = running(&mut command, port).await else {
        return;
    };
    let file = tempfile::NamedTempFile::new().unwrap();
    let url = format!("socks5://127.0.0.1:{port}");
    works_through(&World::new(class(&url, Some(login(&file, "secret\n"))))).await;
    let world = World::new(class(&url, Some(login(&file, "wrong"))));
    through(&world.ticket(1, 1), 9).await.unwrap_err();
    let told = world.snapshot().last_error.unwrap();
    assert!(
        told.contains("does not know the user or the password"),
        "{told}"
    );
    // A broker that refuses is told from a proxy that does.
    let world = World::new(class(&url, Some(login(&file, "secret"))));
    through(&world.ticket(1, 1), free_port().await)
        .await
        .unwrap_err();
    let told = world.snapshot().last_error.unwrap();
    assert!(told.contains("the broker refused the connection"), "{told}");
}

#[tokio::test]
async fn tinyproxy_is_logged_in_to() {
    let port = free_port().await;
    let config = tempfile::NamedTempFile::new().unwrap();
    let text = format!("Port {port}\nListen 127.0.0.1\nBasicAuth u secret\nMaxClients 10\n");
    std::fs::write(config.path(), text).unwrap();
    let mut command = Command::new("tinyproxy");
    command.arg("-d").arg("-c").arg(config.path());
    let Some(_proxy) = running(&mut command, port).await else {
        return;
    };
    let file = tempfile::NamedTempFile::new().unwrap();
    let url = format!("http://127.0.0.1:{port}");
    works_through(&World::new(class(&url, Some(login(&file, "secret"))))).await;
    for (login, told) in [
        (None, "407 Proxy Authentication Required; give proxy_user"),
        (Some(login(&file, "wrong")), "is proxy_user right"),
    ] {
        let world = World::new(class(&url, login));
        through(&world.ticket(1, 1), 9).await.unwrap_err();
        let why = world.snapshot().last_error.unwrap();
        assert!(why.contains(told), "{why}");
    }
}
