//! From a URL to an activated session: endpoints, choice of security, secure channel, login.

use super::chain::leaf;
use super::dial::Dialer;
use super::driver::Driver;
use super::handshake::header;
use super::reverse::Calls;
use super::token::{Login, Token, channel, token_words};
use super::vendor::{
    ApplicationDescription, ApplicationType, AsyncSecureChannel, ByteString, CertificateStore,
    ClientBuilder, ClientConfig, EndpointDescription, GetEndpointsRequest, MessageSecurityMode,
    NodeId, ResponseMessage, RwLock, SessionBuilder, StatusCode, TransportPollResult, VendorError,
};
use super::{Session, changes};
use crate::opcua::address::EndpointUrl;
use crate::opcua::config::{OUTAGE_BUDGET_MIN, Security};
use crate::opcua::error::Error;
use crate::opcua::pki::Identity;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Hello and OpenSecureChannel; an old PLC takes seconds for its RSA.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Any other request.
pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// A session nobody uses is forgotten by the server after this; the subscription, with what it
/// holds for us, outlives it by its own lifetime.
pub(crate) const SESSION_TIMEOUT: Duration = Duration::from_secs(60);
const _: () = assert!(SESSION_TIMEOUT.as_secs() < OUTAGE_BUDGET_MIN.as_secs());
/// The channel's keys are renewed at three quarters of this.
const CHANNEL_LIFETIME: Duration = Duration::from_secs(3600);

/// What a server may make us hold for one message. The crate's own limits (1,000 array elements,
/// 5 chunks) end the connection at the first large notification.
const MESSAGE_BYTES_MAX: usize = 64 * 1024 * 1024;
const CHUNK_BYTES_MIN: usize = 8192;
const CHUNKS_MAX: usize = MESSAGE_BYTES_MAX / CHUNK_BYTES_MIN;
const ARRAY_ELEMENTS_MAX: usize = 4 * 1024 * 1024;
const TEXT_BYTES_MAX: usize = 16 * 1024 * 1024;

const BINARY_TRANSPORT: &str = "http://opcfoundation.org/UA-Profile/Transport/uatcp-uasc-uabinary";
const POLICY_URI: &str = "http://opcfoundation.org/UA/SecurityPolicy#";

/// Those in which a server looks at the certificate of this application.
const SECURED_STEPS: [&str; 2] = [CHANNEL_STEP, SESSION_STEP];
const CHANNEL_STEP: &str = "the secure channel";
pub(super) const SESSION_STEP: &str = "a session";
/// The one in which it looks at the user.
pub(super) const LOGIN_STEP: &str = "the login";

/// Whom to connect to, and as whom.
pub(crate) struct Target<'a> {
    /// Names the pinned certificate.
    pub(crate) name: &'a str,
    pub(crate) url: &'a EndpointUrl,
    pub(crate) security: Security,
    pub(crate) login: Login,
    pub(crate) identity: &'a Identity,
    /// Where the server connects to us; absent, we connect to it.
    pub(crate) calls: Option<&'a Calls>,
}

/// One that was chosen, with the way to log in there.
pub(super) struct Endpoint {
    pub(super) description: EndpointDescription,
    /// The server's own, without those of its issuers.
    pub(super) certificate: ByteString,
    pub(super) token: Token,
}

