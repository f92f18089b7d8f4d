//! CONNECT → who this is and what was agreed, or the refusal to send. Pure.

use crate::codec::{
    ConnAckProperties, Connect, Malformed, Outgoing, Publish, Terms, Version, reason,
};
use crate::config::{Config, IN_FLIGHT_DEFAULT, IN_FLIGHT_MAX, TOPIC_ALIAS_MAX, UNCOMMITTED_MAX};
use std::num::NonZeroU16;
use std::time::Duration;

/// Return codes of a 3.1.1 CONNACK (3.2.2.3).
mod code {
    pub(super) const LEVEL: u8 = 0x01;
    pub(super) const CLIENT_ID: u8 = 0x02;
    pub(super) const UNAVAILABLE: u8 = 0x03;
    pub(super) const BAD_LOGIN: u8 = 0x04;
    pub(super) const NOT_AUTHORIZED: u8 = 0x05;
}

/// What CONNECT agreed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Agreed {
    pub version: Version,
    pub client_id: String,
    assigned: bool,
    pub clean: bool,
    /// How long the session outlives its connection; zero ends it with the connection.
    pub session_expiry: Duration,
    /// Silence after which the client counts as gone: one and a half times the keep-alive.
    pub silence_max: Option<Duration>,
    /// The keep-alive that holds instead of the one the client asked for.
    server_keep_alive_secs: Option<u16>,
    pub will: Option<Publish>,
    /// How long the will waits for its client to come back.
    pub will_delay: Duration,
    /// Unacknowledged deliveries the client takes.
    pub in_flight_max: u16,
    /// Largest packet the client takes.
    pub packet_bytes_max: usize,
    /// Topic aliases the client takes.
    pub topic_alias_maximum: u16,
    wants_reasons: bool,
    requested_expiry_secs: u32,
}

/// Why CONNECT is refused; both versions have a word for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    ClientId,
    AuthMethod,
    WillNotAllowed,
    /// Unknown user or wrong password; which of the two, the client is not told.
    BadLogin,
    /// Nobody may connect from there without a login, or the login is no longer one.
    NotAuthorized,
    /// Too many failed logins of late.
    Throttled,
    /// As many connections from there as may be.
    TooMany,
    /// Connections from there come too fast.
    TooFast,
    /// The seat, the catalog or a turn to log in could not be had in time.
    Unavailable,
}

impl Refused {
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::ClientId => "client_id",
            Self::AuthMethod => "auth_method",
            Self::WillNotAllowed => "will_not_allowed",
            Self::BadLogin => "bad_login",
            Self::NotAuthorized => "not_authorized",
            Self::Throttled => "login_throttled",
            Self::TooMany => "connections_per_address",
            Self::TooFast => "connects_per_second",
            Self::Unavailable => "unavailable",
        }
    }

    pub(crate) fn connack(self, version: Version) -> Outgoing {
        let code = match (version, self) {
            (Version::V311, Self::ClientId) => code::CLIENT_ID,
            (Version::V311, Self::BadLogin) => code::BAD_LOGIN,
            (
                Version::V311,
                Self::AuthMethod | Self::WillNotAllowed | Self::NotAuthorized | Self::Throttled,
            ) => code::NOT_AUTHORIZED,
            (Version::V311, Self::TooMany | Self::TooFast | Self::Unavailable) => code::UNAVAILABLE,
            (Version::V5, Self::ClientId) => reason::CLIENT_ID_INVALID,
            (Version::V5, Self::AuthMethod) => reason::BAD_AUTH_METHOD,
            (Version::V5, Self::WillNotAllowed | Self::NotAuthorized) => reason::NOT_AUTHORIZED,
            (Version::V5, Self::BadLogin) => reason::BAD_USER_OR_PASSWORD,
            (Version::V5, Self::Throttled) => reason::BANNED,
            (Version::V5, Self::TooMany) => reason::QUOTA_EXCEEDED,
            (Version::V5, Self::TooFast) => reason::CONNECTION_RATE_EXCEEDED,
            (Version::V5, Self::Unavailable) => reason::SERVER_BUSY,
        };
        Outgoing::ConnAck {
            session_present: false,
            code,
            properties: Box::default(),
        }
    }
}

