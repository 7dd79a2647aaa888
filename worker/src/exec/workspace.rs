//! An attempt's own directory: where it works, what it is given, what it leaves for its result.

use super::user::JobUser;
use crate::result_file::{self, RESULT_FILE};
use jobplane_protocol::Json;
use nix::libc;
use nix::unistd::chown;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// `work` (the working directory and HOME), `tmp`, `output` and `input.json`. Dropping it removes
/// everything; what cannot be removed is left for the worker to see.
pub(super) struct Workspace {
    directory: PathBuf,
    /// The job's user, if it is another than this process's.
    uid: Option<u32>,
}

impl Workspace {
    /// Makes the directories and writes the input. Another user is given what is in the directory, but not the
    /// directory: so nothing in it can be replaced by a link to what that user may not reach.
    pub(super) fn create(directory: &Path, input: &str, user: Option<&JobUser>) -> io::Result<Self> {
        DirBuilder::new().mode(0o700).create(directory)?;
        let workspace = Self { directory: directory.to_owned(), uid: user.map(|user| user.uid) };
        for made in [workspace.work(), workspace.temporary(), workspace.output()] {
            fs::create_dir(made)?;
        }
        fs::write(workspace.input(), input)?;
        if let Some(user) = user {
            workspace.give_to(user)?;
        }
        Ok(workspace)
    }

    fn give_to(&self, user: &JobUser) -> io::Result<()> {
        for (path, mode) in
            [(self.work(), 0o700), (self.temporary(), 0o700), (self.output(), 0o700), (self.input(), 0o400)]
        {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
            chown(&path, user.uid(), user.gid())?;
        }
        chown(&self.directory, None, user.gid())?;
        fs::set_permissions(&self.directory, fs::Permissions::from_mode(0o710))
    }

    pub(super) fn work(&self) -> PathBuf {
        self.directory.join("work")
    }

    pub(super) fn temporary(&self) -> PathBuf {
        self.directory.join("tmp")
    }

    pub(super) fn output(&self) -> PathBuf {
        self.directory.join("output")
    }

    pub(super) fn input(&self) -> PathBuf {
        self.directory.join("input.json")
    }

    /// What the job left as its result, `None` if nothing; or what is wrong with it.
    pub(super) fn result(&self) -> Result<Option<Json>, String> {
        let path = self.output().join(RESULT_FILE);
        // A link is not followed, and a pipe or a device would never end.
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
        let file = match fs::File::options().read(true).custom_flags(flags).open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) if error.raw_os_error() == Some(libc::ELOOP) => return Err(result_file::irregular()),
            Err(error) => return Err(result_file::unreadable(&error)),
        };
        let metadata = file.metadata().map_err(|error| result_file::unreadable(&error))?;
        if !metadata.is_file() {
            return Err(result_file::irregular());
        }
        if self.uid.is_some_and(|uid| metadata.uid() != uid) {
            // Nor is a second name of a file that the job could not read.
            return Err(format!("{RESULT_FILE} does not belong to the job"));
        }
        result_file::read(file).map(Some)
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        // The worker looks again, and says what is wrong.
        drop(remove_all(&self.directory));
    }
}

/// Removes a directory and all in it, also what a job has made unwritable, as module caches are.
pub(super) fn remove_all(directory: &Path) -> io::Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            open_up(directory)?;
            fs::remove_dir_all(directory)
        }
        removed => removed,
    }
}

/// Lets the owner into every directory from here on down; no link is followed.
fn open_up(directory: &Path) -> io::Result<()> {
    let mut closed = vec![directory.to_owned()];
    while let Some(directory) = closed.pop() {
        let mut permissions = fs::symlink_metadata(&directory)?.permissions();
        permissions.set_mode(permissions.mode() | 0o700);
        fs::set_permissions(&directory, permissions)?;
        for entry in fs::read_dir(&directory)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                closed.push(entry.path());
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_job_made_unwritable_is_removed_too() {
        let outside = tempfile::tempdir().unwrap();
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join("attempt");
        let (closed, within) = (directory.join("closed"), directory.join("closed/within"));
        fs::create_dir_all(&within).unwrap();
        fs::write(within.join("file"), "").unwrap();
        std::os::unix::fs::symlink(outside.path(), directory.join("link")).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        for path in [&within, &closed, outside.path()] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o500)).unwrap();
        }
        // Who may do everything is refused nothing, so this part is looked at by itself.
        open_up(&directory).unwrap();
        assert_eq!((mode(&closed), mode(&within), mode(outside.path())), (0o700, 0o700, 0o500));
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o500)).unwrap();
        remove_all(&directory).unwrap();
        assert!(!directory.exists());
    }
}
