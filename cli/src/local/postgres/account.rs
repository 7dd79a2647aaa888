//! The account that PostgreSQL runs under: PostgreSQL refuses root, so root lends it another.

use anyhow::Context;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::unistd::{Gid, Uid, User, chown};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The account that root lends to PostgreSQL.
const UNPRIVILEGED: &str = "nobody";

/// Who PostgreSQL runs as.
#[derive(Debug, Clone, Copy)]
pub(super) enum Account {
    /// Whoever we are.
    Own,
    /// Another, because we are root.
    Lent(Uid, Gid),
}

impl Account {
    /// The account for a directory: the one that owns it already, or what [`UNPRIVILEGED`] names.
    pub(super) fn choose(directory: &Path) -> anyhow::Result<Self> {
        if !Uid::effective().is_root() {
            return Ok(Self::Own);
        }
        if let Ok(found) = directory.metadata()
            && found.uid() != 0
        {
            return Ok(Self::Lent(Uid::from_raw(found.uid()), Gid::from_raw(found.gid())));
        }
        let user = User::from_name(UNPRIVILEGED)?.with_context(|| {
            format!("PostgreSQL refuses to run as root, and there is no account \"{UNPRIVILEGED}\" to lend it; run as another user")
        })?;
        Ok(Self::Lent(user.uid, user.gid))
    }

    /// Gives the account a file or directory of ours.
    pub(super) fn give(self, path: &Path) -> anyhow::Result<()> {
        match self {
            Self::Own => Ok(()),
            Self::Lent(uid, gid) => chown(path, Some(uid), Some(gid))
                .with_context(|| format!("cannot give {} to PostgreSQL's account", path.display())),
        }
    }

    /// A command that runs as the account and works on `directory`, and the name by which it may call that.
    ///
    /// A lent account often cannot reach the directory by its path: a parent such as /root is closed to it. So the
    /// command inherits a descriptor of the directory, and goes by what that leads to without walking the path.
    pub(super) fn command(self, program: &Path, directory: &Path) -> anyhow::Result<Launch> {
        let entrance =
            File::open(directory).with_context(|| format!("cannot open {}", directory.display()))?;
        let mut command = Command::new(program);
        command.current_dir("/");
        let name = match self {
            Self::Own => directory.to_owned(),
            Self::Lent(uid, gid) => {
                command.uid(uid.as_raw()).gid(gid.as_raw());
                fcntl(&entrance, FcntlArg::F_SETFD(FdFlag::empty()))?;
                PathBuf::from(format!("/proc/self/fd/{}", entrance.as_raw_fd()))
            }
        };
        Ok(Launch { command, directory: name, _entrance: entrance })
    }
}

/// A command that is about to run in a directory of PostgreSQL's.
pub(super) struct Launch {
    /// What to run.
    pub(super) command: Command,
    /// What the command may call that directory.
    pub(super) directory: PathBuf,
    /// Must be open when the command starts.
    _entrance: File,
}