/// The answer to bytes that are no CONNECT, where one is due: in version 5, or to a version this
/// node does not speak, in the words of the version closest to it. Another broker that bridges to
/// this one sets the level's highest bit, and takes the answer of 3.1.1 as a hint not to.
pub(crate) fn answer_to_malformed(
    malformed: Malformed,
    version: Option<Version>,
) -> Option<(Outgoing, Version)> {
    let (code, version) = match (malformed, version) {
        (Malformed::ProtocolLevel(0..=4 | 0x80..), _) => (code::LEVEL, Version::V311),
        (Malformed::ProtocolLevel(_), _) => (reason::UNSUPPORTED_VERSION, Version::V5),
        (_, Some(Version::V5)) => (malformed.reason(), Version::V5),
        (_, Some(Version::V311) | None) => return None,
    };
    let why = match malformed {
        Malformed::ProtocolLevel(_) => None,
        _ => Some(malformed.to_string()),
    };
    let refusal = Outgoing::ConnAck {
        session_present: false,
        code,
        properties: Box::new(ConnAckProperties {
            reason_string: why,
            ..ConnAckProperties::default()
        }),
    };
    Some((refusal, version))
}

/// `fresh_id` is used where the client leaves its name to us. Who the client is shows later.
pub(crate) fn agree(
    connect: Connect,
    config: &Config,
    fresh_id: impl FnOnce() -> String,
) -> Result<Agreed, Refused> {
    let Connect {
        version,
        client_id,
        must_name_itself,
        clean,
        keep_alive_secs,
        will,
        will_delay_secs,
        credentials: _,
        properties,
    } = connect;
    if properties.auth_method.is_some() {
        return Err(Refused::AuthMethod);
    }
    let assigned = client_id.is_empty();
    if assigned && version == Version::V311 && (must_name_itself || !clean) {
        return Err(Refused::ClientId);
    }
    let requested_expiry_secs = match version {
        Version::V311 if clean => 0,
        // 3.1.1 knows no expiry; "as long as possible" is what it means.
        Version::V311 => u32::MAX,
        Version::V5 => properties.session_expiry_secs.unwrap_or(0),
    };
    let requested_expiry = Duration::from_secs(requested_expiry_secs.into());
    let in_flight_max = match version {
        Version::V311 => IN_FLIGHT_DEFAULT,
        Version::V5 => properties
            .receive_maximum
            .unwrap_or(u16::MAX)
            .min(IN_FLIGHT_MAX),
    };
    let packet_bytes_max = properties.packet_bytes_max.map_or(usize::MAX, |bytes| {
        usize::try_from(bytes).unwrap_or(usize::MAX)
    });
    let keep_alive_max = config.keep_alive_max.map_or(0, NonZeroU16::get);
    // Zero is "for ever", in the client's wish as in our limit.
    let is_longer = keep_alive_max > 0 && !(1..=keep_alive_max).contains(&keep_alive_secs);
    // A 3.1.1 client cannot be told, so its own holds.
    let server_keep_alive_secs = (is_longer && version == Version::V5).then_some(keep_alive_max);
    let keep_alive_secs = server_keep_alive_secs.unwrap_or(keep_alive_secs);
    let keep_alive = Duration::from_secs(keep_alive_secs.into());
    Ok(Agreed {
        version,
        client_id: if assigned { fresh_id() } else { client_id },
        assigned,
        clean,
        session_expiry: requested_expiry.min(config.session_expiry_max),
        silence_max: (keep_alive_secs > 0).then(|| keep_alive + keep_alive / 2),
        server_keep_alive_secs,
        will,
        will_delay: Duration::from_secs(will_delay_secs.into()),
        in_flight_max,
        packet_bytes_max,
        topic_alias_maximum: properties.topic_alias_maximum.unwrap_or(0),
        wants_reasons: properties.wants_reasons.unwrap_or(true),
        requested_expiry_secs,
    })
}

impl Agreed {
    /// A will that could never be published is refused while somebody hears it.
    pub(crate) fn check_will(&self, may_publish: impl Fn(&str) -> bool) -> Result<(), Refused> {
        match &self.will {
            Some(will) if !may_publish(&will.topic) => Err(Refused::WillNotAllowed),
            _ => Ok(()),
        }
    }

