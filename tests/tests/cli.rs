//! The real `jobplane` binary against a real control plane: what each command does, prints and exits with.

mod admin;
mod asking;
mod dead_letters;
mod failures;
mod jobs;
mod looking;
mod output;
mod profiles;
mod running;
mod terminal;
mod waiting;
mod watching;

use jobplane_tests::{Cell, program};
use serde_json::{Value, json};
use std::ffi::OsStr;
use std::process::{Output, Stdio};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// When all log lines are written.
const WRITTEN_AT: &str = "2026-01-31T12:00:00.123Z";

/// A shell in an empty directory that is its home too, with a cell to talk to and nothing else in its environment.
struct Shell {
    cell: Cell,
    home: TempDir,
}

/// How a command ended.
#[derive(Debug)]
struct Ran {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Shell {
    async fn new() -> Self {
        Self { cell: Cell::new().await, home: tempfile::tempdir().unwrap() }
    }

    /// A program in this shell.
    fn program(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("HOME", self.home.path())
            .current_dir(self.home.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    /// A command, its words with blanks between, that knows no controller.
    fn bare(&self, line: &str) -> Command {
        let mut command = self.program(program("jobplane"));
        command.args(line.split(' '));
        command
    }

    /// A command that speaks with this token.
    fn with(&self, token: &str, line: &str) -> Command {
        let mut command = self.bare(line);
        command.env("JOBPLANE_URL", &self.cell.url).env("JOBPLANE_TOKEN", token);
        command
    }

    /// Runs a command as the tenant.
    async fn run(&self, line: &str) -> Ran {
        ran(self.with(&self.cell.tenant, line)).await
    }

    /// Runs a command as the operator.
    async fn admin(&self, line: &str) -> Ran {
        ran(self.with(&self.cell.admin, line)).await
    }

    /// Runs a command as the tenant with this on its standard input.
    async fn fed(&self, line: &str, input: &str) -> Ran {
        fed(self.with(&self.cell.tenant, line), input).await
    }

    /// Writes the first lines of an attempt: the stream and the text of each.
    async fn log(&self, id: &str, lease: &str, lines: &[(&str, &str)]) {
        let line = |(stream, text): &(&str, &str)| json!({"at": WRITTEN_AT, "stream": stream, "text": text});
        let lines: Vec<_> = lines.iter().map(line).collect();
        let chunk = json!({"lease_id": lease, "first_seq": 0, "lines": lines});
        self.cell.post(&format!("/internal/executions/{id}/logs"), &self.cell.worker, chunk).await.ok();
    }

    /// Writes a file in the shell's directory.
    fn file(&self, name: &str, text: &str) {
        std::fs::write(self.home.path().join(name), text).unwrap();
    }
}

/// Runs a command to its end.
async fn ran(mut command: Command) -> Ran {
    command.spawn().unwrap().wait_with_output().await.unwrap().into()
}

/// Runs a command to its end with this on its standard input.
async fn fed(mut command: Command, input: &str) -> Ran {
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).await.unwrap();
    child.wait_with_output().await.unwrap().into()
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }
}

impl Ran {
    /// What it printed, if it went well.
    #[track_caller]
    fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.stdout
    }

    /// The document that it printed, if it went well.
    #[track_caller]
    fn json(self) -> Value {
        let text = self.ok();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// What it complained about. Such a command prints nothing.
    #[track_caller]
    fn refused(self, code: i32) -> String {
        assert_eq!((self.code, self.stdout.as_str()), (Some(code), ""), "{self:?}");
        assert!(self.stderr.starts_with("error: "), "{self:?}");
        self.stderr
    }
}
