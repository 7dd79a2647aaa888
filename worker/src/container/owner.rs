//! Which worker a container belongs to, and whether that worker is dead.

use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use std::fs;
use std::io;

/// A worker's process so that no other can be taken for it: the boot of its machine, its namespace of process ids
/// there, its id, and when it began.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Owner {
    boot: String,
    namespace: String,
    pid: i32,
    began: u64,
    /// What tells the runtimes of one process apart.
    random: u32,
}

impl Owner {
    /// This process.
    pub(super) fn this() -> io::Result<Self> {
        let pid = i32::try_from(std::process::id()).map_err(io::Error::other)?;
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned();
        let namespace = fs::read_link("/proc/self/ns/pid")?.to_string_lossy().into_owned();
        let (_, began) = process(pid).ok_or(io::ErrorKind::NotFound)?;
        Ok(Self { boot, namespace, pid, began, random: rand::random() })
    }

    /// As it stands on a container.
    pub(super) fn label(&self) -> String {
        format!("{} {} {} {} {}", self.boot, self.namespace, self.pid, self.began, self.random)
    }

    fn parse(label: &str) -> Option<Self> {
        let mut parts = label.split(' ');
        let mut part = || parts.next();
        Some(Self {
            boot: part()?.to_owned(),
            namespace: part()?.to_owned(),
            pid: part()?.parse().ok()?,
            began: part()?.parse().ok()?,
            random: part()?.parse().ok()?,
        })
    }

    /// Whether the worker of this label is certain to be dead: only one that would be seen here if it lived. Of any
    /// other nothing is known, and its containers go when their time is over.
    pub(super) fn knows_dead(&self, label: &str) -> bool {
        Self::parse(label).is_some_and(|other| {
            other.boot == self.boot && other.namespace == self.namespace && !is_alive(&other)
        })
    }
}

/// A process that may not be looked at is alive: no more is needed to leave its containers alone.
fn is_alive(owner: &Owner) -> bool {
    if kill(Pid::from_raw(owner.pid), None) == Err(Errno::ESRCH) {
        return false;
    }
    process(owner.pid).is_none_or(|(state, began)| began == owner.began && state != 'Z')
}

/// A process's state, and when it began, in ticks since the boot.
fn process(pid: i32) -> Option<(char, u64)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may hold anything, so the fields are counted from its end.
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split(' ');
    let state = fields.next()?.chars().next()?;
    let began = fields.nth(18)?.parse().ok()?;
    Some((state, began))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    fn of(pid: u32) -> Owner {
        let pid = i32::try_from(pid).unwrap();
        Owner { pid, began: process(pid).unwrap().1, ..Owner::this().unwrap() }
    }

    #[test]
    fn a_worker_is_dead_only_when_it_is_certain() {
        let this = Owner::this().unwrap();
        let mut other = Command::new("sleep").arg("1000").spawn().unwrap();
        let living = of(other.id());
        assert!(!this.knows_dead(&this.label()) && !this.knows_dead(&living.label()));
        other.kill().unwrap();
        other.wait().unwrap();
        assert!(this.knows_dead(&living.label()), "it has ended");
        let reused = Owner { began: this.began + 1, ..this.clone() };
        assert!(this.knows_dead(&reused.label()), "its number is another's by now");
        for unknown in [
            Owner { boot: "another".to_owned(), ..living.clone() }.label(),
            Owner { namespace: "pid:[1]".to_owned(), ..living }.label(),
            "nonsense".to_owned(),
        ] {
            assert!(!this.knows_dead(&unknown), "{unknown}");
        }
    }

    #[test]
    fn a_worker_that_was_killed_and_not_yet_waited_for_is_dead() {
        let this = Owner::this().unwrap();
        let mut other = Command::new("sleep").arg("1000").spawn().unwrap();
        let label = of(other.id()).label();
        other.kill().unwrap();
        while process(i32::try_from(other.id()).unwrap()).unwrap().0 != 'Z' {
            std::thread::yield_now();
        }
        assert!(this.knows_dead(&label));
        other.wait().unwrap();
    }
}
