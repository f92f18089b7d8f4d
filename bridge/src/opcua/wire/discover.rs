//! What a server offers to whoever asks: its endpoints, and what each of them takes.

use super::chain::leaf;
use super::connect::{Target, certificate_store, client_config, security_words};
use super::token::token_words;
use super::vendor::{EndpointDescription, RwLock};
use crate::opcua::error::Error;
use crate::opcua::pki::fingerprint;
use serde::Serialize;
use std::sync::Arc;

/// One endpoint of a server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Offer {
    /// As the server calls itself, which need not be an address that is reached from here.
    pub url: String,
    /// Policy and mode, in the words of the configuration: `Basic256Sha256/Sign`.
    pub security: String,
    /// How the server itself ranks it; more is better.
    pub level: u8,
    pub logins: Vec<&'static str>,
    /// SHA-256 of its certificate, in hex.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
}

impl Target<'_> {
    /// The server's endpoints, the best ones first.
    pub(crate) async fn offers(&self) -> Result<Vec<Offer>, Error> {
        let store = Arc::new(RwLock::new(certificate_store(self.identity.directory())));
        let config = client_config(self.identity);
        let plain = EndpointDescription::from(self.url.as_str());
        let (channel, _driver) = self.open(&config, &store, plain).await?;
        let mut offers: Vec<Offer> = self.endpoints(&channel).await?.iter().map(offer).collect();
        channel.close_channel().await;
        offers.sort_by(|one, other| {
            let best_first = other.level.cmp(&one.level);
            best_first.then_with(|| one.security.cmp(&other.security))
        });
        Ok(offers)
    }
}

fn offer(endpoint: &EndpointDescription) -> Offer {
    let tokens = endpoint.user_identity_tokens.iter().flatten();
    let mut logins: Vec<_> = tokens.map(|token| token_words(token.token_type)).collect();
    logins.sort_unstable();
    logins.dedup();
    let certificate = leaf(endpoint.server_certificate.as_ref());
    Offer {
        url: endpoint.endpoint_url.as_ref().to_owned(),
        security: security_words(endpoint),
        level: endpoint.security_level,
        logins,
        certificate: (!certificate.is_empty()).then(|| fingerprint(certificate)),
    }
}
