//! Named profiles: which controllers there are and with which tokens, in a file that only its owner reads.

use crate::failure::Refusal;
use crate::sources::{Kept, Need, Origin, Source};
use anyhow::Context;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

/// The file, with all its profiles.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profiles {
    /// The profile that is used unless another is named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current: Option<String>,
    /// All of them by name.
    #[serde(default)]
    pub profiles: BTreeMap<String, Profile>,
}

/// One controller and what to present to it. `Debug` shows no token.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// The controller.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// The tenant key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// A file that holds the tenant key, instead of the key itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_file: Option<PathBuf>,
    /// The operator's token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admin_token: Option<String>,
}

impl Profile {
    /// What it knows for a command that needs this token.
    pub(crate) fn source(&self, name: &str, need: Need) -> anyhow::Result<Source> {
        let read = |path: &PathBuf| {
            let text = fs::read_to_string(path);
            text.map(|text| text.trim().to_owned()).with_context(|| {
                format!("cannot read {}, the token file of profile {name:?}", path.display())
            })
        };
        let tenant = match (&self.token, &self.token_file) {
            (None, Some(path)) if need == Need::Tenant => Some(read(path)?),
            (token, _) => token.clone(),
        };
        let url = self.url.clone().map(|url| (Origin::Profile(name.to_owned()), url));
        Ok(Source { url, given: None, kept: Kept { tenant, admin: self.admin_token.clone() } })
    }
}

impl std::fmt::Debug for Profile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Profile").field("url", &self.url).finish_non_exhaustive()
    }
}

/// `$XDG_CONFIG_HOME/jobplane/config.toml`, by default under `~/.config`.
///
/// # Errors
/// When neither `XDG_CONFIG_HOME` nor `HOME` is set.
pub fn path() -> anyhow::Result<PathBuf> {
    let folder = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let config = folder("XDG_CONFIG_HOME")
        .or_else(|| folder("HOME").map(|home| home.join(".config")))
        .context("neither XDG_CONFIG_HOME nor HOME is set, so there is no place for profiles")?;
    Ok(config.join("jobplane/config.toml"))
}

impl Profiles {
    /// Reads the file; no file (or no home to look in) means no profiles.
    ///
    /// # Errors
    /// When it is there and cannot be read.
    pub fn load() -> anyhow::Result<Self> {
        path().map_or_else(|_| Ok(Self::default()), |path| Self::read(&path))
    }

    fn read(path: &Path) -> anyhow::Result<Self> {
        match fs::read_to_string(path) {
            // The parser's own message would quote the line, and with it a token.
            Ok(text) => toml::from_str(&text).map_err(|error| {
                anyhow::anyhow!("{} makes no sense: {}", path.display(), toml::de::Error::message(&error))
            }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    /// Writes the file, whole or not at all, for its owner's eyes only.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn save(&self) -> anyhow::Result<()> {
        self.write(&path()?)
    }

    fn write(&self, path: &Path) -> anyhow::Result<()> {
        let folder = path.parent().context("the file of profiles has no folder")?;
        let written = || -> anyhow::Result<()> {
            fs::create_dir_all(folder)?;
            // A new temporary file is readable by its owner only, and keeps that when it is renamed.
            let mut file = tempfile::NamedTempFile::new_in(folder)?;
            file.write_all(toml::to_string(self)?.as_bytes())?;
            file.persist(path)?;
            Ok(())
        };
        written().with_context(|| format!("cannot write {}", path.display()))
    }

    /// The profile that was asked for, else the current one, else none.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn chosen(&self, asked: Option<&str>) -> anyhow::Result<Option<(&str, &Profile)>> {
        let Some(name) = asked.or(self.current.as_deref()) else { return Ok(None) };
        let (name, profile) = self.profiles.get_key_value(name).ok_or_else(|| {
            let known = self.profiles.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
            let known = if known.is_empty() { "there are none".to_owned() } else { format!("known: {known}") };
            Refusal::NotFound(format!(
                "there is no profile {name:?} ({known})\n  Make it with `jobplane profile set {name} --url URL`"
            ))
        })?;
        Ok(Some((name, profile)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn two() -> Profiles {
        let profile =
            |url: &str| Profile { url: Some(url.into()), token: Some("t".into()), ..Profile::default() };
        let profiles = [("a".to_owned(), profile("http://a")), ("b".to_owned(), profile("http://b"))].into();
        Profiles { current: Some("a".into()), profiles }
    }

    #[test]
    fn what_is_asked_for_wins_over_the_current_one() {
        let profiles = two();
        assert_eq!(profiles.chosen(None).unwrap().unwrap().0, "a");
        assert_eq!(profiles.chosen(Some("b")).unwrap().unwrap().0, "b");
        assert!(profiles.chosen(Some("c")).unwrap_err().to_string().contains("known: a, b"));
        assert!(Profiles::default().chosen(None).unwrap().is_none());
    }

    #[test]
    fn the_file_reads_back_and_is_its_owners_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("jobplane/config.toml");
        assert!(Profiles::read(&path).unwrap().profiles.is_empty());
        two().write(&path).unwrap();
        assert_eq!(Profiles::read(&path).unwrap().profiles["b"].url.as_deref(), Some("http://b"));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_token_file_is_read_only_for_who_needs_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let profile = Profile { token_file: Some(path.clone()), ..Profile::default() };
        assert!(profile.source("p", Need::Admin).is_ok());
        assert!(profile.source("p", Need::Tenant).is_err());
        fs::write(&path, "secret\n").unwrap();
        assert_eq!(profile.source("p", Need::Tenant).unwrap().kept.tenant.as_deref(), Some("secret"));
    }

    #[test]
    fn a_broken_file_is_refused_without_showing_tokens() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        fs::write(&path, "[profiles.a]\ntoken = \"jp_key_secret\" oops").unwrap();
        let error = format!("{:#}", Profiles::read(&path).unwrap_err());
        assert!(error.contains("config.toml") && !error.contains("secret"), "{error}");
    }
}
