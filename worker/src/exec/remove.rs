//! Removing what jobs leave, whatever they made of it: no link is followed, and no depth is too deep.

use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, fchmod, fstat, openat, renameat, unlinkat};
use rustix::io::Errno;
use rustix::path::Arg;
use std::ffi::CStr;
use std::fs::{Permissions, set_permissions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Removes a file, or a directory and all in it, also what a job has made unwritable, as module caches are. What is
/// not there is removed.
pub(super) fn remove_all(path: &Path) -> io::Result<()> {
    while !is_gone(CWD, path)? {
        let directory = open(CWD, path)?;
        for entry in Dir::read_from(&directory)? {
            let entry = entry?;
            let name = entry.file_name();
            if !is_itself(name) && !is_gone(&directory, name)? {
                lift(&directory, name)?;
            }
        }
    }
    Ok(())
}

/// Removes a directory of this one, and puts what is in the directories within it in its place. So a tree of any depth
/// takes two open directories and no stack, and goes a level with each round.
fn lift(above: &OwnedFd, name: &CStr) -> io::Result<()> {
    let directory = open(above, name)?;
    let mut free = 0_u64;
    for entry in Dir::read_from(&directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if is_itself(name) || is_gone(&directory, name)? {
            continue;
        }
        // Its owner may move a directory only if it is writable.
        open(&directory, name)?;
        while let Err(error) = renameat(&directory, name, above, free.to_string()) {
            match error {
                Errno::NOTEMPTY | Errno::EXIST | Errno::NOTDIR => free += 1,
                error => return Err(error.into()),
            }
        }
    }
    is_gone(above, name).map(drop)
}

/// Removes it unless it is a directory that holds something.
fn is_gone(at: impl AsFd, name: impl Arg + Copy) -> io::Result<bool> {
    let removed = match unlinkat(&at, name, AtFlags::empty()) {
        Err(Errno::ISDIR) => unlinkat(&at, name, AtFlags::REMOVEDIR),
        removed => removed,
    };
    match removed {
        Ok(()) | Err(Errno::NOENT) => Ok(true),
        Err(Errno::NOTEMPTY | Errno::EXIST) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Opens a directory, and lets its owner into it.
fn open(at: impl AsFd, name: impl Arg + Copy) -> io::Result<OwnedFd> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let readable = || openat(&at, name, flags | OFlags::RDONLY, Mode::empty());
    let directory = match readable() {
        Err(Errno::ACCESS) => {
            let closed = openat(&at, name, flags | OFlags::PATH, Mode::empty())?;
            let path = format!("/proc/self/fd/{}", closed.as_raw_fd());
            set_permissions(path, Permissions::from_mode(0o700))?;
            readable()?
        }
        opened => opened?,
    };
    let mode = Mode::from_raw_mode(fstat(&directory)?.st_mode);
    if !mode.contains(Mode::RWXU) {
        fchmod(&directory, Mode::RWXU)?;
    }
    Ok(directory)
}

fn is_itself(name: &CStr) -> bool {
    matches!(name.to_bytes(), b"." | b"..")
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::resource::{Resource, getrlimit};
    use rustix::fs::mkdirat;
    use std::fs;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn what_a_job_made_unwritable_is_removed_too_and_no_link_is_followed() {
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("file"), "").unwrap();
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join("attempt");
        let (closed, within) = (directory.join("closed"), directory.join("closed/within"));
        fs::create_dir_all(&within).unwrap();
        fs::write(within.join("file"), "").unwrap();
        std::os::unix::fs::symlink(outside.path(), directory.join("link")).unwrap();
        std::os::unix::fs::symlink(outside.path(), within.join("link")).unwrap();
        for (path, mode) in [(&*within, 0o500), (&*closed, 0), (outside.path(), 0o500)] {
            fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        }
        // Who may do everything is refused nothing, so this part is looked at by itself.
        assert!(open(CWD, &directory.join("link")).is_err());
        open(CWD, &closed).unwrap();
        assert_eq!(mode(&closed), 0o700);
        remove_all(&directory).unwrap();
        assert!(!directory.exists() && outside.path().join("file").exists());
        assert_eq!(mode(outside.path()), 0o500);
    }

    #[test]
    fn a_tree_that_is_deeper_than_any_table_of_open_files_is_removed() {
        // On a disk this would take long.
        let parent = tempfile::tempdir_in("/dev/shm").unwrap();
        let directory = parent.path().join("attempt");
        fs::create_dir(&directory).unwrap();
        let mut deepest = open(CWD, &directory).unwrap();
        for _ in 0..=getrlimit(Resource::RLIMIT_NOFILE).unwrap().0.min(30_000) {
            mkdirat(&deepest, "0", Mode::RWXU).unwrap();
            deepest = open(&deepest, "0").unwrap();
        }
        remove_all(&directory).unwrap();
        assert!(!directory.exists());
    }
}
