//! Whom the server lets in, and over which channels.

use opcua_server::{ANONYMOUS_USER_TOKEN_ID, ServerBuilder, ServerEndpoint, ServerUserToken};
use std::path::PathBuf;

/// By default anybody, and without security.
#[derive(Debug, Clone, Default)]
pub struct Access {
    /// All policies that are not deprecated, with both modes, beside None.
    pub secured: bool,
    /// Those that are, too.
    pub deprecated: bool,
    /// The server's own certificate and key; one is made where there is none.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// Any client's certificate is fine.
    pub trusts_all: bool,
    /// A name and its password.
    pub user: Option<(String, String)>,
    /// A user's certificate, `.der` or `.pem`.
    pub user_certificate: Option<PathBuf>,
}

/// In the crate's words.
const POLICIES: [&str; 3] = [
    "Basic256Sha256",
    "Aes128-Sha256-RsaOaep",
    "Aes256-Sha256-RsaPss",
];
const DEPRECATED: [&str; 2] = ["Basic256", "Basic128Rsa15"];
const MODES: [&str; 2] = ["Sign", "SignAndEncrypt"];

impl Access {
    pub(crate) fn apply(&self, mut builder: ServerBuilder) -> ServerBuilder {
        let mut users = vec![ANONYMOUS_USER_TOKEN_ID.to_owned()];
        if let Some((name, password)) = &self.user {
            let token = ServerUserToken::user_pass(name, password);
            builder = builder.add_user_token("named", token);
            users.push("named".to_owned());
        }
        if let Some(certificate) = &self.user_certificate {
            let token = ServerUserToken::x509("certified", certificate);
            builder = builder.add_user_token("certified", token);
            users.push("certified".to_owned());
        }
        builder = builder
            .create_sample_keypair((self.secured || self.deprecated) && self.certificate.is_none())
            .trust_client_certs(self.trusts_all);
        if let Some((certificate, key)) = &self.certificate {
            builder = builder.certificate_path(certificate).private_key_path(key);
        }
        builder = builder.add_endpoint("none", ServerEndpoint::new_none("/", &users));
        let modern = POLICIES.iter().filter(|_| self.secured);
        let policies = modern.chain(DEPRECATED.iter().filter(|_| self.deprecated));
        for (policy, mode) in policies.flat_map(|policy| MODES.map(|mode| (policy, mode))) {
            let endpoint = ServerEndpoint {
                security_policy: (*policy).to_owned(),
                security_mode: mode.to_owned(),
                ..ServerEndpoint::new_none("/", &users)
            };
            builder = builder.add_endpoint(format!("{policy} {mode}"), endpoint);
        }
        builder
    }
}
