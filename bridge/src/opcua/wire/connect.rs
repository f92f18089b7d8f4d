//! From a URL to an activated session: endpoints, choice of security, secure channel, login.

use super::Session;
use super::dial::Dialer;
use super::vendor::{
    ActivateSession, ApplicationDescription, ApplicationType, AsyncSecureChannel, CertificateStore,
    ClientBuilder, ClientConfig, CreateSession, DateTime, EndpointDescription, GetEndpointsRequest,
    IdentityToken, MessageSecurityMode, NodeId, RequestHeader, ResponseMessage, RwLock,
    SessionBuilder, TransportPollResult, UserTokenType, VendorError, X509,
};
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

/// Whom to connect to, and as whom.
pub(crate) struct Target<'a> {
    /// Names the pinned certificate.
    pub(crate) name: &'a str,
    pub(crate) url: &'a EndpointUrl,
    pub(crate) security: Security,
    pub(crate) login: Login,
    pub(crate) identity: &'a Identity,
}

pub(crate) enum Login {
    Anonymous,
    User { name: String, password: String },
}

impl Login {
    const fn token_type(&self) -> UserTokenType {
        match self {
            Self::Anonymous => UserTokenType::Anonymous,
            Self::User { .. } => UserTokenType::UserName,
        }
    }

    const fn word(&self) -> &'static str {
        match self {
            Self::Anonymous => "anonymous",
            Self::User { .. } => "user and password",
        }
    }
}

