//! `jobplane run`: asks for an execution of a job, or for many.

mod batches;
mod bulk;

use super::job::find;
use crate::failure::{EXIT_CODES, Refusal};
use crate::output::say;
use crate::session::Session;
use crate::time::parse_future;
use crate::values::{priority, variable};
use crate::watch::{Wait, to_the_end};
use anyhow::Context;
use jiff::Timestamp;
use jobplane_protocol::{Job, Json, Priority, RunRequest, RunResponse};
use std::io::Read;
use std::path::PathBuf;
use std::process::ExitCode;
use uuid::Uuid;

/// What to run.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXIT_CODES)]
pub(super) struct Args {
    /// The job's name or id
    job: String,
    #[command(flatten)]
    request: Request,
    /// Instead of the job's priority: 0, 25, 50, 75 or 100
    #[arg(long, value_parser = priority)]
    priority: Option<Priority>,
    /// A variable over the job's, for this execution; may be repeated
    #[arg(long, short, value_name = "NAME=VALUE", value_parser = variable)]
    env: Vec<(String, String)>,
    #[command(flatten)]
    wait: Wait,
    /// Ask for many: each line of this file, or of standard input with `-`, is one execution
    ///
    /// A line is JSON, {"input": …, "scheduled_at": …, "priority": …, "env": …}, all of them optional. All lines
    /// are checked before the first is sent. The same file for the same job is the same request for 24 hours: a
    /// run that failed half-way is repeated as it is, and doubles nothing. To run a file again on purpose, give
    /// another --idempotency-key.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["input", "schedule", "priority", "env", "wait"])]
    bulk: Option<PathBuf>,
    /// With --bulk: each line is an input and nothing else
    #[arg(long, requires = "bulk")]
    inputs: bool,
}

/// What an execution is asked for with.
#[derive(Debug, clap::Args)]
pub(super) struct Request {
    /// Its input: JSON, @FILE that holds JSON, or - for standard input
    #[arg(long, short, value_name = "JSON|@FILE|-")]
    input: Option<String>,
    /// Not before this time: RFC 3339, or from now, such as 10m
    #[arg(long, value_name = "TIME", value_parser = parse_future)]
    schedule: Option<Timestamp>,
    /// The same key again within 24 hours asks for nothing new, but answers the same execution; the request must
    /// be the same too, so schedule it by RFC 3339
    #[arg(long, value_name = "KEY")]
    pub(super) idempotency_key: Option<String>,
}

impl Request {
    /// The request, its input read from wherever it is.
    pub(super) fn read(&self) -> anyhow::Result<RunRequest> {
        let input = self.input.as_deref().map(input).transpose()?;
        Ok(RunRequest { input, scheduled_at: self.schedule, ..RunRequest::default() })
    }
}

pub(super) async fn run(args: Args, session: &Session) -> anyhow::Result<ExitCode> {
    let salt = args.request.idempotency_key;
    if let Some(file) = &args.bulk {
        return bulk::run(&args.job, file, args.inputs, salt.as_deref(), session).await;
    }
    let args = Args { request: Request { idempotency_key: None, ..args.request }, ..args };
    let request = RunRequest {
        priority: args.priority,
        env: (!args.env.is_empty()).then(|| args.env.into_iter().collect()),
        ..args.request.read()?
    };
    let job = find(&session.client, &args.job).await?;
    ask(&job, &request, salt, &args.wait, session).await
}

/// Asks for the execution, and waits for it if that is wanted.
pub(super) async fn ask(
    job: &Job,
    request: &RunRequest,
    idempotency_key: Option<String>,
    wait: &Wait,
    session: &Session,
) -> anyhow::Result<ExitCode> {
    Refusal::check(request)?;
    // With a key the call can be repeated when an answer is lost, so there always is one.
    let key = idempotency_key.unwrap_or_else(|| Uuid::new_v4().to_string());
    let call =
        session.client.post(format!("/jobs/{}/run", job.id)).json(request).header("Idempotency-Key", key);
    let asked: RunResponse = call.send().await?;
    let id = asked.execution_id;
    if wait.wait {
        say(&format!("Execution {id} of job {}", job.name));
        return to_the_end(session, id, wait.timeout).await;
    }
    session.output.show(&asked, || id.to_string())?;
    if !session.output.is_json() {
        say(&format!("{} is {}; follow it with: jobplane logs --follow {id}", job.name, asked.status));
    }
    Ok(ExitCode::SUCCESS)
}

/// Reads an input: JSON itself, `@` and a file's path, or `-` for standard input.
fn input(text: &str) -> anyhow::Result<Json> {
    let (from, text) = match text.strip_prefix('@') {
        Some(path) => {
            let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
            (path.to_owned(), text)
        }
        None if text == "-" => {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).context("cannot read standard input")?;
            ("standard input".to_owned(), text)
        }
        None => ("--input".to_owned(), text.to_owned()),
    };
    serde_json::from_str(text.trim()).map_err(|error| {
        let advice =
            format!("{from} is not JSON: {error}; a text is JSON in quotes, such as --input '\"text\"'");
        Refusal::Usage(advice).into()
    })
}

#[cfg(test)]
mod tests {
    use super::input;

    #[test]
    fn an_input_is_json_or_a_file_of_it() {
        assert_eq!(input(" {\"n\": 1.10} ").unwrap().get(), "{\"n\": 1.10}");
        assert!(input("text").unwrap_err().to_string().contains("--input is not JSON"));
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, "[1]\n").unwrap();
        assert_eq!(input(&format!("@{}", file.path().display())).unwrap().get(), "[1]");
        assert!(input("@/nowhere").unwrap_err().to_string().contains("/nowhere"));
    }

    #[test]
    fn an_input_may_nest_deeper_than_a_parser_likes() {
        let deep = format!("{}{}", "[".repeat(5_000), "]".repeat(5_000));
        assert_eq!(input(&deep).unwrap().get(), deep);
    }
}
