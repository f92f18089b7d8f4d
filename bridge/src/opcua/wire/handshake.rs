//! A session on a channel: made, checked against what was offered in the open, and logged in.

use super::Session;
use super::chain::leaf;
use super::connect::{
    Endpoint, LOGIN_STEP, REQUEST_TIMEOUT, SESSION_STEP, SESSION_TIMEOUT, Target, description,
};
use super::keys::KeyPair;
use super::token::{Challenge, Token, channel};
use super::vendor::{
    ActivateSessionRequest, AsyncSecureChannel, ByteString, CreateSessionRequest,
    CreateSessionResponse, DateTime, NodeId, RequestHeader, RequestMessage, ResponseMessage,
    SignatureData, StatusCode, UAString, VendorError, X509, create_signature_data, random,
    verify_signature_data,
};
use crate::opcua::config::Security;
use crate::opcua::error::Error;

/// What a server has to sign to show that it holds the key (Part 4, 5.6.2: at least 32 bytes).
const NONCE_BYTES: usize = 32;

impl Target<'_> {
    pub(super) async fn create(
        &self,
        session: &mut Session,
        endpoint: &Endpoint,
    ) -> Result<(), Error> {
        let keys = self.identity.keys().filter(|_| self.is_secured());
        let nonce = random::byte_string(NONCE_BYTES);
        let request = CreateSessionRequest {
            request_header: header(&session.channel, NodeId::null()),
            client_description: description(self.identity.application_uri()),
            server_uri: UAString::null(),
            endpoint_url: self.url.as_str().into(),
            session_name: format!("skerry {}", self.name).into(),
            client_nonce: nonce.clone(),
            client_certificate: keys
                .map_or_else(ByteString::null, |keys| keys.certificate.as_byte_string()),
            requested_session_timeout: SESSION_TIMEOUT.as_millis() as f64,
            max_response_message_size: 0,
        };
        let answer = self.ask(&session.channel, SESSION_STEP, request).await?;
        let ResponseMessage::CreateSession(created) = answer else {
            return Err(self.nonsense(SESSION_STEP));
        };
        if let Some(keys) = keys {
            self.check(&created, endpoint, keys, &nonce)
                .map_err(|detail| Error::Forged {
                    address: self.address(),
                    detail,
                })?;
        }
        let token = created.authentication_token.clone();
        self.activate(session, endpoint, token, &created.server_nonce)
            .await
    }

    /// Whoever answers holds the key of the certificate that was chosen, and now tells over the
    /// secured channel what it told before anything was secure (Part 4, 5.6.2).
    fn check(
        &self,
        created: &CreateSessionResponse,
        endpoint: &Endpoint,
        keys: &KeyPair,
        nonce: &ByteString,
    ) -> Result<(), &'static str> {
        if leaf(created.server_certificate.as_ref()) != endpoint.certificate.as_ref() {
            return Err("its session has another certificate than its endpoint");
        }
        let certificate = X509::from_byte_string(&endpoint.certificate)
            .map_err(|_| "its certificate cannot be read")?;
        let (policy, mode) = channel(self.security);
        let signature = &created.server_signature;
        verify_signature_data(
            signature,
            policy,
            &certificate,
            &keys.certificate,
            nonce.as_ref(),
        )
        .map_err(|_| "it does not hold the key of its certificate")?;
        let mut same = created.server_endpoints.iter().flatten().filter(|told| {
            told.security_mode == mode && told.security_policy_uri.as_ref() == policy.to_uri()
        });
        let first = same.next();
        let login_is_there = first.into_iter().chain(same).any(|told| {
            let tokens = Token::offered_by(told);
            tokens.iter().any(|it| it.offered == endpoint.token.offered)
        });
        match first {
            Some(_) if !login_is_there => {
                Err("over the secured channel it does not offer the login that it offered before")
            }
            // Not every server repeats its list.
            _ => Ok(()),
        }
    }

    /// Takes up an earlier session on this new channel, with the subscription it owns. Only
    /// without security: the proof of identity needs a nonce that went down with the old channel.
    pub(super) async fn revive(
        &self,
        session: &mut Session,
        endpoint: &Endpoint,
        token: &str,
    ) -> bool {
        let Ok(token) = token.parse::<NodeId>() else {
            return false;
        };
        if self.is_secured() {
            return false;
        }
        let none = ByteString::null();
        match self.activate(session, endpoint, token, &none).await {
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
        endpoint: &Endpoint,
        token: NodeId,
        nonce: &ByteString,
    ) -> Result<(), Error> {
        session.channel.set_auth_token(token.clone());
        session.token = token.clone();
        let challenge = Challenge {
            certificate: &endpoint.certificate,
            nonce,
        };
        let refused = |error: VendorError| self.unproven(&error);
        let proof = endpoint.token.prove(self, &challenge);
        let (user_identity_token, user_token_signature) = proof.map_err(refused)?;
        let client_signature = match self.identity.keys().filter(|_| self.is_secured()) {
            None => SignatureData::null(),
            Some(keys) => {
                let (policy, _) = channel(self.security);
                create_signature_data(&keys.key, policy, &endpoint.certificate, nonce)
                    .map_err(refused)?
            }
        };
        let request = ActivateSessionRequest {
            request_header: header(&session.channel, token),
            client_signature,
            client_software_certificates: None,
            locale_ids: None,
            user_identity_token,
            user_token_signature,
        };
        match self.ask(&session.channel, LOGIN_STEP, request).await? {
            ResponseMessage::ActivateSession(_) => Ok(()),
            _ => Err(self.nonsense(LOGIN_STEP)),
        }
    }

    /// Sends a request and waits for what is no refusal.
    pub(super) async fn ask(
        &self,
        channel: &AsyncSecureChannel,
        step: &'static str,
        request: impl Into<RequestMessage>,
    ) -> Result<ResponseMessage, Error> {
        let answer = channel.send(request, REQUEST_TIMEOUT).await;
        let answer = answer.map_err(|error| self.refused(step, &error))?;
        let status = answer.response_header().service_result;
        if status.is_bad() {
            return Err(self.refused(step, &VendorError::new(status, status.to_string())));
        }
        if matches!(answer, ResponseMessage::ServiceFault(_)) {
            let error = VendorError::new(StatusCode::BadUnknownResponse, "a fault without a code");
            return Err(self.refused(step, &error));
        }
        Ok(answer)
    }

    fn nonsense(&self, step: &'static str) -> Error {
        Error::NotOpcua {
            address: self.address(),
            detail: format!("it answers another question than that for {step}"),
        }
    }

    /// What we could not even ask for.
    fn unproven(&self, error: &VendorError) -> Error {
        Error::Refused {
            address: self.address(),
            step: LOGIN_STEP,
            status: error.status().bits(),
            detail: format!("nothing to prove it with: {error}"),
        }
    }

    pub(super) fn is_secured(&self) -> bool {
        self.security != Security::None
    }
}

pub(super) fn header(channel: &AsyncSecureChannel, token: NodeId) -> RequestHeader {
    RequestHeader {
        authentication_token: token,
        timestamp: DateTime::now(),
        request_handle: channel.request_handle(),
        timeout_hint: REQUEST_TIMEOUT.as_millis() as u32,
        ..RequestHeader::default()
    }
}
