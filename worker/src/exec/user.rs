//! The user that jobs run as, where that is another than the worker's.

use crate::Error;
use nix::unistd::{Gid, Uid, User, geteuid};
use serde::{Deserialize, Serialize};

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

    pub(super) fn uid(&self) -> Option<Uid> {
        Some(Uid::from_raw(self.uid))
    }

    pub(super) fn gid(&self) -> Option<Gid> {
        Some(Gid::from_raw(self.gid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `cargo test -p jobplane-worker as_root -- --ignored`.
    mod as_root {
        use super::*;

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
