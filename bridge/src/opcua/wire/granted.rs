//! Subscriptions as the server grants them, as far as it can be believed: our clocks run by it.

use super::vendor::{CreateSubscription, DeleteSubscriptions, StatusCode, TransferSubscriptions};
use super::{REQUEST_TIMEOUT, Session, request};
use crate::opcua::error::Error;
use std::time::Duration;

/// Values in one notification, at most: what a server sends after an outage comes in pieces
/// that fit into memory and into one append.
const NOTIFICATION_VALUES_MAX: u32 = 5_000;

/// No server publishes faster.
const INTERVAL_MIN: Duration = Duration::from_millis(1);
/// As long as a configuration can ask for.
const INTERVAL_MAX: Duration = Duration::from_secs(3_600);
/// A server that shows a sign of life less often than this, and so often was not asked for, has
/// miscounted: who believed it would not notice a dead line for hours.
const KEEP_ALIVE_MAX: Duration = Duration::from_secs(600);

/// What a subscription is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pace {
    pub(crate) publishing_interval: Duration,
    /// Publishing intervals without news after which the server says that it is alive.
    pub(crate) keep_alive_count: u32,
    /// Publishing intervals without a request from us after which it may forget the subscription.
    pub(crate) lifetime_count: u32,
    pub(crate) priority: u8,
}

/// What the server granted for a subscription.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Granted {
    pub(crate) id: u32,
    pub(crate) publishing_interval: Duration,
    pub(crate) keep_alive_count: u32,
    pub(crate) lifetime_count: u32,
}

impl Session {
    pub(crate) async fn subscribe(&self, pace: Pace) -> Result<Granted, Error> {
        let request = request!(self, CreateSubscription)
            .publishing_interval(pace.publishing_interval)
            .max_keep_alive_count(pace.keep_alive_count)
            .max_lifetime_count(pace.lifetime_count)
            .max_notifications_per_publish(NOTIFICATION_VALUES_MAX)
            .priority(pace.priority)
            .publishing_enabled(true);
        let response = self.call("creating the subscription", request).await?;
        let revised = Revised {
            id: response.subscription_id,
            interval_ms: response.revised_publishing_interval,
            keep_alive_count: response.revised_max_keep_alive_count,
            lifetime_count: response.revised_lifetime_count,
        };
        Ok(revised.granted(pace.publishing_interval, pace.keep_alive_count))
    }

    /// Takes over a subscription of an earlier session.
    pub(crate) async fn transfer(&self, subscription: u32) -> Result<(), Error> {
        let step = "taking over the subscription";
        let request = request!(self, TransferSubscriptions).subscription(subscription);
        let response = self.call(step, request).await?;
        let code = response
            .results
            .and_then(|results| results.first().map(|result| result.status_code))
            .unwrap_or(StatusCode::BadUnknownResponse);
        if code.is_bad() {
            return Err(Error::Service {
                step,
                status: code.bits(),
                detail: code.to_string(),
            });
        }
        Ok(())
    }

    pub(crate) async fn unsubscribe(&self, subscription: u32) -> Result<(), Error> {
        let step = "deleting a subscription";
        let request = request!(self, DeleteSubscriptions).subscription(subscription);
        let response = self.call(step, request).await?;
        let code = response
            .results
            .and_then(|results| results.first().copied());
        match code.filter(|code| code.is_bad()) {
            Some(code) => Err(Error::Service {
                step,
                status: code.bits(),
                detail: code.to_string(),
            }),
            None => Ok(()),
        }
    }
}

/// The server's answer to a request for a subscription (Part 4, 5.13.2).
#[derive(Debug, Clone, Copy)]
pub(super) struct Revised {
    pub(super) id: u32,
    pub(super) interval_ms: f64,
    pub(super) keep_alive_count: u32,
    pub(super) lifetime_count: u32,
}

impl Revised {
    /// Where the answer makes no sense, what was asked for stands.
    pub(super) fn granted(self, interval: Duration, keep_alive_count: u32) -> Granted {
        let revised = Duration::try_from_secs_f64(self.interval_ms / 1000.0).ok();
        let sensible = INTERVAL_MIN..=INTERVAL_MAX.max(interval);
        let publishing_interval = revised
            .filter(|revised| sensible.contains(revised))
            .unwrap_or(interval);
        let keep_alive = publishing_interval.saturating_mul(self.keep_alive_count);
        let asked = publishing_interval.saturating_mul(keep_alive_count);
        let sensible = INTERVAL_MIN..=KEEP_ALIVE_MAX.max(asked);
        Granted {
            id: self.id,
            publishing_interval,
            keep_alive_count: match sensible.contains(&keep_alive) {
                true => self.keep_alive_count,
                false => keep_alive_count,
            },
            lifetime_count: self.lifetime_count,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASKED: Duration = Duration::from_millis(500);
    const ASKED_COUNT: u32 = 6;

    fn granted(interval_ms: f64, keep_alive_count: u32) -> (Duration, u32) {
        let revised = Revised {
            id: 1,
            interval_ms,
            keep_alive_count,
            lifetime_count: 1,
        };
        let granted = revised.granted(ASKED, ASKED_COUNT);
        (granted.publishing_interval, granted.keep_alive_count)
    }

    #[test]
    fn sense_is_believed_and_nonsense_is_not() {
        let second = Duration::from_secs(1);
        assert_eq!(granted(1000.0, 10), (second, 10));
        assert_eq!(granted(1000.0, 0), (second, ASKED_COUNT));
        for nonsense in [f64::NAN, f64::INFINITY, -1.0, 0.0, 1e-9, 1e300, 1e20] {
            assert_eq!(granted(nonsense, 10), (ASKED, 10), "{nonsense}");
        }
        assert_eq!(granted(1000.0, u32::MAX), (second, ASKED_COUNT));
    }
}
