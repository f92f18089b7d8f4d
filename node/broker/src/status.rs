//! Counters that `skerry status`, `/metrics` and tests read.

use crate::certificate::Validity;
use crate::codec::Qos;
use serde::Serialize;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// A counter, or a gauge where it can also go down.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    pub(crate) fn add(&self, amount: usize) {
        self.0.fetch_add(amount as u64, Ordering::Relaxed);
    }

    pub(crate) fn up(&self) {
        self.add(1);
    }

    pub(crate) fn down(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }

    /// One contributor's share of a gauge changed.
    pub(crate) fn shift(&self, from: usize, to: usize) {
        self.0
            .fetch_add((to as u64).wrapping_sub(from as u64), Ordering::Relaxed);
    }

    pub(crate) fn raise(&self, value: u64) {
        self.0.fetch_max(value, Ordering::Relaxed);
    }

    pub(crate) fn set(&self, value: usize) {
        self.0.store(value as u64, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Counters by reason, for events that are rare.
#[derive(Debug, Default)]
pub(crate) struct Reasons(Mutex<BTreeMap<&'static str, u64>>);

impl Reasons {
    /// Returns how often this reason was counted before.
    pub(crate) fn up(&self, reason: &'static str) -> u64 {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(reason).or_default();
        *count += 1;
        *count - 1
    }

    fn get(&self) -> BTreeMap<&'static str, u64> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// One listener's share.
#[derive(Debug)]
pub(crate) struct ListenerStatus {
    name: String,
    transport: &'static str,
    pub(crate) connections_total: Count,
    pub(crate) refused: Reasons,
    certificate: Option<Arc<CertificateStatus>>,
}

/// [`ListenerStatus`] at one moment.
#[derive(Debug, Clone, Serialize)]
pub struct ListenerSnapshot {
    /// Its address, or its path.
    pub name: String,
    pub transport: &'static str,
    pub connections_total: u64,
    /// Connections that did not come as far as a CONNECT, by reason.
    pub refused_total: BTreeMap<&'static str, u64>,
    /// Of a listener with TLS.
    pub certificate: Option<CertificateSnapshot>,
}

/// The certificate in use, and what is wrong with the files that were to replace it.
#[derive(Debug, Default)]
pub(crate) struct CertificateStatus(Mutex<(Option<Validity>, Option<String>)>);

#[derive(Debug, Clone, Serialize)]
pub struct CertificateSnapshot {
    /// Negative once it has expired; `None` where no file could be used since the start.
    pub days_left: Option<i64>,
    /// The newest files are in use.
    pub current: bool,
    /// Why they are not.
    pub error: Option<String>,
}

impl ListenerStatus {
    pub(crate) fn new(name: String, transport: &'static str) -> Self {
        Self {
            name,
            transport,
            connections_total: Count::default(),
            refused: Reasons::default(),
            certificate: None,
        }
    }

    pub(crate) fn with_certificate(&mut self) -> Arc<CertificateStatus> {
        Arc::clone(self.certificate.get_or_insert_default())
    }

    fn snapshot(&self) -> ListenerSnapshot {
        ListenerSnapshot {
            name: self.name.clone(),
            transport: self.transport,
            connections_total: self.connections_total.get(),
            refused_total: self.refused.get(),
            certificate: self.certificate.as_ref().map(|it| it.snapshot()),
        }
    }
}

impl CertificateStatus {
    pub(crate) fn good(&self, validity: Validity) {
        *self.lock() = (Some(validity), None);
    }

    /// False if this was the trouble already.
    pub(crate) fn bad(&self, error: &str) -> bool {
        let before = self.lock().1.replace(error.to_owned());
        before.as_deref() != Some(error)
    }

    fn snapshot(&self) -> CertificateSnapshot {
        let (validity, error) = self.lock().clone();
        CertificateSnapshot {
            days_left: validity.map(Validity::days_left_now),
            current: error.is_none(),
            error,
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, (Option<Validity>, Option<String>)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the broker has done so far. Shared with whoever wants to look; reading never blocks it.
#[derive(Debug, Default)]
pub struct Status {
    pub(crate) listening: Mutex<Option<SocketAddr>>,
    pub(crate) listeners: Mutex<Vec<Arc<ListenerStatus>>>,
    pub(crate) connections: Count,
    pub(crate) connections_total: Count,
    pub(crate) connections_refused: Reasons,
    pub(crate) closed: Reasons,
    pub(crate) publishes: [Count; 3],
    pub(crate) acknowledged: Count,
    pub(crate) duplicates_suppressed: Count,
    pub(crate) refused: Reasons,
    pub(crate) malformed: Reasons,
    pub(crate) packets_in: Count,
    pub(crate) packets_out: Count,
    pub(crate) payload_bytes_in: Count,
    pub(crate) payload_bytes_out: Count,
    pub(crate) connections_most: Count,
    pub(crate) sessions_expired: Count,
    pub(crate) shared_subscriptions: Count,
    pub(crate) bytes_in: Count,
    pub(crate) bytes_out: Count,
    pub(crate) deliveries: Count,
    pub(crate) deliveries_expired: Count,
    pub(crate) deliveries_too_large: Count,
    pub(crate) slow_reader_losses: Count,
    pub(crate) fell_behind: Count,
    pub(crate) records_missed: Count,
    pub(crate) fanout_losses: Count,
    pub(crate) gaps_recorded: Count,
    pub(crate) retained: Count,
    pub(crate) retained_refused: Count,
    pub(crate) sessions_absent: Count,
    pub(crate) subscriptions: Count,
    pub(crate) qos2_unreleased: Count,
    pub(crate) republished: Count,
    pub(crate) users: Count,
    pub(crate) acl_rules: Count,
    pub(crate) access_problem: Mutex<Option<String>>,
    pub(crate) access_reloads: Count,
    pub(crate) logins: Count,
    pub(crate) logins_remembered: Count,
    pub(crate) subscribes_refused: Count,
    pub(crate) publishes_slowed: Count,
    pub(crate) audit_records: Count,
    pub(crate) audit_left_out: Count,
    pub(crate) audit_failures: Count,
}

/// [`Status`] at one moment. `_total` only ever grows; the others are gauges.
#[derive(Debug, Clone, Serialize)]
pub struct Snapshot {
    /// Where clients connect without TLS and WebSocket; `None` until the broker runs.
    pub listening: Option<SocketAddr>,
    /// Every way in; none until the broker runs.
    pub listeners: Vec<ListenerSnapshot>,
    pub connections: u64,
    pub connections_total: u64,
    pub connections_refused_total: BTreeMap<&'static str, u64>,
    /// Why connections ended.
    pub connections_closed_total: BTreeMap<&'static str, u64>,
    pub publishes_qos0_total: u64,
    pub publishes_qos1_total: u64,
    pub publishes_qos2_total: u64,
    /// PUBACK and PUBREC that say "on disk".
    pub acknowledged_total: u64,
    /// QoS 2 publishes that were sent again and are in the log once.
    pub duplicates_suppressed_total: u64,
    /// Publishes that are not in the log, by reason.
    pub refused_total: BTreeMap<&'static str, u64>,
    pub malformed_total: BTreeMap<&'static str, u64>,
    pub packets_in_total: u64,
    pub packets_out_total: u64,
    pub payload_bytes_in_total: u64,
    pub payload_bytes_out_total: u64,
    /// Most connections at a time since the start.
    pub connections_most: u64,
    pub sessions_expired_total: u64,
    pub shared_subscriptions: u64,
    pub bytes_in_total: u64,
    pub bytes_out_total: u64,
    pub deliveries_total: u64,
    pub deliveries_expired_total: u64,
    pub deliveries_too_large_total: u64,
    /// Deliveries of QoS 0 dropped because a subscriber reads too slowly. The log has them.
    pub slow_reader_losses_total: u64,
    /// How often a session that is there went over to reading the log.
    pub sessions_fell_behind_total: u64,
    /// Records that the log no longer had when a session came to read them.
    pub records_missed_total: u64,
    /// Records that the log no longer had when they were to be offered.
    pub fanout_losses_total: u64,
    /// Gap records written for QoS 0 publishes that the log refused.
    pub gaps_recorded_total: u64,
    pub retained_topics: u64,
    pub retained_refused_total: u64,
    pub sessions_absent: u64,
    pub subscriptions: u64,
    /// QoS 2 publishes whose PUBREL is still to come, on connections that are open.
    pub qos2_unreleased: u64,
    pub republished_total: u64,
    pub users: u64,
    pub acl_rules: u64,
    /// What is wrong with the newest users or ACL file; the rules from before hold meanwhile.
    pub access_problem: Option<String>,
    /// How often changed files were taken over.
    pub access_reloads_total: u64,
    /// Logins with a password that was right.
    pub logins_total: u64,
    /// Those among them that needed no Argon2id, because the password was right of late.
    pub logins_remembered_total: u64,
    /// Topic filters of which a client may receive nothing.
    pub subscribes_refused_total: u64,
    /// How often a client published faster than it may, and was read more slowly.
    pub publishes_slowed_total: u64,
    pub audit_records_total: u64,
    /// Refusals of which the audit stream has only the number.
    pub audit_left_out_total: u64,
    /// Appends to the audit stream that the log refused; what was in them is left out, see above.
    pub audit_failures_total: u64,
}

impl Status {
    pub(crate) fn published(&self, qos: Qos) {
        self.publishes[qos as usize].up();
    }

    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            listening: *self
                .listening
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
            listeners: self
                .listeners
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .iter()
                .map(|listener| listener.snapshot())
                .collect(),
            connections: self.connections.get(),
            connections_total: self.connections_total.get(),
            connections_refused_total: self.connections_refused.get(),
            connections_closed_total: self.closed.get(),
            publishes_qos0_total: self.publishes[0].get(),
            publishes_qos1_total: self.publishes[1].get(),
            publishes_qos2_total: self.publishes[2].get(),
            acknowledged_total: self.acknowledged.get(),
            duplicates_suppressed_total: self.duplicates_suppressed.get(),
            refused_total: self.refused.get(),
            malformed_total: self.malformed.get(),
            packets_in_total: self.packets_in.get(),
            packets_out_total: self.packets_out.get(),
            payload_bytes_in_total: self.payload_bytes_in.get(),
            payload_bytes_out_total: self.payload_bytes_out.get(),
            connections_most: self.connections_most.get(),
            sessions_expired_total: self.sessions_expired.get(),
            shared_subscriptions: self.shared_subscriptions.get(),
            bytes_in_total: self.bytes_in.get(),
            bytes_out_total: self.bytes_out.get(),
            deliveries_total: self.deliveries.get(),
            deliveries_expired_total: self.deliveries_expired.get(),
            deliveries_too_large_total: self.deliveries_too_large.get(),
            slow_reader_losses_total: self.slow_reader_losses.get(),
            sessions_fell_behind_total: self.fell_behind.get(),
            records_missed_total: self.records_missed.get(),
            fanout_losses_total: self.fanout_losses.get(),
            gaps_recorded_total: self.gaps_recorded.get(),
            retained_topics: self.retained.get(),
            retained_refused_total: self.retained_refused.get(),
            sessions_absent: self.sessions_absent.get(),
            subscriptions: self.subscriptions.get(),
            qos2_unreleased: self.qos2_unreleased.get(),
            republished_total: self.republished.get(),
            users: self.users.get(),
            acl_rules: self.acl_rules.get(),
            access_problem: self
                .access_problem
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone(),
            access_reloads_total: self.access_reloads.get(),
            logins_total: self.logins.get(),
            logins_remembered_total: self.logins_remembered.get(),
            subscribes_refused_total: self.subscribes_refused.get(),
            publishes_slowed_total: self.publishes_slowed.get(),
            audit_records_total: self.audit_records.get(),
            audit_left_out_total: self.audit_left_out.get(),
            audit_failures_total: self.audit_failures.get(),
        }
    }
}
