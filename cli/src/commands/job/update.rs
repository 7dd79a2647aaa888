//! `jobplane job update`: changes what is named and keeps the rest.

use super::definition::Definition;
use super::find;
use crate::failure::Refusal;
use crate::session::Session;
use jobplane_protocol::{Job, UpdateJob};

/// What to change.
#[derive(Debug, clap::Args)]
pub(in crate::commands) struct Args {
    /// Its name or id
    job: String,
    /// A new name
    #[arg(long)]
    name: Option<String>,
    /// Take a variable away; may be repeated
    #[arg(long, value_name = "NAME")]
    unset_env: Vec<String>,
    /// Take the image away
    #[arg(long, conflicts_with = "image")]
    no_image: bool,
    /// Take the command away, so that the image's own runs
    #[arg(long, conflicts_with = "command")]
    no_command: bool,
    #[command(flatten)]
    definition: Definition,
}

pub(super) async fn run(args: Args, session: &Session) -> anyhow::Result<Job> {
    let job = find(&session.client, &args.job).await?;
    let request = args.over(&job);
    Refusal::check_change(&request)?;
    Ok(session.client.patch(format!("/jobs/{}", job.id)).json(&request).send().await?)
}

impl Args {
    /// The request: environment and retries are replaced whole, so what stays is taken from the job.
    fn over(self, job: &Job) -> UpdateJob {
        let given = self.definition;
        let retry = given.retry(&job.retry);
        let mut env = job.env.clone();
        env.retain(|name, _| !self.unset_env.contains(name));
        env.extend(given.env);
        UpdateJob {
            name: self.name,
            command: match given.command {
                _ if self.no_command => Some(None),
                command if command.is_empty() => None,
                command => Some(Some(command)),
            },
            image: if self.no_image { Some(None) } else { given.image.map(Some) },
            env: (env != job.env).then_some(env),
            queue: given.queue,
            priority: given.priority,
            timeout_seconds: given.time_limit,
            max_running: given.max_running.map(|limit| limit.0),
            retry: (retry != job.retry).then_some(retry),
        }
    }
}
