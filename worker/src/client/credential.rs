//! The bearer token of a client: where it comes from, and how it is renewed without being shown.

use crate::Error;
use reqwest::header::HeaderValue;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Longest token file that is read, in bytes; a token has about 80.
const MAX_TOKEN_BYTES: u64 = 4096;

/// Where a client's bearer token comes from. `Debug` shows no secret.
#[derive(Clone)]
pub enum Credential {
    /// No token: for the open routes.
    None,
    /// The token itself.
    Value(String),
    /// A file with the token, read again whenever the controller answers 401.
    File(PathBuf),
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::None => f.write_str("None"),
            Self::Value(_) => f.write_str("Value(…)"),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
        }
    }
}

/// A credential and the header that was last made of it.
pub(crate) struct Authorization {
    credential: Credential,
    header: Mutex<Option<HeaderValue>>,
}

impl Authorization {
    /// Reads the token for the first time.
    pub(crate) fn new(credential: Credential) -> Result<Self, Error> {
        let header = match &credential {
            Credential::None => None,
            Credential::Value(token) => Some(bearer(token)?),
            Credential::File(path) => Some(read(path)?),
        };
        Ok(Self { credential, header: Mutex::new(header) })
    }

    /// The header to send now.
    pub(crate) fn header(&self) -> Option<HeaderValue> {
        self.header.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// After a 401 to `used`: whether there is another token by now, from the file or from another
    /// call that read it meanwhile.
    pub(crate) fn renew(&self, used: Option<&HeaderValue>) -> bool {
        let Credential::File(path) = &self.credential else { return false };
        let mut header = self.header.lock().unwrap_or_else(PoisonError::into_inner);
        if header.as_ref() != used {
            return true;
        }
        match read(path) {
            Ok(fresh) if header.as_ref() != Some(&fresh) => {
                *header = Some(fresh);
                true
            }
            Ok(_) => false,
            Err(error) => {
                tracing::warn!(%error, "the token was refused and its file cannot be read again");
                false
            }
        }
    }
}

fn read(path: &Path) -> Result<HeaderValue, Error> {
    let refuse = |cause: &dyn std::fmt::Display| {
        Error::Configuration(format!("cannot read the token file {}: {cause}", path.display()))
    };
    let size = std::fs::metadata(path).map_err(|error| refuse(&error))?.len();
    if size > MAX_TOKEN_BYTES {
        return Err(refuse(&format!("{size} bytes are no token")));
    }
    bearer(&std::fs::read_to_string(path).map_err(|error| refuse(&error))?)
}

fn bearer(token: &str) -> Result<HeaderValue, Error> {
    let token = token.trim();
    if token.is_empty() {
        return Err(Error::Configuration("the token is empty".to_owned()));
    }
    let mut header = HeaderValue::from_str(&format!("Bearer {token}"))
        .map_err(|_| Error::Configuration("the token holds characters that no token has".to_owned()))?;
    header.set_sensitive(true);
    Ok(header)
}
