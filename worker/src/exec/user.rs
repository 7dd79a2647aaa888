//! The user that jobs run as, where that is another than the worker's.

use crate::Error;
use nix::unistd::{Gid, Uid, User, geteuid};
use serde::{Deserialize, Serialize};
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::{fmt, io};

/// A user that is not root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct JobUser {
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Unless the machine has none for it.
    pub(super) name: Option<String>,
}

impl JobUser {
    /// The user of this name, or of these numbers (UID or UID:GID).
    pub(super) fn find(text: &str) -> Result<Self, Error> {
        let refused = |why: &str| Error::Configuration(format!("JOBPLANE_JOB_USER={text}: {why}"));
        if !geteuid().is_root() {
            return Err(refused("only a worker that runs as root can run jobs as another user"));
        }
        let (user, group) = text.split_once(':').map_or((text, None), |(user, group)| (user, Some(group)));
        let number = |text: &str| text.parse::<u32>().ok();
        let group = match group {
            Some(group) => Some(number(group).ok_or_else(|| refused("the group is not a number"))?),
            None => None,
        };
        let known = match number(user) {
            Some(uid) => User::from_uid(Uid::from_raw(uid)),
            None => User::from_name(user),
        };
        let known = known.map_err(|error| refused(&error.to_string()))?;
        let uid = known.as_ref().map(|known| known.uid.as_raw()).or_else(|| number(user));
        let uid = uid.ok_or_else(|| refused("there is no such user"))?;
        let gid = group.or(known.as_ref().map(|known| known.gid.as_raw())).unwrap_or(uid);
        if uid == 0 || gid == 0 || uid == u32::MAX || gid == u32::MAX {
            return Err(refused("jobs are given a user and a group other than root"));
        }
        Ok(Self { uid, gid, name: known.map(|known| known.name) })
    }

    /// # Errors
    /// Jobs would be given directories in this one, which they could not enter.
    pub(super) fn must_enter(&self, place: &Path) -> Result<(), Error> {
        // What is to be run is not there; it comes to that only where the directory can be entered.
        let tried = Command::new("/dev/null/nothing").uid(self.uid).gid(self.gid).current_dir(place).spawn();
        match tried {
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => Ok(()),
            Ok(_) => Err(Error::Fault("what is not there was run".to_owned())),
            Err(error) => Err(Error::Configuration(format!(
                "JOBPLANE_JOB_USER={self}: that user cannot enter {}, where jobs have their directories ({error}): \
                 open it, or name another with TMPDIR",
                place.display()
            ))),
        }
    }

    /// # Errors
    /// Jobs could read the worker's token in this file.
    pub(super) fn must_not_read(&self, file: &Path) -> Result<(), Error> {
        if !self.can_read(file).unwrap_or(false) {
            return Ok(());
        }
        Err(Error::Configuration(format!(
            "JOBPLANE_WORKER_TOKEN_FILE={}: jobs could read it as the user {self}: give it to root with mode 0400 \
             (in Kubernetes, `defaultMode: 0400` of the secret's volume)",
            file.display()
        )))
    }

    /// As far as modes say.
    fn can_read(&self, file: &Path) -> io::Result<bool> {
        let file = file.canonicalize()?;
        for directory in file.ancestors().skip(1) {
            if !self.may(&directory.metadata()?, 0o1) {
                return Ok(false);
            }
        }
        Ok(self.may(&file.metadata()?, 0o4))
    }

    fn may(&self, of: &Metadata, what: u32) -> bool {
        let as_whom = if of.uid() == self.uid {
            6
        } else if of.gid() == self.gid {
            3
        } else {
            0
        };
        of.mode() >> as_whom & what != 0
    }

    pub(super) fn uid(&self) -> Option<Uid> {
        Some(Uid::from_raw(self.uid))
    }

    pub(super) fn gid(&self) -> Option<Gid> {
        Some(Gid::from_raw(self.gid))
    }
}

impl fmt::Display for JobUser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => f.write_str(name),
            None => self.uid.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_token_file_that_jobs_could_read_is_refused() {
        let place = tempfile::tempdir().unwrap();
        let token = place.path().join("token");
        fs::write(&token, "jp_worker_x").unwrap();
        let own = fs::metadata(&token).unwrap();
        let user = |uid, gid| JobUser { uid, gid, name: None };
        let (owner, member, stranger) =
            (user(own.uid(), 1), user(4_000_001, own.gid()), user(4_000_001, 4_000_001));
        for (directory, mode, by_owner, by_member, by_stranger) in [
            (0o755, 0o644, false, false, false),
            (0o755, 0o600, false, true, true),
            (0o755, 0o440, false, false, true),
            (0o755, 0o604, false, true, false),
            (0o700, 0o644, false, true, true),
            (0o710, 0o644, false, false, true),
        ] {
            fs::set_permissions(&place, Permissions::from_mode(directory)).unwrap();
            fs::set_permissions(&token, Permissions::from_mode(mode)).unwrap();
            for (user, is_fine) in [(&owner, by_owner), (&member, by_member), (&stranger, by_stranger)] {
                let refused = user.must_not_read(&token);
                assert_eq!(refused.is_ok(), is_fine, "{directory:o} {mode:o} {user:?}");
            }
        }
    }

    /// `cargo test -p jobplane-worker as_root -- --ignored`.
    mod as_root {
        use super::*;

        #[test]
        #[ignore = "needs root"]
        fn a_directory_for_temporary_files_that_jobs_cannot_enter_is_refused() {
            let place = tempfile::tempdir().unwrap();
            let user = JobUser { uid: 4_000_001, gid: 4_000_002, name: None };
            for (mode, is_fine) in [(0o700, false), (0o750, false), (0o711, true), (0o1777, true)] {
                fs::set_permissions(&place, Permissions::from_mode(mode)).unwrap();
                let refused = user.must_enter(place.path());
                assert_eq!(refused.is_ok(), is_fine, "{mode:o}: {refused:?}");
            }
            let nowhere = user.must_enter(&place.path().join("nowhere")).unwrap_err();
            assert!(nowhere.to_string().contains("TMPDIR"), "{nowhere}");
        }

        #[test]
        #[ignore = "needs root"]
        fn a_user_is_found_by_name_and_number_and_is_never_root() {
            let nobody = JobUser::find("nobody").unwrap();
            assert_eq!(JobUser::find(&nobody.uid.to_string()).unwrap(), nobody);
            let unknown = JobUser { uid: 4_000_001, gid: 4_000_001, name: None };
            assert_eq!(JobUser::find("4000001").unwrap(), unknown);
            assert_eq!(JobUser::find("4000001:7").unwrap().gid, 7);
            for refused in ["root", "0", "4000001:0", "4294967295", "nobody:", "no such user", ""] {
                assert!(matches!(JobUser::find(refused), Err(Error::Configuration(_))), "{refused}");
            }
        }
    }
}
