//! Through a proxy. The peers here are small ones of our own.

use super::*;

async fn relay(mut client: TcpStream, port: u16) {
    let mut broker = TcpStream::connect((Ipv4Addr::LOCALHOST, port))
        .await
        .unwrap();
    let _ = tokio::io::copy_bidirectional(&mut client, &mut broker).await;
}

/// A SOCKS5 proxy that knows one user, by the server that the gate has.
async fn socks_proxy() -> u16 {
    let (listener, port) = broker().await;
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let known =
                |user: &[u8], word: &[u8]| (user == b"u" && word == b"secret").then_some(());
            if let Ok(((), target)) = socks::accept(&mut client, known).await {
                socks::reply(&mut client, Reply::Succeeded).await.unwrap();
                tokio::spawn(relay(client, target.port));
            }
        }
    });
    port
}

/// An HTTP proxy that wants a login if `login` is one.
async fn http_proxy(login: Option<&'static str>) -> u16 {
    let (listener, port) = broker().await;
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(client.read_u8().await.unwrap());
            }
            let head = String::from_utf8(head).unwrap();
            if login.is_some_and(|login| !head.contains(login)) {
                let answer = b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n";
                client.write_all(answer).await.unwrap();
                continue;
            }
            let target = head.split(' ').nth(1).unwrap().to_owned();
            let port = target.rsplit(':').next().unwrap().parse().unwrap();
            client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
            tokio::spawn(relay(client, port));
        }
    });
    port
}

/// Sends and receives through the gate and `proxy`.
pub(super) async fn works_through(world: &World) {
    let (mut near, mut far) = connection(&world.ticket(1, 1)).await;
    let bytes = pattern(300_000);
    let (_, heard) = tokio::join!(near.write_all(&bytes), async {
        let mut heard = vec![0; bytes.len()];
        far.read_exact(&mut heard).await.unwrap();
        far.write_all(b"answer").await.unwrap();
        heard
    });
    let mut answer = [0; 6];
    near.read_exact(&mut answer).await.unwrap();
    assert!(heard == bytes && &answer == b"answer");
}

pub(super) fn class(url: &str, login: Option<Login>) -> LinkClass {
    let proxy = Proxy::parse(url).unwrap();
    LinkClass {
        proxy: Some(Proxy { login, ..proxy }),
        ..LinkClass::new("harbour")
    }
}

/// A login whose password is in a file.
pub(super) fn login(file: &tempfile::NamedTempFile, password: &str) -> Login {
    std::fs::write(file.path(), password).unwrap();
    Login {
        user: "u".to_owned(),
        password_file: file.path().to_owned(),
    }
}

#[tokio::test]
async fn a_socks_proxy_is_logged_in_to() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let url = format!("socks5://127.0.0.1:{}", socks_proxy().await);
    works_through(&World::new(class(&url, Some(login(&file, "secret\n"))))).await;
    let world = World::new(class(&url, Some(login(&file, "wrong"))));
    through(&world.ticket(1, 1), 9).await.unwrap_err();
    let told = world.snapshot().last_error.unwrap();
    assert!(
        told.contains("refused CONNECT 127.0.0.1:9: it does not know the user"),
        "{told}"
    );
    let world = World::new(class(&url, None));
    through(&world.ticket(1, 1), 9).await.unwrap_err();
    let told = world.snapshot().last_error.unwrap();
    assert!(told.contains("it wants a login; give proxy_user"), "{told}");
}

#[tokio::test]
async fn an_http_proxy_is_logged_in_to() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let open = format!("http://127.0.0.1:{}", http_proxy(None).await);
    works_through(&World::new(class(&open, None))).await;
    // u:secret
    let closed = http_proxy(Some("Basic dTpzZWNyZXQ=\r\n")).await;
    let url = format!("http://127.0.0.1:{closed}");
    works_through(&World::new(class(&url, Some(login(&file, "secret"))))).await;
    let world = World::new(class(&url, None));
    let why = through(&world.ticket(1, 1), 9_093).await.unwrap_err();
    assert!(why.contains("it failed"), "{why}");
    assert_eq!(
        world.snapshot().last_error.unwrap(),
        format!(
            "the proxy 127.0.0.1:{closed} refused CONNECT 127.0.0.1:9093: 407 Proxy \
             Authentication Required; give proxy_user and proxy_password_file"
        )
    );
}

/// One that takes the connection and says nothing must not hold the client for ever.
#[tokio::test]
async fn a_silent_proxy_is_given_up() {
    let (_listener, port) = broker().await;
    let class = LinkClass {
        connect_within: Duration::from_millis(300),
        ..class(&format!("http://127.0.0.1:{port}"), None)
    };
    let world = World::new(class);
    let why = through(&world.ticket(1, 1), 9).await.unwrap_err();
    assert!(why.contains("did not answer"), "{why}");
    let told = world.snapshot().last_error.unwrap();
    assert!(told.contains("127.0.0.1:9 through the proxy"), "{told}");
}
