//! The data directory: ours alone while the platform runs, readable by its owner only, kept out of version control.

use super::Access;
use anyhow::{Context, bail};
use std::fs::{self, DirBuilder, File, TryLockError};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// A data directory that this process holds.
pub(super) struct DataDir {
    path: PathBuf,
    /// Held, not read: the system lets go of it when this process is gone, however it went.
    _lock: File,
}

impl DataDir {
    /// Takes the directory, and makes it when new.
    pub(super) fn open(path: &Path) -> anyhow::Result<Self> {
        let unwritable = || format!("the data directory {} cannot be used", path.display());
        DirBuilder::new().recursive(true).mode(0o700).create(path).with_context(unwritable)?;
        let path = path.canonicalize().with_context(unwritable)?;
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path.join("lock"))
            .with_context(unwritable)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => bail!(
                "{} is in use by another `jobplane dev`; stop that one first, or choose another with --data-dir",
                path.display()
            ),
            Err(TryLockError::Error(error)) => return Err(error).with_context(unwritable),
        }
        fs::write(path.join(".gitignore"), "*\n").with_context(unwritable)?;
        Ok(Self { path, _lock: lock })
    }

    /// Where PostgreSQL lives.
    pub(super) fn postgres(&self) -> PathBuf {
        self.path.join("postgres")
    }

    /// What the last platform here left for the next.
    pub(super) fn access(&self) -> anyhow::Result<Option<Access>> {
        let file = self.path.join("dev.json");
        match fs::read(&file) {
            Ok(text) => serde_json::from_slice(&text).map(Some).with_context(|| {
                format!("{} makes no sense; remove it, and new tokens are made", file.display())
            }),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", file.display())),
        }
    }

    /// Leaves it for the next, whole or not at all. Temporary files are their owner's alone, and stay so.
    pub(super) fn keep(&self, access: &Access) -> anyhow::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(&self.path)?;
        serde_json::to_writer(&mut file, access)?;
        file.write_all(b"\n")?;
        file.persist(self.path.join("dev.json"))?;
        Ok(())
    }
}
