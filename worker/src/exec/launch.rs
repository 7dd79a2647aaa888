//! How a warden starts a job: plainly, or by a process that takes on the job's bounds and then becomes the job.

use super::environment;
use super::group;
use super::warden::Bounds;
use crate::runtime::Ending;
use nix::unistd::{Gid, Uid, dup2_stdin, setgid, setgroups, setuid};
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// What such a process is called until it is the job's.
pub(super) const NAME: &str = "jobplane-job";

/// A command that runs this program within these bounds, and in this control group. Its warden is not within them: what it takes to end the job
/// and remove what that leaves does not count against the job's limits, and one warden can guard many jobs.
pub(super) fn command(
    program: &str,
    arguments: &[String],
    bounds: &Bounds,
    group: Option<&Path>,
) -> io::Result<Command> {
    let mut command = if bounds.are_none() {
        Command::new(program)
    } else {
        let mut command = this_program();
        command.arg(serde_json::to_string(bounds)?).arg(group.unwrap_or(Path::new(""))).arg(program);
        command
    };
    command.args(arguments);
    Ok(command)
}

/// Starts such a command; or says why the attempt has ended before it began.
pub(super) fn start(mut command: Command, program: &str, bounds: &Bounds) -> Result<Child, Ending> {
    let no_process = |error| Ending::not_started(program, &error);
    if bounds.are_none() {
        return command.stdin(Stdio::null()).spawn().map_err(no_process);
    }
    let lost = |error: io::Error| Ending::unstarted(format!("the worker could not start {program}: {error}"));
    let (mut process, its) = UnixStream::pair().map_err(no_process)?;
    let variables = environment::take(&mut command);
    let mut job = command.stdin(OwnedFd::from(its)).spawn().map_err(lost)?;
    drop(command);
    let mut refused = Vec::new();
    let variables = serde_json::to_vec(&variables).map_err(io::Error::from);
    let told = variables.and_then(|variables| process.write_all(&variables));
    let told = told.and_then(|()| process.shutdown(Shutdown::Write));
    // Until it is the job's, which does not inherit the other end.
    let heard = told.and_then(|()| process.read_to_end(&mut refused));
    if matches!(heard, Ok(0)) {
        return Ok(job);
    }
    job.kill().and_then(|()| job.wait()).map_err(lost)?;
    Err(heard.and_then(|_| Ok(serde_json::from_slice(&refused)?)).unwrap_or_else(lost))
}

/// Becomes the job, or says on standard input why not. The job's variables come from there too: they are its user's, who
/// could otherwise have the loader run what they name while this process still is another's.
pub(super) fn launch(mut arguments: impl Iterator<Item = OsString>) -> io::Result<()> {
    // A copy that is not inherited.
    let mut says = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    let mut variables = Vec::new();
    says.read_to_end(&mut variables)?;
    let variables: Vec<(OsString, OsString)> = serde_json::from_slice(&variables)?;
    let mut next = || arguments.next().ok_or(io::ErrorKind::InvalidInput);
    let (bounds, group, program) = (next()?, next()?, next()?);
    dup2_stdin(File::open("/dev/null")?)?;
    let ending = match take_on(bounds.as_encoded_bytes(), Path::new(&group)) {
        Ok(()) => {
            let error = Command::new(&program).args(arguments).env_clear().envs(variables).exec();
            Ending::not_started(&program.to_string_lossy(), &error)
        }
        Err(error) => Ending::unstarted(format!("the worker could not set its limits for jobs: {error}")),
    };
    says.write_all(&serde_json::to_vec(&ending)?)
}

fn take_on(bounds: &[u8], group: &Path) -> io::Result<()> {
    let Bounds { limits, user, .. } = serde_json::from_slice(bounds)?;
    let in_group = *group != *"";
    if in_group {
        group::enter(group)?;
    }
    limits.apply(in_group)?;
    if let Some(user) = user {
        // Groups that the worker is in besides are left behind as well.
        setgroups(&[])?;
        setgid(Gid::from_raw(user.gid))?;
        setuid(Uid::from_raw(user.uid))?;
    }
    // Only now: by a user that has as many processes as it may have, no process could become that user's job.
    limits.apply_to_user()
}

/// This program, under the name by which it knows what it is to be.
#[cfg(not(test))]
fn this_program() -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg0(NAME);
    command
}

/// The test that is one. The shell keeps what a test prints out of the job's output, and with `-p` its effective user.
#[cfg(test)]
fn this_program() -> Command {
    const TEST: &str = "exec::tests::this_becomes_the_jobs_of_the_other_tests";
    let mut command = Command::new("sh");
    let script = format!(r#"exec "$0" --ignored --exact {TEST} --nocapture -- "$@" 3>&1 >/dev/null"#);
    command.arg("-pc").arg(script).arg(std::env::current_exe().expect("it runs"));
    command
}
