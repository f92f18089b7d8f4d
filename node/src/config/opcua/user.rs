//! Whom an endpoint logs in as, and how its channel is secured.

use crate::config::reader::{Severity, Table};
use crate::config::units;
use skerry_bridge::opcua::{Security, User};
use std::path::Path;

/// `security_policy` and `security_mode`; `None` where there is a problem.
pub(super) fn security(table: &Table<'_>) -> Option<Security> {
    let policy = table.optional("security_policy", units::text);
    let mode = table.optional("security_mode", units::text);
    let (policy, mode) = (
        policy.as_deref().unwrap_or("None"),
        mode.as_deref().unwrap_or("None"),
    );
    match Security::new(policy, mode) {
        Ok(security) => {
            if let Some(policy) = security.policy().filter(|it| it.is_deprecated()) {
                let message = format!(
                    "{policy} is deprecated, because it is broken with some effort: use one that \
                     is not, if the server has any; `skerry opcua discover URL` tells"
                );
                table.remark("security_policy", Severity::Warning, message);
            }
            Some(security)
        }
        Err(why) => {
            table.problem("security_policy", why.to_string());
            None
        }
    }
}

/// `user` with `password_file`, or `user_certificate` with `user_key`; anonymous without. What
/// does not go together is noted as a problem.
pub(super) fn user(table: &Table<'_>, base: &Path) -> Option<User> {
    let name = table.optional("user", units::text);
    let password_file = table.optional("password_file", units::path_from(base));
    let certificate = table.optional("user_certificate", units::path_from(base));
    let key = table.optional("user_key", units::path_from(base));
    for (one, other) in [("user", "password_file"), ("user_certificate", "user_key")] {
        if table.has(one) != table.has(other) {
            let there = if table.has(one) { one } else { other };
            let missing = if table.has(one) { other } else { one };
            let message = format!("goes together with {missing}: give both or neither");
            table.problem(there, message);
        }
    }
    if table.has("user") && table.has("user_certificate") {
        let message = "is another way to log in than user and password_file: give one of the two";
        table.problem("user_certificate", message);
    }
    let password = name
        .zip(password_file)
        .map(|(name, password_file)| User::Password {
            name,
            password_file,
        });
    let certificate = certificate
        .zip(key)
        .map(|(certificate, key)| User::Certificate { certificate, key });
    password.or(certificate)
}
