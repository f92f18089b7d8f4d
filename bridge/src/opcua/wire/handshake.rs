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
            check(&created, endpoint, self.security, keys, &nonce).map_err(|detail| {
                Error::Forged {
                    address: self.address(),
                    detail,
                }
            })?;
        }
        let token = created.authentication_token.clone();
        self.activate(session, endpoint, token, &created.server_nonce)
            .await
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

/// Whoever answers holds the key of the certificate that was chosen, and now tells over the
/// secured channel what it told before anything was secure (Part 4, 5.6.2).
fn check(
    created: &CreateSessionResponse,
    endpoint: &Endpoint,
    security: Security,
    keys: &KeyPair,
    nonce: &ByteString,
) -> Result<(), &'static str> {
    if leaf(created.server_certificate.as_ref()) != endpoint.certificate.as_ref() {
        return Err("its session has another certificate than its endpoint");
    }
    let certificate = X509::from_byte_string(&endpoint.certificate)
        .map_err(|_| "its certificate cannot be read")?;
    let (policy, mode) = channel(security);
    verify_signature_data(
        &created.server_signature,
        policy,
        &certificate,
        &keys.certificate,
        nonce.as_ref(),
    )
    .map_err(|_| "it does not hold the key of its certificate")?;
    let told = created.server_endpoints.iter().flatten();
    let mut same = told.filter(|told| {
        told.security_mode == mode && told.security_policy_uri.as_ref() == policy.to_uri()
    });
    // Not every server repeats its list.
    let Some(first) = same.next() else {
        return Ok(());
    };
    let mut tokens = std::iter::once(first)
        .chain(same)
        .flat_map(Token::offered_by);
    match tokens.any(|token| token.is_like(&endpoint.token)) {
        true => Ok(()),
        false => Err("over the secured channel it does not offer the login that it offered before"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::vendor::{
        EndpointDescription, PrivateKey, UserTokenPolicy, UserTokenType, X509Data,
    };
    use super::*;
    use crate::opcua::config::Policy;

    fn pair() -> KeyPair {
        let key = PrivateKey::new(2048).unwrap();
        let certificate = X509::from_pkey(&key, &X509Data::sample_cert()).unwrap();
        KeyPair { certificate, key }
    }

    #[test]
    fn a_server_that_tells_something_else_once_it_is_secured_is_not_believed() {
        let (server, client) = (pair(), pair());
        let security = Security::Sign(Policy::Basic256Sha256);
        let (policy, mode) = channel(security);
        let nonce = random::byte_string(NONCE_BYTES);
        let described = |login: UserTokenType, login_policy: &str| EndpointDescription {
            security_mode: mode,
            security_policy_uri: policy.to_uri().into(),
            user_identity_tokens: Some(vec![UserTokenPolicy {
                token_type: login,
                security_policy_uri: login_policy.into(),
                ..UserTokenPolicy::default()
            }]),
            ..EndpointDescription::default()
        };
        let description = described(UserTokenType::UserName, "");
        let endpoint = Endpoint {
            certificate: server.certificate.as_byte_string(),
            token: Token::offered_by(&description).remove(0),
            description: description.clone(),
        };
        let signed = |keys: &KeyPair| {
            let ours = client.certificate.as_byte_string();
            create_signature_data(&keys.key, policy, &ours, &nonce).unwrap()
        };
        let told = |endpoints: Vec<EndpointDescription>| CreateSessionResponse {
            server_certificate: server.certificate.as_byte_string(),
            server_signature: signed(&server),
            server_endpoints: Some(endpoints),
            ..CreateSessionResponse::default()
        };
        let check = |created| check(&created, &endpoint, security, &client, &nonce);

        assert_eq!(check(told(vec![description.clone()])), Ok(()));
        assert_eq!(check(told(Vec::new())), Ok(()));
        let named = described(UserTokenType::UserName, policy.to_uri());
        assert_eq!(check(told(vec![named])), Ok(()));
        let weaker = "http://opcfoundation.org/UA/SecurityPolicy#None";
        for other in [
            described(UserTokenType::UserName, weaker),
            described(UserTokenType::Anonymous, ""),
        ] {
            assert!(check(told(vec![other])).is_err());
        }
        let mut forged = told(Vec::new());
        forged.server_signature = signed(&pair());
        assert!(check(forged).is_err());
        let mut swapped = told(Vec::new());
        swapped.server_certificate = pair().certificate.as_byte_string();
        assert!(check(swapped).is_err());
    }
}
