//! Who is let in as whom: what a running broker on loopback alone cannot show.

use super::audit::{Event, What};
use super::*;
use crate::codec::Credentials;
use crate::config::Config;
use crate::handshake::Refused;
use crate::peer::{CertificateNames, Peer};
use crate::status::Status;
use bytes::Bytes;
use skerry_store::StreamName;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(10);

fn guard(tweak: impl FnOnce(&mut Config)) -> Arc<Guard> {
    let stream = StreamName::new("default").expect("a name");
    let mut config = Config::new(([127, 0, 0, 1], 0).into(), stream);
    tweak(&mut config);
    Guard::new(&config, Arc::<Status>::default()).expect("no files, no problems")
}

fn peer(address: Option<&str>) -> Peer {
    Peer {
        address: address.map(|ip| (ip.parse::<IpAddr>().expect("an address"), 1883).into()),
        certificate: None,
    }
}

fn certified(common: Option<&str>, alternative: &[&str]) -> Peer {
    let names = CertificateNames {
        common: common.map(str::to_owned),
        alternative: alternative.iter().map(|name| (*name).to_owned()).collect(),
    };
    Peer {
        certificate: Some(names),
        ..peer(Some("10.0.0.7"))
    }
}

fn with_user(user: &str) -> Credentials {
    Credentials {
        user: Some(user.to_owned()),
        password: Bytes::from_static(b"x"),
    }
}

async fn user_of(
    guard: &Guard,
    peer: &Peer,
    credentials: Credentials,
) -> Result<Option<String>, Refused> {
    let identity = guard.log_in(peer, "c", credentials, PATIENCE).await?;
    Ok(identity.user.map(String::from))
}

#[tokio::test]
async fn without_a_user_name_it_depends_on_where_from() {
    let near = [Some("127.0.0.1"), Some("127.8.8.8"), Some("::1"), None];
    let far = [Some("10.0.0.7"), Some("::ffff:10.0.0.7"), Some("fe80::1")];
    for (anonymous, near_may, far_may) in [
        (Anonymous::Loopback, true, false),
        (Anonymous::Always, true, true),
        (Anonymous::Never, false, false),
    ] {
        let guard = guard(|config| config.access.anonymous = anonymous);
        let expected = |may| match may {
            true => Ok(None),
            false => Err(Refused::NotAuthorized),
        };
        for (addresses, may) in [(&near[..], near_may), (&far[..], far_may)] {
            for address in addresses {
                let peer = peer(*address);
                let nameless = user_of(&guard, &peer, Credentials::default()).await;
                assert_eq!(nameless, expected(may), "{anonymous:?} {address:?}");
                // Nobody can check the name, so it is none.
                let named = user_of(&guard, &peer, with_user("ada")).await;
                assert_eq!(named, expected(may), "{anonymous:?} {address:?}");
            }
        }
    }
    let (guard, mapped) = (guard(|_| {}), peer(Some("::ffff:127.0.0.1")));
    let mapped = user_of(&guard, &mapped, Credentials::default());
    assert_eq!(mapped.await, Ok(None), "loopback in IPv6's clothes");
}

#[tokio::test]
async fn a_certificate_s_name_needs_no_password_where_it_counts() {
    let full = certified(Some("press-4"), &["press-4.plant", "other"]);
    let empty = certified(None, &[]);
    for (identity, expected, without_names) in [
        (
            CertificateIdentity::CommonName,
            Ok(Some("press-4")),
            Err(Refused::NotAuthorized),
        ),
        (
            CertificateIdentity::AlternativeName,
            Ok(Some("press-4.plant")),
            Err(Refused::NotAuthorized),
        ),
        (CertificateIdentity::None, Ok(None), Ok(None)),
    ] {
        let guard = guard(|config| {
            config.access.identity = identity;
            config.access.anonymous = Anonymous::Always;
        });
        let expected = expected.map(|user: Option<&str>| user.map(str::to_owned));
        let got = user_of(&guard, &full, with_user("somebody-else")).await;
        assert_eq!(got, expected, "{identity:?}");
        let got = user_of(&guard, &empty, Credentials::default()).await;
        assert_eq!(got, without_names, "{identity:?}");
    }
}

#[test]
fn turned_away_connections_are_bounded_and_places_given_back() {
    let guard = guard(|config| config.limits.connections_per_address = Some(1));
    let from = peer(Some("10.0.0.7")).address;
    let first = guard.admit(from).expect("a place");
    assert_eq!(first.refused(), None);
    let mut turned_away = Vec::new();
    while let Some(admission) = guard.admit(from) {
        assert_eq!(admission.refused(), Some(Refused::TooMany));
        turned_away.push(admission);
        assert!(turned_away.len() < 1000, "no bound");
    }
    assert_eq!(turned_away.len(), 64);
    drop((first, turned_away));
    let again = guard.admit(from).expect("a place");
    assert_eq!(again.refused(), None);
    assert!(
        guard
            .admit(None)
            .is_some_and(|unix| unix.refused().is_none())
    );
}

#[test]
fn an_event_says_what_there_is_and_nothing_else() {
    let event = Event {
        client: Some("c".into()),
        user: Some("ada".into()),
        ..Event::new(
            What::LoginRefused,
            "wrong_password",
            Some([10, 0, 0, 7].into()),
        )
    };
    let expected = serde_json::json!({
        "event": "login_refused", "reason": "wrong_password", "client": "c", "user": "ada",
        "address": "10.0.0.7",
    });
    assert_eq!(serde_json::json!(event), expected);
}
