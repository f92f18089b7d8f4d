//! What the node shows at the door besides its certificate: a password, or a token. Files are read
//! here, whenever the cluster is connected to anew; nothing of them is kept beyond the connection.

use crate::uplink::config::{Config, Mechanism, Sasl};
use crate::uplink::fault::Fault;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use krafka::auth::oidc::{ClientCredentials, OidcTokenProvider};
use krafka::auth::{AuthConfig, OAuthBearerToken};
use krafka::error::KrafkaError;
use skerry_store::WallNanos;
use std::path::{Path, PathBuf};

/// The client looks for a new token so long before the old one ends; one that ends sooner is used
/// as it is.
const RENEWED_BEFORE_MS: i64 = 60_000;

pub(super) async fn login(config: &Config, sasl: &Sasl) -> Result<AuthConfig, Fault> {
    match sasl {
        Sasl::Password {
            mechanism,
            user,
            password_file,
        } => {
            let password = secret(password_file).await.map_err(Fault::Denied)?;
            Ok(match mechanism {
                Mechanism::Plain => AuthConfig::sasl_plain(user, &password),
                Mechanism::ScramSha256 => AuthConfig::sasl_scram_sha256(user, &password),
                Mechanism::ScramSha512 => AuthConfig::sasl_scram_sha512(user, &password),
            })
        }
        Sasl::TokenFile(file) => {
            // Looked at before anything is dialled, so that what is wrong with it is told.
            token(file.clone()).await.map_err(Fault::Denied)?;
            let file = file.clone();
            Ok(AuthConfig::sasl_oauthbearer_provider(move || {
                let token = token(file.clone());
                async move { token.await.map_err(KrafkaError::auth) }
            }))
        }
        Sasl::TokenEndpoint {
            url,
            client_id,
            client_secret_file,
            scope,
        } => {
            let secret = secret(client_secret_file).await.map_err(Fault::Denied)?;
            let mut provider = OidcTokenProvider::builder(url)
                .credentials(ClientCredentials::secret(client_id, secret))
                .request_timeout(config.limits.request_timeout);
            if let Some(scope) = scope {
                provider = provider.scope(scope);
            }
            if let Some(file) = config.tls.as_ref().and_then(|tls| tls.ca_file.as_ref()) {
                provider = provider.ca_cert(file.to_string_lossy());
            }
            let provider = provider.build().map_err(|error| {
                Fault::Denied(format!("the token endpoint {url} is of no use: {error}"))
            })?;
            Ok(AuthConfig::sasl_oauthbearer_provider(provider))
        }
    }
}

/// The content of a file, but for the line break that editors put behind it.
async fn secret(file: &Path) -> Result<String, String> {
    let text = tokio::fs::read_to_string(file).await;
    let text = text.map_err(|error| format!("cannot read {}: {error}", file.display()))?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

async fn token(file: PathBuf) -> Result<OAuthBearerToken, String> {
    let text = secret(&file).await?;
    let file = file.display();
    if text.is_empty() {
        return Err(format!("{file} is empty: it must hold a token"));
    }
    let (now, ends) = (WallNanos::now().millis(), ends_ms(&text));
    let token = OAuthBearerToken::new(text);
    match ends {
        Some(ends) if ends <= now => Err(format!(
            "the token in {file} ended {} s ago: whoever issues it has to renew it",
            (now - ends) / 1_000
        )),
        // The client wakes up in time for the next one.
        Some(ends) if ends > now + RENEWED_BEFORE_MS => Ok(token.with_lifetime_ms(ends)),
        _ => Ok(token),
    }
}

/// When a token says that it ends; what is no JWT, or has no `exp`, does not say.
fn ends_ms(token: &str) -> Option<i64> {
    let claims = token.split('.').nth(1)?;
    let claims = BASE64_URL_SAFE_NO_PAD.decode(claims).ok()?;
    let claims: serde_json::Value = serde_json::from_slice(&claims).ok()?;
    claims["exp"].as_i64()?.checked_mul(1_000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::uplink::config::NodeName;

    fn jwt(claims: &str) -> String {
        let part = |text: &str| BASE64_URL_SAFE_NO_PAD.encode(text);
        format!("{}.{}.", part("{\"alg\":\"none\"}"), part(claims))
    }

    #[test]
    fn a_token_says_when_it_ends_or_nothing() {
        let claims = r#"{"sub":"vessel-7","exp":1772366400}"#;
        assert_eq!(ends_ms(&jwt(claims)), Some(1_772_366_400_000));
        for silent in [&jwt("{}"), "opaque", "a.b.c", ""] {
            assert_eq!(ends_ms(silent), None, "{silent}");
        }
    }

    #[tokio::test]
    async fn a_token_that_has_ended_is_told_by_its_file() {
        let folder = tempfile::tempdir_in(".").unwrap();
        let file = folder.path().join("token");
        let write = |text: &str| std::fs::write(&file, text).unwrap();
        let now = WallNanos::now().millis() / 1_000;
        write(&jwt(&format!("{{\"exp\":{}}}", now - 90)));
        let told = token(file.clone()).await.unwrap_err();
        assert!(told.contains("ended 9") && told.contains("token"), "{told}");
        write("\n");
        let told = token(file.clone()).await.unwrap_err();
        assert!(told.contains("is empty"), "{told}");
        let later = now + 3_600;
        write(&format!("{}\n", jwt(&format!("{{\"exp\":{later}}}"))));
        let found = token(file.clone()).await.unwrap();
        assert_eq!(found.lifetime_ms(), Some(later * 1_000));
        // Too close for anybody to be woken before.
        write(&jwt(&format!("{{\"exp\":{}}}", now + 20)));
        assert_eq!(token(file).await.unwrap().lifetime_ms(), None);
    }

    #[tokio::test]
    async fn no_secret_is_in_what_is_printed_for_developers() {
        let folder = tempfile::tempdir_in(".").unwrap();
        let file = folder.path().join("secret");
        std::fs::write(&file, "correct horse\n").unwrap();
        let ways = [
            Sasl::Password {
                mechanism: Mechanism::Plain,
                user: "ada".to_owned(),
                password_file: file.clone(),
            },
            Sasl::TokenFile(file.clone()),
            Sasl::TokenEndpoint {
                url: "https://idp.example.com/token".to_owned(),
                client_id: "ada".to_owned(),
                client_secret_file: file,
                scope: None,
            },
        ];
        for sasl in ways {
            let mut config = Config::new(NodeName::new("n").unwrap(), vec!["k:9093".to_owned()]);
            config.sasl = Some(sasl.clone());
            let login = login(&config, &sasl).await.unwrap();
            let printed = format!("{config:?} {login:?}");
            assert!(!printed.contains("correct horse"), "{printed}");
        }
    }
}