impl Target<'_> {
    pub(super) fn address(&self) -> String {
        format!("{}:{}", self.url.host(), self.url.port())
    }

    /// Connects and logs in. `revive` is the token of an earlier session, to be taken up again
    /// where the server still has it; it is used up by the attempt.
    pub(crate) async fn connect(&self, revive: &mut Option<String>) -> Result<Session, Error> {
        let store = Arc::new(RwLock::new(certificate_store(self.identity.directory())));
        let config = client_config(self.identity);
        let plain = EndpointDescription::from(self.url.as_str());
        let (discovery, driver) = self.open(&config, &store, plain).await?;
        let endpoint = self.choose(self.endpoints(&discovery).await?)?;
        let certificate = endpoint.certificate.as_ref();
        if self.relies_on_certificate() {
            self.identity
                .check_pin(self.name, &self.address(), certificate)?;
        }
        // Without security the channel that asked for the endpoints serves as well.
        let (channel, driver) = if self.is_secured() {
            discovery.close_channel().await;
            drop(driver);
            let description = endpoint.description.clone();
            self.open(&config, &store, description).await?
        } else {
            (discovery, driver)
        };
        let mut session = Session::new(channel, driver, self.address());
        session.revived = match revive.take() {
            Some(token) => self.revive(&mut session, &endpoint, &token).await,
            None => false,
        };
        if !session.revived
            && let Err(error) = self.create(&mut session, &endpoint).await
        {
            // One that nobody logged in to counts as well, and small PLCs have few.
            session.leave_nothing().await;
            return Err(error);
        }
        if self.relies_on_certificate() {
            self.identity.pin(self.name, &self.address(), certificate)?;
        }
        self.warn(&endpoint);
        Ok(session)
    }

    /// Whether anything is signed by or encrypted for the server's certificate: the messages,
    /// or on an open channel the login. Otherwise it proves nothing and is not looked at.
    fn relies_on_certificate(&self) -> bool {
        self.is_secured() || !self.login.is_anonymous()
    }

    /// Says what the operator allowed and would do well to change.
    fn warn(&self, endpoint: &Endpoint) {
        if let Some(policy) = self.security.policy().filter(|it| it.is_deprecated()) {
            tracing::warn!(
                endpoint = self.name,
                "security_policy {policy} is deprecated, because it is broken with some effort: \
                 use one that is not, if the server has any"
            );
        }
        let spelled_out = self.security.policy().is_some_and(|it| it.is_deprecated());
        if endpoint.token.is_deprecated() && !spelled_out && !self.login.is_anonymous() {
            tracing::warn!(
                endpoint = self.name,
                login = endpoint.token.words(),
                "the server takes this login only by a policy that is deprecated"
            );
        }
        if endpoint.token.is_plain() && !self.is_secured() {
            tracing::warn!(
                endpoint = self.name,
                "the server takes the password in clear text: anybody on the network can \
                 read it; set security_mode = \"SignAndEncrypt\" where the server offers it"
            );
        }
    }

    pub(super) async fn open(
        &self,
        config: &ClientConfig,
        store: &Arc<RwLock<CertificateStore>>,
        endpoint: EndpointDescription,
    ) -> Result<(AsyncSecureChannel, Driver), Error> {
        let address = self.address();
        let channel = SessionBuilder::new(config)
            .connect_to_endpoint_directly(endpoint)
            .and_then(|builder| builder.build_channel(Arc::clone(store)))
            .map_err(|error| self.refused("the endpoint", &error))?;
        changes::read_on(&channel);
        let keys = self.identity.keys().filter(|_| self.is_secured());
        let dialer = match self.calls {
            None => Dialer::dial(self.url, keys.cloned()).await?,
            Some(calls) => Dialer::on(calls.next().await?, self.url, keys.cloned()),
        };
        let opened = tokio::time::timeout(HANDSHAKE_TIMEOUT, channel.connect_no_retry(&dialer));
        match opened.await {
            Ok(Ok(mut event_loop)) => {
                let driver = Driver::start(async move {
                    loop {
                        if let TransportPollResult::Closed(why) = event_loop.poll().await {
                            return why;
                        }
                    }
                });
                Ok((channel, driver))
            }
            Ok(Err(error)) => Err(match dialer.not_opcua() {
                Some(detail) => Error::NotOpcua { address, detail },
                None => self.refused(CHANNEL_STEP, &error),
            }),
            Err(_) => Err(Error::Silent {
                address,
                step: if dialer.greeted() {
                    "opening the secure channel"
                } else {
                    "the answer to our hello"
                },
                after: HANDSHAKE_TIMEOUT,
            }),
        }
    }

    pub(super) async fn endpoints(
        &self,
        channel: &AsyncSecureChannel,
    ) -> Result<Vec<EndpointDescription>, Error> {
        let request = GetEndpointsRequest {
            request_header: header(channel, NodeId::null()),
            endpoint_url: self.url.as_str().into(),
            locale_ids: None,
            profile_uris: None,
        };
        match self.ask(channel, "its list of endpoints", request).await? {
            ResponseMessage::GetEndpoints(response) => Ok(response.endpoints.unwrap_or_default()),
            _ => Err(Error::NotOpcua {
                address: self.address(),
                detail: "it does not list its endpoints".to_owned(),
            }),
        }
    }

    /// The endpoint with exactly the security asked for, at the address we can reach it by.
    fn choose(&self, offered: Vec<EndpointDescription>) -> Result<Endpoint, Error> {
        let (policy, mode) = channel(self.security);
        let binary: Vec<EndpointDescription> = offered
            .into_iter()
            .filter(|endpoint| {
                let transport = endpoint.transport_profile_uri.as_ref();
                transport.is_empty() || transport == BINARY_TRANSPORT
            })
            .collect();
        let fits = |endpoint: &&EndpointDescription| {
            endpoint.security_mode == mode
                && endpoint.security_policy_uri.as_ref() == policy.to_uri()
        };
        let matching: Vec<&EndpointDescription> = binary.iter().filter(fits).collect();
        if matching.is_empty() {
            return Err(Error::NotOffered {
                address: self.address(),
                wanted: self.security,
                offered: list(binary.iter().map(security_words)),
            });
        }
        let tokens = matching.iter().flat_map(|endpoint| {
            let tokens = Token::offered_by(endpoint);
            tokens.into_iter().map(move |token| (*endpoint, token))
        });
        let (ours, others): (Vec<_>, Vec<_>) =
            tokens.partition(|(_, token)| token.offered.token_type == self.login.token_type());
        let words = list(ours.iter().chain(&others).map(|(_, token)| token.words()));
        if ours.is_empty() {
            return Err(Error::LoginNotOffered {
                address: self.address(),
                wanted: token_words(self.login.token_type()),
                offered: words,
            });
        }
        let usable = ours.into_iter().filter_map(|(endpoint, token)| {
            let strength = token.strength(self.security)?;
            Some((strength, endpoint, token))
        });
        // Of equal ones the server's first.
        let best = usable.reduce(|best, next| if next.0 > best.0 { next } else { best });
        let Some((_, endpoint, token)) = best else {
            return Err(Error::LoginTooWeak {
                address: self.address(),
                security: self.security,
                offered: words,
            });
        };
        let mut description = endpoint.clone();
        // Servers behind NAT name an address of their own; ours is the one that works.
        description.endpoint_url = self.url.as_str().into();
        let certificate = ByteString::from(leaf(endpoint.server_certificate.as_ref()));
        description.server_certificate = certificate.clone();
        Ok(Endpoint {
            description,
            certificate,
            token,
        })
    }

    /// A refusal in words that say whose certificate or login the server minds.
    pub(super) fn refused(&self, step: &'static str, error: &VendorError) -> Error {
        let address = self.address();
        let code = error.status();
        let certificate = self.identity.certificate_path();
        let is_login = step == LOGIN_STEP;
        let shows_certificate = self.is_secured() && SECURED_STEPS.contains(&step);
        let detail = match code {
            _ if shows_certificate && minds_certificate(code) => {
                return Error::Untrusted {
                    address,
                    reason: code.to_string(),
                    certificate,
                };
            }
            // node-opcua gives its reason in a form in which it reads as a code that is not bad.
            _ if shows_certificate && (breaks_off(code) || !code.is_bad()) => {
                format!(
                    "it breaks off without a reason, as servers do that do not trust our \
                     certificate; it is in {}: move it to the certificates that the server trusts",
                    certificate.display()
                )
            }
            _ if is_login && minds_login(code) => {
                let which = match self.login {
                    Login::Anonymous => "an anonymous user may not log in",
                    Login::User { .. } => "user or password are wrong, or not allowed here",
                    Login::Certificate(_) => {
                        "it does not trust the certificate of this user, or knows no such user"
                    }
                };
                format!("{which} ({code})")
            }
            _ => super::explain(error),
        };
        Error::Refused {
            address,
            step,
            status: code.bits(),
            detail,
        }
    }
}