    /// Whether the session outlives the connection: only then its QoS 2 ids have to be on disk.
    pub(crate) const fn is_lasting(&self) -> bool {
        !self.session_expiry.is_zero()
    }

    /// What the client takes.
    pub(crate) const fn terms(&self) -> Terms {
        Terms {
            packet_bytes_max: self.packet_bytes_max,
            wants_reasons: self.wants_reasons,
        }
    }

    /// DISCONNECT may shorten or lengthen a session's life, but not begin one (3.14.2.2.2).
    pub(crate) fn change_expiry(&mut self, secs: u32, longest: Duration) -> Result<(), Malformed> {
        if secs > 0 && self.requested_expiry_secs == 0 {
            return Err(Malformed::SessionExpiry);
        }
        self.session_expiry = Duration::from_secs(secs.into()).min(longest);
        Ok(())
    }

    /// The accepting CONNACK. It announces what differs from the standard's defaults.
    pub(crate) fn connack(&self, session_present: bool, config: &Config) -> Outgoing {
        let granted_secs = u32::try_from(self.session_expiry.as_secs()).unwrap_or(u32::MAX);
        let properties = ConnAckProperties {
            session_expiry_secs: (granted_secs != self.requested_expiry_secs)
                .then_some(granted_secs),
            receive_maximum: Some(UNCOMMITTED_MAX),
            packet_bytes_max: u32::try_from(config.packet_bytes_max).ok(),
            server_keep_alive_secs: self.server_keep_alive_secs,
            assigned_client_id: self.assigned.then(|| self.client_id.clone()),
            topic_alias_maximum: TOPIC_ALIAS_MAX,
            reason_string: None,
        };
        Outgoing::ConnAck {
            session_present,
            code: 0,
            properties: Box::new(properties),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{ConnectProperties, Credentials};
    use skerry_store::StreamName;

    fn config() -> Config {
        let stream = StreamName::new("default").expect("a name");
        Config::new(([127, 0, 0, 1], 0).into(), stream)
    }

    fn connect(version: Version, client_id: &str, clean: bool) -> Connect {
        Connect {
            version,
            client_id: client_id.into(),
            must_name_itself: false,
            clean,
            keep_alive_secs: 10,
            will: None,
            will_delay_secs: 0,
            credentials: Credentials::default(),
            properties: ConnectProperties::default(),
        }
    }

    fn try_agree(connect: Connect) -> Result<Agreed, Refused> {
        let agreed = agree(connect, &config(), || "fresh".into())?;
        agreed.check_will(|topic| topic != "no")?;
        Ok(agreed)
    }

    #[test]
    fn an_empty_client_id_gets_one_or_is_refused() {
        let agreed = try_agree(connect(Version::V311, "", true)).expect("clean");
        assert_eq!(agreed.client_id, "fresh");
        assert_eq!(
            try_agree(connect(Version::V311, "", false)),
            Err(Refused::ClientId)
        );
        let old = Connect {
            must_name_itself: true,
            ..connect(Version::V311, "", true)
        };
        assert_eq!(try_agree(old), Err(Refused::ClientId), "3.1");
        let agreed = try_agree(connect(Version::V5, "", false)).expect("version 5");
        match agreed.connack(false, &config()) {
            Outgoing::ConnAck { properties, .. } => {
                assert_eq!(properties.assigned_client_id.as_deref(), Some("fresh"));
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn keep_alive_is_stretched_and_zero_turns_it_off() {
        let agreed = try_agree(connect(Version::V311, "a", true)).expect("fine");
        assert_eq!(agreed.silence_max, Some(Duration::from_secs(15)));
        let quiet = Connect {
            keep_alive_secs: 0,
            ..connect(Version::V311, "a", true)
        };
        assert_eq!(try_agree(quiet).expect("fine").silence_max, None);
    }

    #[test]
    fn a_keep_alive_that_is_too_long_is_shortened_where_the_client_can_be_told() {
        let mut config = config();
        config.keep_alive_max = NonZeroU16::new(60);
        for (version, asked, told, silence_secs) in [
            (Version::V5, 120, Some(60), Some(90)),
            (Version::V5, 0, Some(60), Some(90)),
            (Version::V5, 60, None, Some(90)),
            (Version::V5, 10, None, Some(15)),
            (Version::V311, 120, None, Some(180)),
            (Version::V311, 0, None, None),
        ] {
            let asking = Connect {
                keep_alive_secs: asked,
                ..connect(version, "a", true)
            };
            let agreed = agree(asking, &config, String::new).expect("fine");
            assert_eq!(agreed.silence_max, silence_secs.map(Duration::from_secs));
            match agreed.connack(false, &config) {
                Outgoing::ConnAck { properties, .. } => {
                    assert_eq!(
                        properties.server_keep_alive_secs, told,
                        "{version:?} {asked}"
                    );
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn what_a_will_and_a_client_ask_for_is_carried() {
        let mut asking = connect(Version::V5, "a", true);
        asking.will_delay_secs = 7;
        asking.properties.topic_alias_maximum = Some(3);
        asking.properties.wants_reasons = Some(false);
        asking.properties.packet_bytes_max = Some(100);
        let agreed = try_agree(asking).expect("fine");
        assert_eq!(agreed.will_delay, Duration::from_secs(7));
        assert_eq!(agreed.topic_alias_maximum, 3);
        let terms = Terms {
            packet_bytes_max: 100,
            wants_reasons: false,
        };
        assert_eq!(agreed.terms(), terms);
    }

    #[test]
    fn disconnect_changes_the_expiry_of_lasting_sessions_only() {
        let longest = config().session_expiry_max;
        let mut lasting = connect(Version::V5, "a", true);
        lasting.properties.session_expiry_secs = Some(5);
        let mut lasting = try_agree(lasting).expect("fine");
        assert_eq!(lasting.change_expiry(u32::MAX, longest), Ok(()));
        assert_eq!(lasting.session_expiry, longest);
        assert_eq!(lasting.change_expiry(0, longest), Ok(()));
        assert!(!lasting.is_lasting());
        let mut ending = try_agree(connect(Version::V5, "a", true)).expect("fine");
        assert_eq!(ending.change_expiry(0, longest), Ok(()));
        let refused = Err(Malformed::SessionExpiry);
        assert_eq!(ending.change_expiry(1, longest), refused);
    }

    #[test]
    fn sessions_last_as_asked_and_as_allowed() {
        assert!(
            !try_agree(connect(Version::V311, "a", true))
                .expect("fine")
                .is_lasting()
        );
        assert!(
            try_agree(connect(Version::V311, "a", false))
                .expect("fine")
                .is_lasting()
        );
        let mut long = connect(Version::V5, "a", false);
        assert!(!try_agree(long.clone()).expect("fine").is_lasting());
        long.properties.session_expiry_secs = Some(u32::MAX);
        let agreed = try_agree(long).expect("fine");
        assert_eq!(agreed.session_expiry, config().session_expiry_max);
    }

    #[test]
    fn what_is_not_supported_is_refused() {
        let mut authenticated = connect(Version::V5, "a", true);
        authenticated.properties.auth_method = Some("SCRAM-SHA-1".into());
        assert_eq!(try_agree(authenticated), Err(Refused::AuthMethod));
        let will = Publish {
            topic: "no".into(),
            ..Publish::default()
        };
        let willed = Connect {
            will: Some(will),
            ..connect(Version::V5, "a", true)
        };
        assert_eq!(try_agree(willed), Err(Refused::WillNotAllowed));
    }

    #[test]
    fn each_version_hears_of_a_refusal_in_its_own_words() {
        for (refused, old, new) in [
            (Refused::BadLogin, 0x04, 0x86),
            (Refused::NotAuthorized, 0x05, 0x87),
            (Refused::Throttled, 0x05, 0x8A),
            (Refused::TooMany, 0x03, 0x97),
            (Refused::TooFast, 0x03, 0x9F),
        ] {
            for (version, expected) in [(Version::V311, old), (Version::V5, new)] {
                match refused.connack(version) {
                    Outgoing::ConnAck { code, .. } => assert_eq!(code, expected, "{refused:?}"),
                    other => panic!("{other:?}"),
                }
            }
        }
    }
}
