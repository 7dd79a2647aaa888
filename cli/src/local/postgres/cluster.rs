//! The folder of one server: its lock, its password, its log, and PostgreSQL's own data, made when new.

use super::account::Account;
use super::binaries::Binaries;
use super::processes;
use anyhow::{Context, bail, ensure};
use std::fs::{self, File, Permissions, TryLockError};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;

/// The last lines of the log that an error shows.
const SHOWN_LINES: usize = 12;

/// A server's folder, ours alone while this exists.
#[derive(Debug)]
pub(super) struct Cluster {
    home: PathBuf,
    pub(super) account: Account,
    pub(super) password: String,
    /// Held, not read: the system lets go of it when this process is gone, however it went.
    pub(super) _lock: File,
}

impl Cluster {
    /// Takes the folder, makes it if need be, and ends a server that was left over in it.
    pub(super) fn open(home: &Path) -> anyhow::Result<Self> {
        fs::create_dir_all(home).with_context(|| format!("cannot make {}", home.display()))?;
        let home = home.canonicalize()?;
        let lock = lock(&home)?;
        let account = Account::choose(&home.join("data"))?;
        // A lent account must get from its data to the password beside it.
        let mode = if matches!(account, Account::Own) { 0o700 } else { 0o711 };
        fs::set_permissions(&home, Permissions::from_mode(mode))?;
        let password = password(&home.join("password"), account)?;
        let cluster = Self { home, account, password, _lock: lock };
        processes::end_left_over(&cluster.data())?;
        Ok(cluster)
    }

    /// PostgreSQL's data directory.
    pub(super) fn data(&self) -> PathBuf {
        self.home.join("data")
    }

    /// Where the server's messages go.
    pub(super) fn log(&self) -> PathBuf {
        self.home.join("postgres.log")
    }

    /// The end of the log, for an error message.
    pub(super) fn log_tail(&self) -> String {
        let text = fs::read(self.log()).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n")
    }

    /// The major version that made the data, if there is data.
    pub(super) fn version(&self) -> anyhow::Result<Option<u32>> {
        let file = self.data().join("PG_VERSION");
        match fs::read_to_string(&file) {
            Ok(text) => {
                Ok(Some(text.trim().parse().with_context(|| format!("{} is damaged", file.display()))?))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", file.display())),
        }
    }

    /// Makes the data. It appears under its name only when it is whole.
    pub(super) fn initialize(&self, binaries: &Binaries) -> anyhow::Result<()> {
        let fresh = self.home.join("data.new");
        match fs::remove_dir_all(&fresh) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot remove {}", fresh.display()));
            }
            _ => {}
        }
        fs::create_dir(&fresh).with_context(|| format!("cannot make {}", fresh.display()))?;
        fs::set_permissions(&fresh, Permissions::from_mode(0o700))?;
        self.account.give(&fresh)?;
        let mut launch = self.account.command(&binaries.folder.join("initdb"), &fresh)?;
        let output = launch
            .command
            .arg("-D")
            .arg(&launch.directory)
            .arg("--pwfile")
            .arg(launch.directory.join("../password"))
            .args([
                "--username=postgres",
                "--auth=scram-sha-256",
                "--encoding=UTF8",
                "--locale=C",
                "--no-sync",
            ])
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .output()
            .context("cannot run initdb")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "initdb failed: {}", said.trim());
        fs::rename(&fresh, self.data())?;
        Ok(())
    }
}

fn lock(home: &Path) -> anyhow::Result<File> {
    let path = home.join("lock");
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .with_context(|| format!("{} is not writable", home.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => bail!(
            "{} is in use by another jobplane; stop that one first, or use another data directory",
            home.display()
        ),
        Err(TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("cannot lock {}", path.display()))
        }
    }
}

/// Reads the server's password, or makes one up: two version 4 UUIDs carry 244 random bits.
fn password(path: &Path, account: Account) -> anyhow::Result<String> {
    match fs::read_to_string(path) {
        Ok(text) if !text.trim().is_empty() => return Ok(text.trim().to_owned()),
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot read {}", path.display()));
        }
        _ => {}
    }
    let password = format!("{}{}", uuid::Uuid::new_v4().simple(), uuid::Uuid::new_v4().simple());
    let mut file = File::options().create(true).write(true).truncate(true).mode(0o600).open(path)?;
    writeln!(file, "{password}")?;
    account.give(path)?;
    Ok(password)
}
