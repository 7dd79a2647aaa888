//! Which controller a command talks to and with which token: flags, then environment, profile and `dev.json`.

use crate::failure::Refusal;
use jobplane_protocol::{Token, TokenKind};
use serde::Deserialize;
use std::fmt;
use std::path::{Path, PathBuf};

/// What `jobplane dev` writes about itself, under the directory where it is started.
pub(crate) const DEV_FILE: &str = ".jobplane/dev.json";

/// Which kind of token a command needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// A tenant's key.
    Tenant,
    /// The operator's token.
    Admin,
}

impl Need {
    /// The kind in words, with its article.
    pub fn token(self) -> &'static str {
        match self {
            Self::Tenant => "a tenant key (jp_key_…)",
            Self::Admin => "an admin token (jp_admin_…)",
        }
    }

    fn kind(self) -> TokenKind {
        match self {
            Self::Tenant => TokenKind::Tenant,
            Self::Admin => TokenKind::Admin,
        }
    }
}

/// Where a URL or a token came from, as it is told to people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A flag.
    Flag(&'static str),
    /// An environment variable.
    Environment(&'static str),
    /// A named profile.
    Profile(String),
    /// The file of a platform that runs on this machine.
    DevFile(PathBuf),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(name) => write!(f, "{name}"),
            Self::Environment(name) => write!(f, "the environment ({name})"),
            Self::Profile(name) => write!(f, "profile {name:?}"),
            Self::DevFile(path) => write!(f, "{}", path.display()),
        }
    }
}

/// One place that may know the URL, tokens, or both.
pub(crate) struct Source {
    pub(crate) url: Option<(Origin, String)>,
    /// A token that was given for this command: used whatever its kind, wherever the URL came from.
    pub(crate) given: Option<(Origin, String)>,
    /// Tokens that are kept together with the URL, and go nowhere else.
    pub(crate) kept: Kept,
}

/// The tokens that are kept with a URL.
#[derive(Default)]
pub(crate) struct Kept {
    pub(crate) tenant: Option<String>,
    pub(crate) admin: Option<String>,
}

/// The controller and the token that were settled on.
pub struct Target {
    /// The controller.
    pub url: String,
    /// Where that came from.
    pub url_origin: Origin,
    /// The token.
    pub token: String,
    /// Where that came from.
    pub token_origin: Origin,
    /// What the command needs.
    pub need: Need,
}

impl Target {
    /// What to do when there is no connection.
    pub fn unreachable(&self) -> String {
        match &self.url_origin {
            Origin::DevFile(path) => {
                format!("Is `jobplane dev` running? The URL came from {}.", path.display())
            }
            origin if is_local(&self.url) => {
                format!("Is `jobplane dev` running? The URL {} came from {origin}.", self.url)
            }
            origin => format!("The URL {} came from {origin}.", self.url),
        }
    }
}

/// Whether a URL names this machine.
pub(crate) fn is_local(url: &str) -> bool {
    ["http://127.0.0.1:", "http://localhost:", "http://[::1]:"].iter().any(|start| url.starts_with(start))
}

/// Settles on a URL and a token: the first source that has one wins, but a kept token goes only to
/// the URL that it is kept with.
///
/// # Errors
/// When there is no URL or no token, or when the token is of another kind than the command needs.
pub(crate) fn settle(sources: Vec<Source>, need: Need) -> anyhow::Result<Target> {
    let Some((url_origin, url)) = sources.iter().find_map(|source| source.url.clone()) else {
        let advice = "no controller is known\n  Start one here with `jobplane dev`, or give --url and --token, or set \
             JOBPLANE_URL and JOBPLANE_TOKEN, or keep them with `jobplane profile set NAME --url URL --token -`";
        return Err(Refusal::Usage(advice.to_owned()).into());
    };
    for Source { url: at, given, kept } in sources {
        if let Some((origin, token)) = given {
            refuse_other_kind(&token, &origin, need)?;
            return Ok(Target { url, url_origin, token, token_origin: origin, need });
        }
        let Some((origin, at)) = at else { continue };
        let token = match need {
            Need::Tenant => kept.tenant,
            Need::Admin => kept.admin,
        };
        if let Some(token) = token.filter(|_| at.trim_end_matches('/') == url.trim_end_matches('/')) {
            refuse_other_kind(&token, &origin, need)?;
            return Ok(Target { url, url_origin, token, token_origin: origin, need });
        }
    }
    let profile = match &url_origin {
        Origin::Profile(name) => name.clone(),
        _ => format!("NAME --url {url}"),
    };
    let advice = format!(
        "this command needs {}, and none is known for {url} (from {url_origin})\n  Give --token, set \
         JOBPLANE_TOKEN, or keep one with `jobplane profile set {profile} {} -`",
        need.token(),
        if need == Need::Admin { "--admin-token" } else { "--token" },
    );
    Err(Refusal::Token(advice).into())
}

fn refuse_other_kind(token: &str, origin: &Origin, need: Need) -> anyhow::Result<()> {
    let Some(kind) = Token::parse(token).map(|token| token.kind()) else { return Ok(()) };
    if kind == need.kind() {
        return Ok(());
    }
    let have = match kind {
        TokenKind::Admin => Need::Admin.token(),
        TokenKind::Tenant => Need::Tenant.token(),
        TokenKind::Worker => "a worker token (jp_worker_…)",
    };
    Err(Refusal::Token(format!("this command needs {}, and {origin} holds {have}", need.token())).into())
}

/// The fields of [`DEV_FILE`] that a client needs.
#[derive(Deserialize)]
struct DevFile {
    url: String,
    admin_token: String,
    tenant_key: String,
}

/// The source that a `jobplane dev` started in `directory` left, if there is one. Only a URL of this
/// machine is believed: a file that lies in a directory must not send commands elsewhere.
///
/// # Errors
/// When the file is there and makes no sense.
pub(crate) fn dev_file(directory: &Path) -> anyhow::Result<Option<Source>> {
    let path = directory.join(DEV_FILE);
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => anyhow::bail!("cannot read {}: {error}", path.display()),
    };
    let file: DevFile = serde_json::from_str(&text)
        .map_err(|error| anyhow::anyhow!("{} makes no sense: {error}", path.display()))?;
    anyhow::ensure!(is_local(&file.url), "{} names {}, not this machine", path.display(), file.url);
    let kept = Kept { tenant: Some(file.tenant_key), admin: Some(file.admin_token) };
    Ok(Some(Source { url: Some((Origin::DevFile(path), file.url)), given: None, kept }))
}

#[cfg(test)]
mod tests;
