//! Each address of `brokers` by itself: name, way, and the certificate that is shown there.

use super::report::{Finding, Report};
use super::{certificate, tls};
use crate::uplink::config::Config;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

/// Somebody is there.
pub(super) struct Reached {
    pub(super) finding: Finding,
    at: SocketAddr,
}

/// Looks at every address, and at our own certificate.
pub(super) async fn addresses(config: &Config, report: &mut Report) {
    for broker in &config.brokers {
        match address("broker", broker, config.limits.connect_timeout).await {
            Ok(reached) => {
                report.add(reached.finding);
                if let Some(ours) = &config.tls {
                    report.add(
                        tls::look(broker, reached.at, ours, config.limits.connect_timeout).await,
                    );
                }
            }
            Err(finding) => report.add(finding),
        }
    }
    if let Some(identity) = config.tls.as_ref().and_then(|tls| tls.identity.as_ref()) {
        report.add(certificate::own(&identity.cert_file));
    }
}

/// Resolves `host:port` and connects to it.
pub(super) async fn address(
    check: &'static str,
    broker: &str,
    patience: Duration,
) -> Result<Reached, Finding> {
    let found = match timeout(patience, lookup_host(broker)).await {
        Ok(Ok(found)) => found.collect::<Vec<_>>(),
        Ok(Err(error)) => {
            let text = format!("its name does not resolve: {error}");
            return Err(Finding::problem(check, broker, text).fix(
                "correct the name in `brokers`, or see to this machine's name server (resolvectl)",
            ));
        }
        Err(_) => {
            let text = format!("the name server has not answered within {patience:?}");
            return Err(Finding::problem(check, broker, text)
                .fix("see to this machine's name server (resolvectl)"));
        }
    };
    let mut last = "its name has no address".to_owned();
    for at in &found {
        let began = Instant::now();
        match timeout(patience, TcpStream::connect(at)).await {
            Ok(Ok(_)) => {
                let ms = began.elapsed().as_secs_f64() * 1_000.0;
                let finding = Finding::ok(check, broker, format!("reached at {at} in {ms:.1} ms"));
                return Ok(Reached { finding, at: *at });
            }
            Ok(Err(error)) => last = format!("{at} does not take connections: {error}"),
            Err(_) => {
                last = format!("{at} has not answered within {patience:?}: a firewall, or no route")
            }
        }
    }
    Err(Finding::problem(check, broker, last)
        .fix("see to the way there: cable, modem, firewall, port"))
}
