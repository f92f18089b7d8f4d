//! Whom we log in as, and the files that prove it.

use super::error::Error;
use super::wire::{KeyPair, Login};
use std::path::{Path, PathBuf};

/// A user at the server. The files are read anew at every connect, so that a new password or
/// certificate needs no restart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum User {
    Password {
        name: String,
        password_file: PathBuf,
    },
    /// Files in PEM or DER. The certificate is the user's, not the one of this application.
    Certificate { certificate: PathBuf, key: PathBuf },
}

impl User {
    /// As the configuration has it.
    pub(super) fn keys(&self) -> [(&'static str, String); 2] {
        let text = |path: &Path| path.display().to_string();
        match self {
            Self::Password {
                name,
                password_file,
            } => [
                ("user", name.clone()),
                ("password_file", text(password_file)),
            ],
            Self::Certificate { certificate, key } => [
                ("user_certificate", text(certificate)),
                ("user_key", text(key)),
            ],
        }
    }
}

/// Reads what logs `user` in; nobody is anonymous.
pub(super) fn login(user: Option<&User>) -> Result<Login, Error> {
    Ok(match user {
        None => Login::Anonymous,
        Some(User::Password {
            name,
            password_file,
        }) => Login::User {
            name: name.clone(),
            password: password(password_file)?,
        },
        Some(User::Certificate { certificate, key }) => {
            Login::Certificate(Box::new(KeyPair::read(certificate, key)?))
        }
    })
}

fn password(path: &Path) -> Result<String, Error> {
    let text = std::fs::read_to_string(path).map_err(|error| Error::Pki {
        action: "read the password from",
        path: path.to_owned(),
        detail: error.to_string(),
    })?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}
