//! An attempt's own directory: where it works, what it is given, what it leaves for its result.

use super::remove::remove_all;
use super::user::JobUser;
use crate::result_file::{self, RESULT_FILE};
use jobplane_protocol::Json;
use nix::libc;
use nix::unistd::chown;
use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What a job finds empty.
const DIRECTORIES: [&str; 3] = ["work", "tmp", "output"];
const INPUT: &str = "input.json";
/// A kernel's clock for files may stand still for so long: changes in that time have the same time.
const TICK: Duration = Duration::from_millis(50);

/// How a file or directory is told from one that somebody has changed since: its identity, and when its kernel saw
/// the last change to what it holds, is called, or who may use it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    changed: (i64, i64),
    mode: u32,
    links: u64,
    size: u64,
}

impl Stamp {
    /// As it is now; no link is followed.
    fn of(path: &Path) -> io::Result<Self> {
        let seen = fs::symlink_metadata(path)?;
        Ok(Self {
            device: seen.dev(),
            inode: seen.ino(),
            changed: (seen.ctime(), seen.ctime_nsec()),
            mode: seen.mode(),
            links: seen.nlink(),
            size: seen.size(),
        })
    }
}

/// What a job is given, as it was given.
#[derive(Debug)]
struct Part {
    path: PathBuf,
    /// And since when it is so; nothing if it has to be made.
    made: Option<(Stamp, Instant)>,
}

impl Part {
    /// Whether nobody has changed it since it was made, some while before `since`; otherwise a look inside has to show
    /// the same.
    fn is_as_made(&self, since: Instant, inside: impl FnOnce(&Path) -> io::Result<bool>) -> io::Result<bool> {
        let Some((stamp, made)) = self.made else { return Ok(false) };
        Ok(Stamp::of(&self.path)? == stamp && (made + TICK < since || inside(&self.path)?))
    }
}

/// `work` (the working directory and HOME), `tmp`, `output` and `input.json`, for one attempt after the other. Dropping
/// it removes everything; what cannot be removed is left for the worker to see.
pub(super) struct Workspace {
    directory: PathBuf,
    /// The job's user, if it is another than this process's.
    user: Option<JobUser>,
    empty: [Part; 3],
    input: Part,
    /// What the last job was given.
    text: String,
    /// Of the directory itself, once all is in it.
    whole: Option<Stamp>,
    /// When the last job was about to start.
    began: Instant,
}

impl Workspace {
    /// Makes the directory, which nobody else may have made. Another user is given what will be in it, but not the
    /// directory: so nothing in it can be replaced by a link to what that user may not reach.
    pub(super) fn create(directory: &Path, user: Option<&JobUser>) -> io::Result<Self> {
        DirBuilder::new().mode(0o700).create(directory)?;
        let part = |name| Part { path: directory.join(name), made: None };
        let workspace = Self {
            directory: directory.to_owned(),
            user: user.cloned(),
            empty: DIRECTORIES.map(part),
            input: part(INPUT),
            text: String::new(),
            whole: None,
            began: Instant::now(),
        };
        if let Some(user) = user {
            chown(directory, None, user.gid())?;
            fs::set_permissions(directory, Permissions::from_mode(0o710))?;
        }
        Ok(workspace)
    }

    /// Makes what is not there, and writes the input.
    pub(super) fn prepare(&mut self, input: &str) -> io::Result<()> {
        let Self { empty, user, .. } = self;
        for part in empty.iter_mut().filter(|part| part.made.is_none()) {
            DirBuilder::new().mode(0o700).create(&part.path)?;
            give(&part.path, user.as_ref(), 0o700)?;
            part.made = Some((Stamp::of(&part.path)?, Instant::now()));
        }
        if self.input.made.is_none() || self.text != input {
            self.write(input)?;
            input.clone_into(&mut self.text);
        }
        self.whole = Some(Stamp::of(&self.directory)?);
        self.began = Instant::now();
        Ok(())
    }

    fn write(&mut self, input: &str) -> io::Result<()> {
        let path = &self.input.path;
        let new = self.input.made.is_none();
        let mut file = File::options().write(true).create_new(new).truncate(!new).mode(0o600).open(path)?;
        file.write_all(input.as_bytes())?;
        drop(file);
        if new {
            give(path, self.user.as_ref(), 0o400)?;
        }
        self.input.made = Some((Stamp::of(path)?, Instant::now()));
        Ok(())
    }

    /// Removes what the last job has left or changed. What it was given and did not touch is the next one's: on a disk
    /// it costs as much as the process to make all of it and remove it again.
    ///
    /// # Errors
    /// Also if the job has changed the directory around it: then all has to go.
    pub(super) fn clear(&mut self) -> io::Result<()> {
        if self.whole != Stamp::of(&self.directory).ok() {
            return Err(io::Error::other("the job has changed the directory around its own"));
        }
        let Self { empty, input, text, began, .. } = self;
        for part in empty {
            let kept = part.is_as_made(*began, |path| Ok(fs::read_dir(path)?.next().is_none()));
            renew(part, kept)?;
        }
        let kept = input.is_as_made(*began, |path| Ok(fs::read_to_string(path)? == *text));
        renew(input, kept)
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
        self.input.path.clone()
    }