impl Target<'_> {
    fn address(&self) -> String {
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
        let certificate = endpoint.server_certificate.as_ref();
        if self.relies_on_certificate() {
            self.identity
                .check_pin(self.name, &self.address(), certificate)?;
        }
        // Without security the channel that asked for the endpoints serves as well.
        let (channel, driver) = if self.security == Security::None {
            (discovery, driver)
        } else {
            discovery.close_channel().await;
            drop(driver);
            self.open(&config, &store, endpoint.clone()).await?
        };
        let mut session = Session::new(channel, driver, self.address());
        session.revived = match revive.take() {
            Some(token) => self.revive(&mut session, &endpoint, &token).await,
            None => false,
        };
        if !session.revived {
            self.create(&mut session, &endpoint, &store).await?;
        }
        if self.relies_on_certificate() {
            self.identity.pin(self.name, &self.address(), certificate)?;
        }
        Ok(session)
    }

    /// Whether anything is signed by or encrypted for the server's certificate: the messages,
    /// or on an open channel the password. Otherwise it proves nothing and is not looked at.
    fn relies_on_certificate(&self) -> bool {
        self.security != Security::None || matches!(self.login, Login::User { .. })
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
            .map_err(|error| refused(&address, "the endpoint", &error))?;
        let dialer = Dialer::dial(self.url).await?;
        let opened = tokio::time::timeout(HANDSHAKE_TIMEOUT, channel.connect_no_retry(&dialer));
        match opened.await {
            Ok(Ok(mut event_loop)) => {
                let task = tokio::spawn(async move {
                    while !matches!(event_loop.poll().await, TransportPollResult::Closed(_)) {}
                });
                Ok((channel, Driver(task)))
            }
            Ok(Err(error)) => Err(match dialer.not_opcua() {
                Some(detail) => Error::NotOpcua { address, detail },
                None => refused(&address, "the secure channel", &error),
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
            request_header: RequestHeader {
                timestamp: DateTime::now(),
                request_handle: channel.request_handle(),
                timeout_hint: REQUEST_TIMEOUT.as_millis() as u32,
                ..RequestHeader::default()
            },
            endpoint_url: self.url.as_str().into(),
            locale_ids: None,
            profile_uris: None,
        };
        let response = channel.send(request, REQUEST_TIMEOUT).await;
        match response.map_err(|error| refused(&self.address(), "its list of endpoints", &error))? {
            ResponseMessage::GetEndpoints(response) => Ok(response.endpoints.unwrap_or_default()),
            _ => Err(Error::NotOpcua {
                address: self.address(),
                detail: "it does not list its endpoints".to_owned(),
            }),
        }
    }

    /// The endpoint with exactly the security asked for, at the address we can reach it by.
    fn choose(&self, offered: Vec<EndpointDescription>) -> Result<EndpointDescription, Error> {
        let policy = self
            .security
            .policy()
            .map_or("None", |policy| policy.word());
        let policy_uri = format!("{POLICY_URI}{policy}");
        let mode = match self.security {
            Security::None => MessageSecurityMode::None,
            Security::Sign(_) => MessageSecurityMode::Sign,
            Security::SignAndEncrypt(_) => MessageSecurityMode::SignAndEncrypt,
        };
        let binary: Vec<EndpointDescription> = offered
            .into_iter()
            .filter(|endpoint| {
                let transport = endpoint.transport_profile_uri.as_ref();
                transport.is_empty() || transport == BINARY_TRANSPORT
            })
            .collect();
        let fits = |endpoint: &&EndpointDescription| {
            endpoint.security_mode == mode && endpoint.security_policy_uri.as_ref() == policy_uri
        };
        let matching: Vec<&EndpointDescription> = binary.iter().filter(fits).collect();
        if matching.is_empty() {
            return Err(Error::NotOffered {
                address: self.address(),
                wanted: self.security,
                offered: list(binary.iter().map(security_words)),
            });
        }
        let token_type = self.login.token_type();
        let Some(endpoint) = matching
            .iter()
            .find(|endpoint| endpoint.find_policy(token_type).is_some())
        else {
            let tokens = matching
                .iter()
                .flat_map(|endpoint| endpoint.user_identity_tokens.iter().flatten())
                .map(|token| token_words(token.token_type).to_owned());
            return Err(Error::LoginNotOffered {
                address: self.address(),
                wanted: self.login.word(),
                offered: list(tokens),
            });
        };
        let mut endpoint = (*endpoint).clone();
        // Servers behind NAT name an address of their own; ours is the one that works.
        endpoint.endpoint_url = self.url.as_str().into();
        // An empty policy means the endpoint's own (Part 4, 7.42); the crate takes it for None.
        for token in endpoint.user_identity_tokens.iter_mut().flatten() {
            if token.security_policy_uri.as_ref().is_empty() {
                token.security_policy_uri = endpoint.security_policy_uri.clone();
            }
            let plain = token.security_policy_uri.as_ref().ends_with("#None");
            if plain
                && token_type == UserTokenType::UserName
                && token.token_type == token_type
                && !matches!(self.security, Security::SignAndEncrypt(_))
            {
                tracing::warn!(
                    endpoint = self.name,
                    "the server takes the password in clear text: anybody on the network can \
                     read it; set security_mode = \"SignAndEncrypt\" where the server offers it"
                );
            }
        }
        Ok(endpoint)
    }

    async fn create(
        &self,
        session: &mut Session,
        endpoint: &EndpointDescription,
        store: &RwLock<CertificateStore>,
    ) -> Result<(), Error> {
        let handle = session.channel.request_handle();
        let mut request =
            CreateSession::new_manual(store, endpoint, 0, REQUEST_TIMEOUT, NodeId::null(), handle)
                .client_description(description(self.identity.application_uri()))
                .endpoint_url(self.url.as_str())
                .session_name(format!("skerry {}", self.name))
                .session_timeout(SESSION_TIMEOUT.as_millis() as f64);
        if let Some(certificate) = self.own_certificate(store)? {
            request = request.client_certificate(certificate);
        }
        let created = super::send(request, &session.channel)
            .await
            .map_err(|error| refused(&self.address(), "a session", &error))?;
        self.activate(session, endpoint, created.authentication_token)
            .await
    }

    /// Takes up an earlier session on this new channel, with the subscription it owns. Only
    /// without security: the proof of identity needs a nonce that went down with the old channel.
    async fn revive(
        &self,
        session: &mut Session,
        endpoint: &EndpointDescription,
        token: &str,
    ) -> bool {
        let Ok(token) = token.parse::<NodeId>() else {
            return false;
        };
        if self.security != Security::None {
            return false;
        }
        match self.activate(session, endpoint, token).await {
            Ok(()) => true,
            Err(error) => {
                tracing::debug!(endpoint = self.name, %error, "the earlier session is gone");
                false
            }
        }
    }

    async fn activate(
        &self,
        session: &mut Session,
        endpoint: &EndpointDescription,
        token: NodeId,
    ) -> Result<(), Error> {
        session.channel.set_auth_token(token.clone());
        let identity = match &self.login {
            Login::Anonymous => IdentityToken::Anonymous,
            Login::User { name, password } => {
                IdentityToken::new_user_name(name.as_str(), password.as_str())
            }
        };
        let handle = session.channel.request_handle();
        let mut request = ActivateSession::new_manual(
            endpoint.clone(),
            0,
            REQUEST_TIMEOUT,
            token.clone(),
            handle,
        )
        .identity_token(identity);
        if self.security != Security::None {
            let path = self.identity.key_path();
            let key = CertificateStore::read_pkey(&path).map_err(|detail| Error::Pki {
                action: "read",
                path,
                detail,
            })?;
            request = request.private_key(key);
        }
        super::send(request, &session.channel)
            .await
            .map_err(|error| refused(&self.address(), "the login", &error))?;
        session.token = token;
        Ok(())
    }

    fn own_certificate(&self, store: &RwLock<CertificateStore>) -> Result<Option<X509>, Error> {
        if self.security == Security::None {
            return Ok(None);
        }
        store
            .read()
            .read_own_cert()
            .map(Some)
            .map_err(|detail| Error::Pki {
                action: "read",
                path: self.identity.certificate_path(),
                detail,
            })
    }
}

/// Drives the channel's I/O; the connection ends with it.
pub(super) struct Driver(tokio::task::JoinHandle<()>);

impl Driver {
    pub(super) fn ended(&self) -> bool {
        self.0.is_finished()
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
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

fn description(application_uri: &str) -> ApplicationDescription {
    ApplicationDescription {
        application_uri: application_uri.into(),
        product_uri: "urn:skerry".into(),
        application_name: "skerry".into(),
        application_type: ApplicationType::Client,
        ..ApplicationDescription::default()
    }
}

fn refused(address: &str, step: &'static str, error: &VendorError) -> Error {
    Error::Refused {
        address: address.to_owned(),
        step,
        status: error.status().bits(),
        detail: super::explain(error),
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

pub(super) const fn token_words(token_type: UserTokenType) -> &'static str {
    match token_type {
        UserTokenType::Anonymous => "anonymous",
        UserTokenType::UserName => "user and password",
        UserTokenType::Certificate => "certificates",
        UserTokenType::IssuedToken => "issued tokens",
    }
}
