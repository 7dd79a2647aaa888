//! A job's own control group (cgroups(7), version 2), where the worker may make one: limits of the job as a whole.

use super::limits::JobSettings;
use crate::Error;
use nix::errno::Errno;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};
use uuid::Uuid;

/// Where the worker is once its own group holds those of jobs: a group that has both processes and controlled groups is
/// not to be had.
const OWN: &str = "jobplane-worker";
/// What the names of jobs' groups begin with.
const PREFIX: &str = "jobplane-";
/// How long the kernel may take to see that a group has nobody left.
const PATIENCE: Duration = Duration::from_secs(2);
/// Between two looks at it.
const PAUSE: Duration = Duration::from_millis(5);
/// So old is a group without anyone in it that was left behind: a younger one may be just about to have its job.
const LEFT_BEHIND: Duration = Duration::from_secs(60);
/// Of `cpu.max`: the time, in microseconds, in which a group may use its share.
const PERIOD_MICROS: i64 = 100_000;
/// Billionths of a processor for each microsecond of that.
const NANO_CPUS_A_MICRO: i64 = 1_000_000_000 / PERIOD_MICROS;

/// Where the groups of jobs are to be, once it is seen that they can be made: in the worker's own group. `None` if no
/// limit asks for one, or only one that can be kept in another way.
///
/// # Errors
/// [`Error::Configuration`] if there is a limit that only a group can keep.
pub(super) fn place(limits: &JobSettings) -> Result<Option<PathBuf>, Error> {
    let wanted = controllers(limits);
    if wanted.is_empty() {
        return Ok(None);
    }
    match ready(&wanted, limits) {
        Ok(place) => {
            tracing::info!(place = %place.display(), "each job has a control group of its own");
            remove_left_behind(&place);
            Ok(Some(place))
        }
        Err(why) if limits.need_group() => Err(Error::Configuration(format!(
            "limits of processors or processes of a job need control groups, and the worker can make none: {why}"
        ))),
        Err(why) => {
            tracing::info!(
                why,
                "memory is limited for each process of a job: the worker can make no control groups"
            );
            Ok(None)
        }
    }
}

/// The group of the job that has this directory.
pub(super) fn path(groups: Option<&Path>, directory: &Path) -> Option<PathBuf> {
    Some(groups?.join(directory.file_name()?))
}

/// The controllers that these limits need.
fn controllers(limits: &JobSettings) -> Vec<&'static str> {
    let needs = [
        ("memory", limits.job_memory_mib.is_some()),
        ("pids", limits.job_processes.is_some()),
        ("cpu", limits.job_cpus.is_some()),
    ];
    needs.into_iter().filter(|(_, is_set)| *is_set).map(|(name, _)| name).collect()
}

/// Makes the worker's own group one that holds groups, and tries whether it does.
fn ready(wanted: &[&str], limits: &JobSettings) -> Result<PathBuf, String> {
    let place = own()?;
    let said = |what: &str, error: &io::Error| format!("{}: {what}: {error}", place.display());
    let has = fs::read_to_string(place.join("cgroup.controllers"));
    let has = has.map_err(|error| said("cgroup.controllers", &error))?;
    if let Some(lacks) = wanted.iter().find(|&&wanted| !has.split_whitespace().any(|name| name == wanted)) {
        return Err(format!("{} does not have the controller {lacks}", place.display()));
    }
    enable(&place, wanted).map_err(|error| match error.raw_os_error() {
        Some(code) if code == Errno::EBUSY as i32 => {
            format!("{}: the worker is not the only process there", place.display())
        }
        _ => said("cgroup.subtree_control", &error),
    })?;
    let tried = Group::create(place.join(format!("{PREFIX}{}", Uuid::new_v4())), limits);
    tried.map_err(|error| said("a group for a job", &error))?;
    Ok(place)
}

/// The group of this process as the file system shows it; the one around it, if it is the worker's by an earlier start.
fn own() -> Result<PathBuf, String> {
    let read = |path: &str| fs::read_to_string(path).map_err(|error| format!("{path}: {error}"));
    let (groups, mounts) = (read("/proc/self/cgroup")?, read("/proc/self/mountinfo")?);
    let path = path_of(&groups, &mounts).ok_or("no control groups of version 2 are mounted")?;
    let around = path.parent().filter(|_| path.ends_with(OWN)).map(Path::to_owned);
    Ok(around.unwrap_or(path))
}

/// What proc(5) says of a process's groups and mounts, put together.
fn path_of(groups: &str, mounts: &str) -> Option<PathBuf> {
    let own = Path::new(groups.lines().find_map(|line| line.strip_prefix("0::"))?);
    mounts.lines().find_map(|line| {
        let (mount, kind) = line.split_once(" - ")?;
        let mut fields = mount.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        let below = own.strip_prefix(root).ok()?;
        kind.starts_with("cgroup2 ").then(|| Path::new(point).join(below))
    })
}

