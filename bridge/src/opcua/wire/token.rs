//! How a login is proven: one of the ways the server offers, and never a weaker one than the
//! configuration allows.

use super::connect::Target;
use super::keys::KeyPair;
use super::vendor::{
    AnonymousIdentityToken, ByteString, EndpointDescription, ExtensionObject, MessageSecurityMode,
    SecurityPolicy, SignatureData, UserNameIdentityToken, UserTokenPolicy, UserTokenType,
    VendorError, X509, X509IdentityToken, create_signature_data, legacy_encrypt_secret,
};
use crate::opcua::config::Security;

/// As whom to log in.
pub(crate) enum Login {
    Anonymous,
    User { name: String, password: String },
    Certificate(Box<KeyPair>),
}

/// A way to log in that a server offers, with the policy that applies to it.
pub(super) struct Token {
    pub(super) offered: UserTokenPolicy,
    policy: SecurityPolicy,
}

/// What the token is made for: the server's certificate and the number it drew for us.
pub(super) struct Challenge<'a> {
    pub(super) certificate: &'a ByteString,
    pub(super) nonce: &'a ByteString,
}

impl Login {
    pub(super) const fn token_type(&self) -> UserTokenType {
        match self {
            Self::Anonymous => UserTokenType::Anonymous,
            Self::User { .. } => UserTokenType::UserName,
            Self::Certificate(_) => UserTokenType::Certificate,
        }
    }

    pub(super) const fn is_anonymous(&self) -> bool {
        matches!(self, Self::Anonymous)
    }
}

impl Token {
    /// All that `endpoint` offers. One without a policy has the endpoint's (Part 4, 7.42).
    pub(super) fn offered_by(endpoint: &EndpointDescription) -> Vec<Self> {
        let tokens = endpoint.user_identity_tokens.iter().flatten();
        tokens
            .map(|offered| {
                let mut offered = offered.clone();
                if offered.security_policy_uri.is_empty() {
                    offered.security_policy_uri = endpoint.security_policy_uri.clone();
                }
                let policy = SecurityPolicy::from_uri(offered.security_policy_uri.as_ref());
                Self { offered, policy }
            })
            .collect()
    }

    /// How strong it is, if it may be used at all with `security`. What matters is a password that
    /// only this hides: on a channel that encrypts, the channel hides it, and one without security
    /// promises nothing. A certificate's signature hides nothing, and what it proves holds for the
    /// secured channel that it is sent on. Of the deprecated policies only Basic128Rsa15 encrypts
    /// with less than others do: Basic256 does it as Basic256Sha256 does.
    pub(super) fn strength(&self, security: Security) -> Option<u8> {
        let kind = self.offered.token_type;
        let spelled_out = security
            .policy()
            .is_some_and(|policy| policy.is_deprecated());
        let alone = matches!(security, Security::Sign(_)) && kind == UserTokenType::UserName;
        match self.policy {
            SecurityPolicy::Unknown => None,
            _ if kind == UserTokenType::Anonymous => Some(0),
            // Nothing to sign with.
            SecurityPolicy::None if kind == UserTokenType::Certificate => None,
            SecurityPolicy::None if alone => None,
            SecurityPolicy::None => Some(0),
            SecurityPolicy::Basic128Rsa15 if alone && !spelled_out => None,
            SecurityPolicy::Basic128Rsa15 => Some(1),
            SecurityPolicy::Basic256 => Some(2),
            SecurityPolicy::Basic256Sha256 => Some(3),
            SecurityPolicy::Aes128Sha256RsaOaep => Some(4),
            SecurityPolicy::Aes256Sha256RsaPss => Some(5),
        }
    }

    pub(super) const fn is_deprecated(&self) -> bool {
        matches!(
            self.policy,
            SecurityPolicy::Basic128Rsa15 | SecurityPolicy::Basic256
        )
    }

