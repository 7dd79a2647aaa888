//! Workers as processes of their own: started, signalled, killed and started again.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

/// A worker that ends with the test.
pub struct Worker {
    /// The process that it is at the moment.
    pub process: Child,
    command: Command,
}

impl Worker {
    /// Starts a worker of four slots that does not wait for what runs when it is to stop, with what a test has to say
    /// about its command besides.
    pub fn start(url: &str, token: &str, more: impl FnOnce(&mut Command)) -> Self {
        Self::of(&program("jobplane-worker"), url, token, more)
    }

    /// The same of another program that is a worker.
    pub fn of(program: &Path, url: &str, token: &str, more: impl FnOnce(&mut Command)) -> Self {
        let mut command = Command::new(program);
        command
            .env("JOBPLANE_URL", url)
            .env("JOBPLANE_WORKER_TOKEN", token)
            .env("JOBPLANE_CONCURRENCY", "4")
            .env("JOBPLANE_DRAIN_SECONDS", "0")
            .stdin(Stdio::null());
        more(&mut command);
        let process = command.spawn().expect("the worker starts");
        Self { process, command }
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.process.id().try_into().expect("a process id"));
        kill(pid, signal).expect("it is a child that was not reaped");
    }

    /// A figure of its memory by the name that proc(5) gives it in `status`, such as `VmRSS`, in kB.
    pub fn memory(&self, name: &str) -> u32 {
        memory(&self.process.id().to_string(), name)
    }

    /// Kills it with SIGKILL and starts another in its place.
    pub fn kill_and_restart(&mut self) {
        self.end();
        self.process = self.command.spawn().expect("the worker starts");
    }

    fn end(&mut self) {
        self.process.kill().expect("it can be killed");
        self.process.wait().expect("it is reaped");
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.end();
    }
}

/// The same of any process.
pub(crate) fn memory(pid: &str, name: &str) -> u32 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let figure = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    figure.expect("it has the figure").trim().trim_end_matches(" kB").parse().expect("a number")
}

/// The path of one of the workspace's binaries, which is named as its package, built once.
pub fn program(package: &str) -> PathBuf {
    static BUILT: OnceLock<()> = OnceLock::new();
    BUILT.get_or_init(|| {
        build(PROFILE, &["-p", "jobplane-worker", "-p", "jobplane"]);
    });
    built().join(package)
}

/// The path of the binary of one of the deployed functions, built now.
pub(crate) fn function(name: &str) -> PathBuf {
    build(PROFILE, &["-p", "jobplane-functions", "--bin", name]);
    built().join(name)
}

/// The path of one of the worker's examples, built now.
pub fn example(name: &str) -> PathBuf {
    build(PROFILE, &["-p", "jobplane-worker", "--example", name]);
    built().join("examples").join(name)
}

/// The worker as its image has it, built now.
pub(crate) fn shipped_worker() -> PathBuf {
    build("dist", &["-p", "jobplane-worker"]);
    built().with_file_name("dist").join("jobplane-worker")
}

/// As this program was built.
const PROFILE: &str = if cfg!(debug_assertions) { "dev" } else { "release" };

/// Builds parts of the workspace.
fn build(profile: &str, what: &[&str]) {
    let built =
        Command::new(env!("CARGO")).args(["build", "--quiet", "--profile", profile]).args(what).status();
    assert!(built.is_ok_and(|status| status.success()), "{what:?} are built");
}

/// Where what is built lies.
fn built() -> PathBuf {
    let program = std::env::current_exe().expect("this program has a path");
    let place = program.parent().expect("it lies in a directory");
    // Tests lie in one of their own, beside the binaries.
    if place.ends_with("deps") { place.parent().expect("it is in another") } else { place }.to_owned()
}