/// Codes by which a server says that our certificate is not one it takes.
fn minds_certificate(code: StatusCode) -> bool {
    matches!(
        code,
        StatusCode::BadSecurityChecksFailed
            | StatusCode::BadCertificateUntrusted
            | StatusCode::BadCertificateInvalid
            | StatusCode::BadCertificateUriInvalid
            | StatusCode::BadCertificateTimeInvalid
            | StatusCode::BadCertificateIssuerTimeInvalid
            | StatusCode::BadCertificateHostNameInvalid
            | StatusCode::BadCertificateUseNotAllowed
            | StatusCode::BadCertificateChainIncomplete
            | StatusCode::BadCertificatePolicyCheckFailed
            | StatusCode::BadCertificateRevocationUnknown
            | StatusCode::BadCertificateIssuerRevocationUnknown
            | StatusCode::BadCertificateRevoked
            | StatusCode::BadCertificateIssuerRevoked
            | StatusCode::BadNoValidCertificates
    )
}

fn breaks_off(code: StatusCode) -> bool {
    matches!(
        code,
        StatusCode::BadConnectionClosed
            | StatusCode::BadCommunicationError
            | StatusCode::BadSecureChannelClosed
    )
}

/// Codes by which it refuses a user; also those for certificates, where the user has one.
fn minds_login(code: StatusCode) -> bool {
    matches!(
        code,
        StatusCode::BadUserAccessDenied
            | StatusCode::BadIdentityTokenRejected
            | StatusCode::BadIdentityTokenInvalid
            | StatusCode::BadUserSignatureInvalid
    ) || minds_certificate(code)
}

