//! Commands that run while the test plays the worker, the clock, or Ctrl-C.

use super::Shell;
use jobplane_tests::{program, text};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout};

/// How long a condition may take to come true.
const LIMIT: Duration = Duration::from_secs(60);

impl Shell {
    /// Takes the next execution as a worker would, as soon as there is one: its id and its lease.
    pub(super) async fn take(&self) -> (String, String) {
        let began = Instant::now();
        loop {
            let (lease, taken) = self.cell.dequeue(1).await;
            if let Some(one) = taken.first() {
                return (text(&one["execution_id"]), lease);
            }
            assert!(began.elapsed() < LIMIT, "nothing was asked for");
            tokio::task::yield_now().await;
        }
    }

    /// Takes the next execution, writes a line, and lets it end like this: its id.
    pub(super) async fn end(&self, line: &str, result: Value) -> String {
        let (id, lease) = self.take().await;
        self.log(&id, &lease, &[("stdout", line)]).await;
        self.cell.result(&id, &lease, result).await.ok();
        id
    }

    /// Asks for an execution of a job `j`, which is made: its id.
    pub(super) async fn asked_for(&self) -> String {
        let job = self.cell.new_job(json!({"name": "j"})).await;
        self.cell.run(&job).await
    }
}

/// A command that runs, and what it has printed so far, on stdout and stderr alike.
pub(super) struct Running {
    child: Child,
    output: Lines<BufReader<ChildStdout>>,
    shown: Vec<String>,
}

impl Running {
    /// Starts a command as the tenant.
    pub(super) fn start(shell: &Shell, line: &str) -> Self {
        let (url, token) = (&shell.cell.url, &shell.cell.tenant);
        Self::start_with(shell, line, &[("JOBPLANE_URL", url), ("JOBPLANE_TOKEN", token)])
    }

    /// Starts a command with these variables.
    pub(super) fn start_with(shell: &Shell, line: &str, variables: &[(&str, &str)]) -> Self {
        let mut command = shell.program("sh");
        command.args(["-c", r#"exec "$@" 2>&1"#, "sh"]).arg(program("jobplane")).args(line.split(' '));
        command.envs(variables.iter().copied());
        let mut child = command.spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, output, shown: Vec::new() }
    }

    /// Reads on until a line has this text: that line.
    pub(super) async fn until(&mut self, text: &str) -> &str {
        while self.shown.last().is_none_or(|line| !line.contains(text)) {
            let line = self.output.next_line().await.unwrap();
            self.shown.push(line.unwrap_or_else(|| panic!("no {text} in {:?}", self.shown)));
        }
        self.shown.last().unwrap()
    }

    /// Presses Ctrl-C.
    pub(super) fn interrupt(&self) {
        let id = Pid::from_raw(self.child.id().unwrap().try_into().unwrap());
        kill(id, Signal::SIGINT).unwrap();
    }

    /// Reads on to the end: the exit code, and all that was printed.
    pub(super) async fn end(mut self) -> (Option<i32>, Vec<String>) {
        while let Some(line) = self.output.next_line().await.unwrap() {
            self.shown.push(line);
        }
        (self.child.wait().await.unwrap().code(), self.shown)
    }

    /// Lets the execution that it shows fail once, and succeed when it has told of that.
    pub(super) async fn see_failure_and_success(mut self, shell: &Shell, failure: &str) -> Vec<String> {
        shell.end("first", json!({"outcome": "failed", "error": "why"})).await;
        self.until(failure).await;
        shell.cell.fall_due().await;
        shell.end("second", json!({"outcome": "succeeded"})).await;
        let (code, shown) = self.end().await;
        assert_eq!(code, Some(0), "{shown:?}");
        shown
    }
}
