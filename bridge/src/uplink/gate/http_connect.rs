//! The client's side of HTTP CONNECT (RFC 9110, 9.3.6), with a Basic login where one is given.

use super::socks::Target;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// No proxy has that much to say.
const ANSWER_BYTES_MAX: usize = 16 * 1024;

/// A conversation that came to nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("it hung up")]
    HungUp,
    #[error("it does not speak HTTP: it answered {0:?}")]
    NotHttp(String),
    #[error("{0}")]
    Refused(String),
}

/// Has the proxy at the other end of `stream` connect to `target`.
pub(super) async fn connect<S>(
    stream: &mut S,
    target: &Target,
    login: Option<(&str, &str)>,
) -> Result<(), Failure>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n");
    if let Some((user, password)) = login {
        let login = STANDARD.encode(format!("{user}:{password}"));
        request.push_str(&format!("Proxy-Authorization: Basic {login}\r\n"));
    }
    request.push_str("\r\n");
    stream.write_all(request.as_bytes()).await?;
    let answer = read_head(stream).await?;
    judge(&answer, login.is_some())
}

/// Up to the empty line and not a byte further: what follows is the broker's. One at a time, but
/// there are a hundred or two, once per connection.
async fn read_head<S: AsyncRead + Unpin>(stream: &mut S) -> Result<String, Failure> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") && !head.ends_with(b"\n\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => match head.is_empty() {
                true => return Err(Failure::HungUp),
                // Whoever hangs up after the first line has said enough.
                false => break,
            },
            Err(error) => return Err(error.into()),
        }
        if head.len() >= ANSWER_BYTES_MAX {
            break;
        }
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

fn judge(answer: &str, logged_in: bool) -> Result<(), Failure> {
    let line = answer.lines().next().unwrap_or_default();
    let not_http = || Failure::NotHttp(line.chars().take(80).collect());
    let status = line.strip_prefix("HTTP/1.").and_then(|it| it.get(2..));
    let status = status.ok_or_else(not_http)?.trim();
    let code = status.split(' ').next().and_then(|code| code.parse().ok());
    let complete = answer.ends_with("\n\n") || answer.ends_with("\r\n\r\n");
    let advice = match code.ok_or_else(not_http)? {
        200..=299 if complete => return Ok(()),
        200..=299 => "but then it hung up",
        // Some answer a wrong login as a web server would.
        401 | 407 if logged_in => "is proxy_user right, and what proxy_password_file holds?",
        401 | 407 => "give proxy_user and proxy_password_file",
        403 | 405 => "it must allow CONNECT to this broker and port",
        400..=499 => "see the proxy's own log",
        _ => "the proxy could not reach the broker",
    };
    Err(Failure::Refused(format!("{status}; {advice}")))
}

#[cfg(test)]
mod tests {
    use super::super::socks::Host;
    use super::*;

    /// What a proxy that answers `answer` hears, what we make of it, and what is left unread.
    async fn asked(
        answer: &str,
        login: Option<(&str, &str)>,
    ) -> (String, Result<(), String>, String) {
        let (mut near, mut far) = tokio::io::duplex(4096);
        let host = Host::Name("kafka".to_owned());
        far.write_all(answer.as_bytes()).await.unwrap();
        far.shutdown().await.unwrap();
        let outcome = connect(&mut near, &Target { host, port: 9093 }, login).await;
        let mut rest = String::new();
        near.read_to_string(&mut rest).await.unwrap();
        drop(near);
        let mut heard = String::new();
        far.read_to_string(&mut heard).await.unwrap();
        (heard, outcome.map_err(|why| why.to_string()), rest)
    }

    #[tokio::test]
    async fn the_login_is_given_and_the_brokers_bytes_are_left() {
        let answer = "HTTP/1.1 200 Connection established\r\nVia: x\r\n\r\nhello";
        let (heard, outcome, rest) = asked(answer, Some(("user", "pass:word"))).await;
        assert_eq!((outcome, rest.as_str()), (Ok(()), "hello"));
        let basic = "Proxy-Authorization: Basic dXNlcjpwYXNzOndvcmQ=\r\n";
        assert_eq!(
            heard,
            format!("CONNECT kafka:9093 HTTP/1.1\r\nHost: kafka:9093\r\n{basic}\r\n")
        );
        let (heard, ..) = asked("HTTP/1.0 200 OK\r\n\r\n", None).await;
        assert!(!heard.contains("Authorization"), "{heard}");
    }

    #[tokio::test]
    async fn a_refusal_is_told_with_what_to_do() {
        let login = Some(("user", "password"));
        for (answer, login, told) in [
            (
                "HTTP/1.1 407 Proxy Authentication Required\r\n\r\n",
                None,
                "407 Proxy Authentication Required; give proxy_user",
            ),
            ("HTTP/1.1 407 Auth\r\n\r\n", login, "is proxy_user right"),
            (
                "HTTP/1.1 401 Unauthorized\r\n\r\n",
                login,
                "is proxy_user right",
            ),
            ("HTTP/1.1 403 Forbidden\r\n\r\n", None, "must allow CONNECT"),
            ("HTTP/1.1 502 Bad Gateway\r\n\r\n", None, "could not reach"),
            ("HTTP/1.1 403 Forbidden", None, "must allow CONNECT"),
            ("HTTP/1.1 200 OK\r\nVia: ", None, "hung up"),
            ("SSH-2.0-OpenSSH_9.2\r\n", None, "not speak HTTP"),
            ("\u{5}\u{ff}", None, "not speak HTTP"),
            ("", None, "hung up"),
        ] {
            let (_, outcome, _) = asked(answer, login).await;
            let why = outcome.unwrap_err();
            assert!(why.contains(told), "{answer}: {why}");
        }
    }
}