pub(super) fn client_config(identity: &Identity) -> ClientConfig {
    ClientBuilder::new()
        .application_name("skerry")
        .application_uri(identity.application_uri())
        .product_uri("urn:skerry")
        .pki_dir(identity.directory())
        .session_retry_limit(0)
        .channel_lifetime(CHANNEL_LIFETIME.as_millis() as u32)
        .max_message_size(MESSAGE_BYTES_MAX)
        .max_chunk_count(CHUNKS_MAX)
        .max_array_length(ARRAY_ELEMENTS_MAX)
        .max_string_length(TEXT_BYTES_MAX)
        .max_byte_string_length(TEXT_BYTES_MAX)
        .into_config()
}

/// The crate's store, told to trust: whether a server is the right one was decided by its pinned
/// certificate before the crate sees it.
pub(super) fn certificate_store(directory: &Path) -> CertificateStore {
    let mut store = CertificateStore::new(directory);
    store.set_trust_unknown_certs(true);
    store.set_skip_verify_certs(true);
    store
}

pub(super) fn description(application_uri: &str) -> ApplicationDescription {
    ApplicationDescription {
        application_uri: application_uri.into(),
        product_uri: "urn:skerry".into(),
        application_name: "skerry".into(),
        application_type: ApplicationType::Client,
        ..ApplicationDescription::default()
    }
}

fn list(words: impl Iterator<Item = String>) -> String {
    let mut words: Vec<String> = words.collect();
    words.sort();
    words.dedup();
    if words.is_empty() {
        "nothing".to_owned()
    } else {
        words.join(", ")
    }
}

pub(super) fn security_words(endpoint: &EndpointDescription) -> String {
    let policy = endpoint.security_policy_uri.as_ref();
    let policy = policy.rsplit('#').next().unwrap_or(policy);
    if endpoint.security_mode == MessageSecurityMode::None {
        policy.to_owned()
    } else {
        format!("{policy}/{}", endpoint.security_mode)
    }
}

pub(super) fn policy_uri(word: &str) -> String {
    format!("{POLICY_URI}{word}")
}