/// Lets groups in this one have the controllers. For that the worker goes into one of its own, and nobody else may be left
/// but in the group of all processes: groups in one that has processes get nobody, or no memory to themselves.
fn enable(place: &Path, wanted: &[&str]) -> io::Result<()> {
    let apart = place.join(OWN);
    match fs::create_dir(&apart) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => enter(&apart)?,
    }
    let enabled = || {
        let is_root = !place.join("cgroup.type").exists();
        if !is_root && !fs::read_to_string(place.join("cgroup.procs"))?.is_empty() {
            return Err(Errno::EBUSY.into());
        }
        let wanted: Vec<_> = wanted.iter().map(|name| format!("+{name}")).collect();
        fs::write(place.join("cgroup.subtree_control"), wanted.join(" "))
    };
    enabled().or_else(|error| {
        // Nothing has been gained by it.
        enter(place)?;
        Err(error)
    })
}

/// Moves this process, with all its threads, into a group.
pub(super) fn enter(group: &Path) -> io::Result<()> {
    fs::write(group.join("cgroup.procs"), "0")
}

/// Removes groups of jobs that nobody is in any more: of workers that were killed together with their wardens.
fn remove_left_behind(place: &Path) {
    let Ok(groups) = fs::read_dir(place) else { return };
    let old = |made: io::Result<SystemTime>| {
        made.is_ok_and(|made| made.elapsed().is_ok_and(|age| age > LEFT_BEHIND))
    };
    for group in groups.filter_map(Result::ok) {
        let name = group.file_name();
        let is_of_a_job = name.to_string_lossy().starts_with(PREFIX) && name != OWN;
        if is_of_a_job && old(group.metadata().and_then(|group| group.modified())) {
            // One with a job in it cannot be removed.
            drop(remove(&group.path()));
        }
    }
}

/// A group for one job. Dropping it removes it.
pub(super) struct Group {
    path: PathBuf,
}

impl Group {
    /// Makes the group and sets its limits.
    ///
    /// # Errors
    /// If that is not allowed, or a limit is refused.
    pub(super) fn create(path: PathBuf, limits: &JobSettings) -> io::Result<Self> {
        fs::create_dir(&path)?;
        let group = Self { path };
        if let Some(bytes) = limits.memory_bytes() {
            group.set("memory.max", &bytes.to_string())?;
            // All of a job is killed, or nothing; what it cannot have it does not get by swapping.
            group.set("memory.oom.group", "1")?;
            match group.set("memory.swap.max", "0") {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        if let Some(most) = limits.job_processes {
            group.set("pids.max", &most.to_string())?;
        }
        if let Some(nanos) = limits.job_cpus {
            group.set("cpu.max", &format!("{} {PERIOD_MICROS}", nanos / NANO_CPUS_A_MICRO))?;
        }
        Ok(group)
    }

    /// One that somebody else has made, and has perhaps removed.
    pub(super) fn at(path: PathBuf) -> Self {
        Self { path }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    fn set(&self, file: &str, value: &str) -> io::Result<()> {
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{file}: {error}"));
        fs::write(self.path.join(file), value).map_err(named)
    }

    /// Kills all that is in it in one stroke, where the kernel can do that (5.14).
    pub(super) fn kill(&self) {
        if let Err(error) = self.set("cgroup.kill", "1") {
            tracing::debug!(%error, "a control group was not killed as a whole");
        }
    }

    /// Whether the kernel has killed something in it because it was at its limit of memory.
    pub(super) fn was_out_of_memory(&self) -> bool {
        let events = fs::read_to_string(self.path.join("memory.events")).unwrap_or_default();
        let happened = |what: &str| {
            events.lines().filter_map(|line| line.strip_prefix(what)).any(|count| count.trim() != "0")
        };
        // The first alone is a machine's that has none left.
        happened("oom_kill ") && happened("oom ")
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let began = Instant::now();
        while let Err(error) = remove(&self.path) {
            if began.elapsed() > PATIENCE {
                tracing::warn!(%error, path = %self.path.display(), "a control group could not be removed");
                return;
            }
            std::thread::sleep(PAUSE);
        }
    }
}

/// Removes a group that nobody is in any more, and those that a job has made in it.
fn remove(group: &Path) -> io::Result<()> {
    let removed = fs::read_dir(group).and_then(|entries| {
        for entry in entries {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                remove(&entry.path())?;
            }
        }
        fs::remove_dir(group)
    });
    removed.or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_found_behind_whatever_is_mounted() {
        let mounts = "24 1 0:21 / /sys rw,nosuid - sysfs sysfs rw\n\
            30 24 0:26 / /sys/fs/cgroup ro,nosuid - tmpfs tmpfs ro\n\
            31 30 0:27 / /sys/fs/cgroup/unified rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n\
            32 30 0:28 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory";
        let found = |groups, mounts| path_of(groups, mounts);
        let groups = "4:memory:/a\n0::/system.slice/jobplane.service\n";
        let path = "/sys/fs/cgroup/unified/system.slice/jobplane.service";
        assert_eq!(found(groups, mounts), Some(PathBuf::from(path)));
        let part = "31 30 0:27 /system.slice /groups rw - cgroup2 cgroup2 rw";
        assert_eq!(found(groups, part), Some(PathBuf::from("/groups/jobplane.service")));
        assert_eq!(found("0::/elsewhere\n", part), None);
        assert_eq!(found("4:memory:/a\n", mounts), None);
        assert_eq!(found(groups, "32 30 0:28 / /sys/fs/cgroup rw - cgroup cgroup rw,memory"), None);
    }
}
