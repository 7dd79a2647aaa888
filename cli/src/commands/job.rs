//! `jobplane job`: the definitions that executions are asked of.

pub(super) mod definition;
mod update;

use crate::failure::Refusal;
use crate::pages::{Pages, named};
use crate::session::Session;
use crate::table::{Cell, Table};
use crate::time::{short, since};
use crate::values::Limit;
use definition::{Definition, words};
use jobplane_protocol::Job;
use jobplane_worker::Client;
use serde_json::json;
use std::process::ExitCode;
use std::time::Duration;

/// What can be done with jobs.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Create a job: jobplane job create NAME -- PROGRAM ARGUMENTS…
    Create {
        /// Its name, unique among the tenant's jobs
        name: String,
        #[command(flatten)]
        definition: Definition,
    },
    /// List jobs, the newest first
    List,
    /// Show a job
    Show {
        /// Its name or id
        job: String,
    },
    /// Change a job: what is not named stays
    Update(update::Args),
    /// Delete a job: no new executions; what was asked for runs, and the history stays
    Delete {
        /// Its name or id
        job: String,
    },
}

pub(super) async fn run(command: Command, session: &Session) -> anyhow::Result<ExitCode> {
    match command {
        Command::Create { name, definition } => {
            let request = definition.create(name);
            Refusal::check(&request)?;
            let call = session.client.post("/jobs").json(&request).unrepeatable().send::<Job>();
            let job = call.await.map_err(|error| Refusal::of_create(error, "job", &request.name))?;
            show(&job, session)?;
        }
        Command::List => list(session).await?,
        Command::Show { job } => show(&find(&session.client, &job).await?, session)?,
        Command::Update(args) => show(&update::run(args, session).await?, session)?,
        Command::Delete { job } => {
            let Job { id, name, .. } = find(&session.client, &job).await?;
            session.client.delete(format!("/jobs/{id}")).send::<()>().await?;
            let deleted = json!({ "id": id, "deleted": true });
            session.output.show(&deleted, || format!("Job {name} is deleted."))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The job of this name or id.
pub(super) async fn find(client: &Client, job: &str) -> anyhow::Result<Job> {
    named(client, "/jobs", "job", job, |item: &Job| item.name == job).await
}

async fn list(session: &Session) -> anyhow::Result<()> {
    let jobs: Vec<Job> = Pages::of(&session.client, "/jobs").all().await?;
    session.output.show(&jobs, || {
        let mut table = Table::new(&["NAME", "ID", "QUEUE", "PRIORITY", "CREATED", "RUNS"]);
        for job in &jobs {
            table.row([
                Cell::text(&job.name),
                Cell::text(job.id),
                Cell::text(&job.queue),
                Cell::number(i16::from(job.priority)),
                Cell::text(since(job.created_at)),
                Cell::cut(what_runs(job)),
            ]);
        }
        table.render(&session.output)
    })
}

fn what_runs(job: &Job) -> String {
    let command = job.command.as_deref().map(words).unwrap_or_default();
    match &job.image {
        Some(image) => format!("[{image}] {command}"),
        None => command,
    }
}

fn show(job: &Job, session: &Session) -> anyhow::Result<()> {
    session.output.show(job, || {
        let seconds = |seconds: i32| short(Duration::from_secs(u64::try_from(seconds).unwrap_or_default()));
        let mut table = Table::fields();
        table.field("Job", &job.name);
        table.field("Id", job.id);
        table.field_if("Image", job.image.as_ref());
        table.field_if("Command", job.command.as_deref().map(words));
        for (name, value) in &job.env {
            table.field("Variable", format!("{name}={value}"));
        }
        table.field("Queue", &job.queue);
        table.field("Priority", i16::from(job.priority));
        table.field("Time limit", seconds(job.timeout_seconds));
        table.field("Max running", Limit(job.max_running));
        let retry = &job.retry;
        table.field("Attempts", retry.max_attempts);
        table.field(
            "Backoff",
            format!(
                "{}, times {}, at most {}",
                seconds(retry.backoff_seconds),
                retry.backoff_factor,
                seconds(retry.backoff_cap_seconds)
            ),
        );
        table.field("Created", since(job.created_at));
        table.field("Updated", since(job.updated_at));
        table.field_if("Deleted", job.deleted_at.map(since));
        table.render(&session.output)
    })
}
