//! `jobplane submit`: runs a command, creating its job if there is none.

use super::job::definition::Definition;
use super::job::find;
use super::run::{Request, ask};
use crate::failure::{EXIT_CODES, Refusal};
use crate::session::Session;
use crate::watch::Wait;
use jobplane_protocol::{CreateJob, ErrorCode, Job, RunRequest};
use sha2::{Digest, Sha256};
use std::process::ExitCode;

/// What to run.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXIT_CODES)]
pub(super) struct Args {
    /// The job's name [default: made of the program's name and of all that defines the job, so that the same
    /// command again is the same job]
    #[arg(long, short)]
    name: Option<String>,
    #[command(flatten)]
    definition: Definition,
    #[command(flatten)]
    request: Request,
    #[command(flatten)]
    wait: Wait,
}

pub(super) async fn run(args: Args, session: &Session) -> anyhow::Result<ExitCode> {
    let mut request = args.definition.create(args.name.unwrap_or_default());
    if request.name.is_empty() {
        request.name = name(&args.definition, &request)?;
    }
    Refusal::check(&request)?;
    let run = args.request.read()?;
    let job = settle(&request, &args.definition, session).await?;
    ask(&job, &RunRequest { ..run }, args.request.idempotency_key, &args.wait, session).await
}

/// A name that the same definition always gets.
fn name(definition: &Definition, request: &CreateJob) -> anyhow::Result<String> {
    let program = definition.program().or(request.image.as_deref()).ok_or_else(|| {
        Refusal::Usage(
            "nothing to run: give a command after --, such as `jobplane submit -- echo hello`".to_owned(),
        )
    })?;
    let hash: [u8; 32] = Sha256::digest(serde_json::to_vec(request)?).into();
    let hash: String = hash.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    let plain = |c: char| if c.is_control() || c.is_whitespace() { '-' } else { c };
    Ok(format!("{}-{hash}", program.chars().take(MAX_PROGRAM_CHARS).map(plain).collect::<String>()))
}

/// As much of the program's name as a job's name takes over.
const MAX_PROGRAM_CHARS: usize = 40;

/// The job: made now, or there already and the same.
async fn settle(request: &CreateJob, definition: &Definition, session: &Session) -> anyhow::Result<Job> {
    let call = session.client.post("/jobs").json(request).unrepeatable();
    match call.send::<Job>().await {
        Ok(job) => return Ok(job),
        Err(error) if error.code() == Some(ErrorCode::NameTaken) => {}
        Err(error) => return Err(error.into()),
    }
    let job = find(&session.client, &request.name).await?;
    let differences = definition.differences(&job);
    if differences.is_empty() {
        return Ok(job);
    }
    let advice = format!(
        "there is a job {:?} already, with another {}\n  Change it with `jobplane job update`, or give another --name",
        job.name,
        differences.join(", ")
    );
    Err(Refusal::Usage(advice).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_command_is_the_same_job() {
        let named = |words: &str| {
            let words = ["x", "--"].into_iter().chain(words.split(' '));
            let definition = <Definition as clap::FromArgMatches>::from_arg_matches(
                &<Definition as clap::Args>::augment_args(clap::Command::new("x")).get_matches_from(words),
            )
            .unwrap();
            name(&definition, &definition.create(String::new())).unwrap()
        };
        assert!(named("/bin/echo a").starts_with("echo-"));
        assert_eq!(named("/bin/echo a"), named("/bin/echo a"));
        assert_ne!(named("/bin/echo a"), named("/bin/echo b"));
        assert!(name(&Definition::default(), &CreateJob::default()).is_err());
    }
}