    /// Whether this asks for the same, and as well secured.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        let kind = (self.offered.token_type, self.policy);
        kind == (other.offered.token_type, other.policy)
    }

    /// The secret crosses the network as it is, unless the channel hides it.
    pub(super) fn is_plain(&self) -> bool {
        self.policy == SecurityPolicy::None && self.offered.token_type == UserTokenType::UserName
    }

    /// `user and password by Basic256Sha256`.
    pub(super) fn words(&self) -> String {
        let kind = token_words(self.offered.token_type);
        match self.policy {
            SecurityPolicy::Unknown => {
                let uri = self.offered.security_policy_uri.as_ref();
                format!("{kind} by {}", uri.rsplit('#').next().unwrap_or(uri))
            }
            SecurityPolicy::None if self.offered.token_type == UserTokenType::UserName => {
                format!("{kind} in clear text")
            }
            SecurityPolicy::None => format!("{kind} without a security policy"),
            policy => format!("{kind} by {policy}"),
        }
    }

    /// The token itself, and the signature that goes with it.
    pub(super) fn prove(
        &self,
        target: &Target<'_>,
        challenge: &Challenge<'_>,
    ) -> Result<(ExtensionObject, SignatureData), VendorError> {
        let policy_id = self.offered.policy_id.clone();
        match &target.login {
            Login::Anonymous => {
                let token = AnonymousIdentityToken { policy_id };
                Ok((ExtensionObject::from_message(token), SignatureData::null()))
            }
            Login::User { name, password } => {
                let (policy, mode) = channel(target.security);
                let certificate = match self.policy {
                    SecurityPolicy::None => None,
                    _ => Some(X509::from_byte_string(challenge.certificate)?),
                };
                let secret = legacy_encrypt_secret(
                    policy,
                    mode,
                    &self.offered,
                    challenge.nonce.as_ref(),
                    &certificate,
                    password.as_bytes(),
                )?;
                let token = UserNameIdentityToken {
                    policy_id: secret.policy,
                    user_name: name.as_str().into(),
                    password: secret.secret,
                    encryption_algorithm: secret.encryption_algorithm,
                };
                Ok((ExtensionObject::from_message(token), SignatureData::null()))
            }
            Login::Certificate(pair) => {
                let token = X509IdentityToken {
                    policy_id,
                    certificate_data: pair.certificate.as_byte_string(),
                };
                let signature = create_signature_data(
                    &pair.key,
                    self.policy,
                    challenge.certificate,
                    challenge.nonce,
                )?;
                Ok((ExtensionObject::from_message(token), signature))
            }
        }
    }
}

/// In the crate's words.
pub(super) fn channel(security: Security) -> (SecurityPolicy, MessageSecurityMode) {
    let policy = security.policy().map_or(SecurityPolicy::None, |policy| {
        SecurityPolicy::from_uri(&super::connect::policy_uri(policy.word()))
    });
    let mode = match security {
        Security::None => MessageSecurityMode::None,
        Security::Sign(_) => MessageSecurityMode::Sign,
        Security::SignAndEncrypt(_) => MessageSecurityMode::SignAndEncrypt,
    };
    (policy, mode)
}

pub(super) const fn token_words(token_type: UserTokenType) -> &'static str {
    match token_type {
        UserTokenType::Anonymous => "anonymous",
        UserTokenType::UserName => "user and password",
        UserTokenType::Certificate => "certificates",
        UserTokenType::IssuedToken => "issued tokens",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::opcua::config::Policy;

    fn token(token_type: UserTokenType, policy: SecurityPolicy) -> Token {
        let offered = UserTokenPolicy {
            token_type,
            ..UserTokenPolicy::default()
        };
        Token { offered, policy }
    }

    #[test]
    fn a_password_is_hidden_by_the_channel_or_by_what_encrypts_well() {
        let password = |policy| token(UserTokenType::UserName, policy);
        let none = password(SecurityPolicy::None);
        let old = password(SecurityPolicy::Basic128Rsa15);
        let good = password(SecurityPolicy::Basic256Sha256);
        let signed = Security::Sign(Policy::Aes256Sha256RsaPss);
        assert_eq!(none.strength(signed), None);
        assert_eq!(old.strength(signed), None);
        assert!(good.strength(signed).is_some());
        assert!(password(SecurityPolicy::Basic256).strength(signed) < good.strength(signed));
        assert!(
            password(SecurityPolicy::Basic256)
                .strength(signed)
                .is_some()
        );
        let encrypted = Security::SignAndEncrypt(Policy::Aes256Sha256RsaPss);
        for security in [encrypted, Security::None] {
            assert!(none.strength(security) < old.strength(security));
            assert!(old.strength(security) < good.strength(security));
            assert!(none.strength(security).is_some());
        }
        let spelled_out = Security::Sign(Policy::Basic256);
        assert!(old.strength(spelled_out).is_some());
        assert_eq!(none.strength(spelled_out), None);
    }

    #[test]
    fn a_certificate_needs_something_to_sign_with() {
        let certificate = |policy| token(UserTokenType::Certificate, policy);
        let none = certificate(SecurityPolicy::None);
        assert_eq!(none.strength(Security::None), None);
        let signed = Security::Sign(Policy::Basic256Sha256);
        assert_eq!(none.strength(signed), None);
        let old = certificate(SecurityPolicy::Basic128Rsa15);
        let good = certificate(SecurityPolicy::Basic256Sha256);
        assert!(old.strength(signed).is_some());
        assert!(old.strength(signed) < good.strength(signed));
        assert_eq!(certificate(SecurityPolicy::Unknown).strength(signed), None);
    }
}
