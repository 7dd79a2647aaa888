//! The command line: what it accepts, and which file answers which command.

mod cancel;
mod completions;
mod dlq;
mod job;
mod key;
mod list;
mod logs;
mod profile;
mod queues;
mod run;
mod serve;
mod status;
mod submit;
mod tenant;
mod whoami;
mod worker;
mod worker_token;
mod workers;

use crate::failure::{EXIT_CODES, Failure};
use crate::local;
use crate::output::{Format, Output};
use crate::session::{Need, Session};
use std::process::ExitCode;

/// Runs jobs on a fleet of workers: asks for executions, watches them, and runs the whole platform on one
/// machine.
#[derive(Debug, clap::Parser)]
#[command(name = "jobplane", version, propagate_version = true, after_help = EXIT_CODES)]
pub struct Cli {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    command: Command,
}

/// What every command understands.
///
/// URL and token come from the flags, `--profile` among them, else the environment, else the current profile,
/// else from what `jobplane dev` left in ./.jobplane/dev.json. A token that is kept in a profile goes only to
/// that profile's URL.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Global options")]
pub struct Globals {
    /// The controller [env: JOBPLANE_URL]
    #[arg(long, global = true, value_name = "URL")]
    pub url: Option<String>,

    /// The token; `ps` shows flags, so prefer a profile or the environment [env: JOBPLANE_TOKEN]
    #[arg(long, global = true, value_name = "TOKEN")]
    pub token: Option<String>,

    /// The profile with URL and tokens, instead of the current one [env: JOBPLANE_PROFILE]
    #[arg(long, global = true, value_name = "NAME")]
    pub profile: Option<String>,

    /// What to print: text for people, or JSON
    #[arg(long, short, global = true, value_enum, default_value_t = Format::Human, value_name = "FORMAT")]
    pub output: Format,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Run the whole platform on this machine
    Dev(local::dev::Args),
    /// Watch the whole platform at real work
    Demo(local::demo::Args),
    #[command(flatten)]
    Tenant(TenantCommand),
    #[command(flatten)]
    Admin(AdminCommand),
    /// Run the control plane, over the database of the environment
    Serve(serve::Args),
    /// Bring the database of the environment to this version's schema
    Migrate,
    /// Run a worker on this machine
    Worker(Box<worker::Args>),
    /// Keep URLs and tokens under names
    #[command(subcommand)]
    Profile(profile::Command),
    /// Print a completion script for a shell
    Completions(completions::Args),
}

/// What is done with a tenant's key.
#[derive(Debug, clap::Subcommand)]
enum TenantCommand {
    /// Run a command as a job, which is made where needed
    Submit(submit::Args),
    /// Run a job, once or for each line of a file
    Run(run::Args),
    /// Show an execution
    Status(status::Args),
    /// List executions, newest first
    List(list::Args),
    /// Show what an execution wrote
    Logs(logs::Args),
    /// Cancel executions
    Cancel(cancel::Args),
    /// Make, show and change jobs
    #[command(subcommand)]
    Job(job::Command),
    /// Look after executions that ended badly
    #[command(subcommand)]
    Dlq(dlq::Command),
    /// Show who the key speaks for, and how busy that tenant is
    Whoami,
}

/// What is done with the operator's token.
#[derive(Debug, clap::Subcommand)]
enum AdminCommand {
    /// Show, pause and resume queues (admin)
    Queues(queues::Args),
    /// Show the workers that were heard from in the last hour (admin)
    Workers(crate::pages::Limit),
    /// Make, show and change tenants (admin)
    #[command(subcommand)]
    Tenant(tenant::Command),
    /// Make, list and revoke a tenant's keys (admin)
    #[command(subcommand)]
    Key(key::Command),
    /// Make, list and revoke worker tokens (admin)
    #[command(subcommand)]
    WorkerToken(worker_token::Command),
}

/// Runs the command.
///
/// # Errors
/// When it ends without success.
pub async fn dispatch(cli: Cli) -> Result<ExitCode, Failure> {
    let Cli { globals, command } = cli;
    match command {
        Command::Tenant(command) => {
            let session = Session::open(&globals, Need::Tenant).await?;
            command.run(&session).await.map_err(|error| Failure::of(&error, Some(&session)))
        }
        Command::Admin(command) => {
            let session = Session::open(&globals, Need::Admin).await?;
            command.run(&session).await.map_err(|error| Failure::of(&error, Some(&session)))
        }
        Command::Dev(args) => Ok(local::dev::run(args).await?),
        Command::Demo(args) => Ok(local::demo::run(args).await?),
        Command::Serve(args) => Ok(serve::run(args).await?),
        Command::Migrate => Ok(serve::migrate(&Output::new(globals.output)).await?),
        Command::Worker(args) => Ok(worker::run(*args).await?),
        Command::Profile(command) => Ok(profile::run(command, &globals, &Output::new(globals.output))?),
        Command::Completions(args) => Ok(completions::run(&args)?),
    }
}

impl TenantCommand {
    async fn run(self, session: &Session) -> anyhow::Result<ExitCode> {
        match self {
            Self::Submit(args) => submit::run(args, session).await,
            Self::Run(args) => run::run(args, session).await,
            Self::Status(args) => status::run(&args, session).await,
            Self::List(args) => list::run(args, session).await,
            Self::Logs(args) => logs::run(&args, session).await,
            Self::Cancel(args) => cancel::run(&args, session).await,
            Self::Job(command) => job::run(command, session).await,
            Self::Dlq(command) => dlq::run(command, session).await,
            Self::Whoami => whoami::run(session).await,
        }
    }
}

impl AdminCommand {
    async fn run(self, session: &Session) -> anyhow::Result<ExitCode> {
        match self {
            Self::Queues(args) => queues::run(args, session).await,
            Self::Workers(limit) => workers::run(limit, session).await,
            Self::Tenant(command) => tenant::run(command, session).await,
            Self::Key(command) => key::run(command, session).await,
            Self::WorkerToken(command) => worker_token::run(command, session).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Cli;
    use clap::{CommandFactory, Parser};

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    /// A flag of a command's own that is named like a global one must be read as the same type.
    #[test]
    fn global_flags_are_read_beside_the_flags_of_every_command() {
        let id = "01a20c60-e778-7f28-9888-04efef158136";
        for line in [
            format!("worker-token revoke {id}"),
            format!("key revoke acme {id}"),
            "profile set p --admin-token a".to_owned(),
            format!("status {id}"),
            format!("logs {id}"),
            format!("cancel {id}"),
            "submit -n name -- echo".to_owned(),
            "run job --bulk file".to_owned(),
            "queues pause q".to_owned(),
            "dlq retry-all --limit 3".to_owned(),
            "list --limit 3".to_owned(),
            "dev".to_owned(),
            "demo".to_owned(),
        ] {
            let globals = "jobplane --url http://u --token t --profile p -o json";
            let words = globals.split(' ').chain(line.split(' '));
            let cli = Cli::try_parse_from(words).unwrap_or_else(|error| panic!("{line}: {error}"));
            assert_eq!(cli.globals.url.as_deref(), Some("http://u"), "{line}");
            assert_eq!(cli.globals.token.as_deref(), Some("t"), "{line}");
        }
        let worker = ["jobplane", "worker", "--url", "http://u", "--worker-token", "w"];
        assert_eq!(Cli::try_parse_from(worker).unwrap().globals.url.as_deref(), Some("http://u"));
    }
}