    /// What the job left as its result, `None` if nothing; or what is wrong with it.
    pub(super) fn result(&self) -> Result<Option<Json>, String> {
        let path = self.output().join(RESULT_FILE);
        // A link is not followed, and a pipe or a device would never end.
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
        let file = match File::options().read(true).custom_flags(flags).open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) if error.raw_os_error() == Some(libc::ELOOP) => return Err(result_file::irregular()),
            Err(error) => return Err(result_file::unreadable(&error)),
        };
        let metadata = file.metadata().map_err(|error| result_file::unreadable(&error))?;
        if !metadata.is_file() {
            return Err(result_file::irregular());
        }
        if self.user.as_ref().is_some_and(|user| metadata.uid() != user.uid) {
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

/// Removes it, unless it is known to be as it was made.
fn renew(part: &mut Part, kept: io::Result<bool>) -> io::Result<()> {
    if kept.unwrap_or(false) {
        return Ok(());
    }
    part.made = None;
    remove_all(&part.path)
}

/// Gives what was just made to the job's user, if that is another.
fn give(path: &Path, user: Option<&JobUser>, mode: u32) -> io::Result<()> {
    let Some(user) = user else { return Ok(()) };
    fs::set_permissions(path, Permissions::from_mode(mode))?;
    Ok(chown(path, user.uid(), user.gid())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prepared() -> (tempfile::TempDir, Workspace) {
        let place = tempfile::tempdir().unwrap();
        let mut workspace = Workspace::create(&place.path().join("attempt"), None).unwrap();
        workspace.prepare("1").unwrap();
        (place, workspace)
    }

    fn inodes(workspace: &Workspace) -> Vec<u64> {
        let parts = [workspace.work(), workspace.temporary(), workspace.output(), workspace.input()];
        parts.iter().map(|path| fs::metadata(path).unwrap().ino()).collect()
    }

    #[test]
    fn what_a_job_did_not_touch_is_the_next_ones_with_an_input_of_its_own() {
        let (_place, mut workspace) = prepared();
        let before = inodes(&workspace);
        workspace.clear().unwrap();
        workspace.prepare("22").unwrap();
        assert_eq!(inodes(&workspace), before);
        assert_eq!(fs::read_to_string(workspace.input()).unwrap(), "22");
    }

    /// What a job did.
    type Deed = fn(&Workspace);

    #[test]
    fn nothing_that_a_job_left_or_changed_is_there_for_the_next() {
        let deeds: [(&str, Deed); 5] = [
            ("a file", |job| fs::write(job.work().join("file"), "x").unwrap()),
            ("a closed directory", |job| {
                fs::set_permissions(job.temporary(), Permissions::from_mode(0o000)).unwrap();
            }),
            ("an open directory", |job| {
                fs::set_permissions(job.output(), Permissions::from_mode(0o777)).unwrap();
            }),
            ("another input", |job| fs::write(job.input(), "more than there was").unwrap()),
            ("no input", |job| fs::write(job.input(), "").unwrap()),
        ];
        for (name, deed) in deeds {
            let (_place, mut workspace) = prepared();
            deed(&workspace);
            workspace.clear().unwrap();
            workspace.prepare("2").unwrap();
            for path in [workspace.work(), workspace.temporary(), workspace.output()] {
                assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o700, "{name}");
                assert_eq!(fs::read_dir(&path).unwrap().count(), 0, "{name}");
            }
            assert_eq!(fs::read_to_string(workspace.input()).unwrap(), "2", "{name}");
        }
    }

    #[test]
    fn a_directory_that_a_job_has_changed_around_its_own_is_used_no_more() {
        let outside = tempfile::tempdir().unwrap();
        let deeds: [&dyn Fn(&Workspace); 3] = [
            &|job| fs::write(job.directory.join("more"), "x").unwrap(),
            &|job| fs::rename(job.work(), job.directory.join("moved")).unwrap(),
            &|job| {
                fs::remove_dir(job.work()).unwrap();
                std::os::unix::fs::symlink(outside.path(), job.work()).unwrap();
            },
        ];
        for deed in deeds {
            let (place, mut workspace) = prepared();
            deed(&workspace);
            workspace.clear().unwrap_err();
            drop(workspace);
            assert_eq!(fs::read_dir(&place).unwrap().count(), 0);
        }
        assert!(outside.path().exists());
    }

    #[test]
    fn a_directory_that_is_there_already_is_neither_used_nor_removed() {
        let place = tempfile::tempdir().unwrap();
        fs::write(place.path().join("kept"), "x").unwrap();
        assert!(Workspace::create(place.path(), None).is_err());
        assert!(place.path().join("kept").exists());
    }
}
