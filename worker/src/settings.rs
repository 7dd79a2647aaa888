//! The worker's configuration: one struct, read from flags or the environment, in one place.

use crate::container::{Container, ContainerSettings};
use crate::exec::{Exec, JobSettings};
use crate::options::{DRAIN_SECONDS, KILL_GRACE_SECONDS, MAX_KILL_GRACE_SECONDS, Options};
use crate::runtime::Runtime;
use crate::{Credential, Error};
use clap::{Args, ValueEnum};
use jobplane_protocol::limits;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// What a worker needs to know: each a flag, or the environment variable beside it.
#[derive(Debug, Clone, Args)]
pub struct Settings {
    /// The controller, such as https://jobs.example.com
    #[arg(long, env = "JOBPLANE_URL")]
    pub url: String,

    /// The worker's token; better given by the environment or a file, where `ps` does not show it
    #[arg(
        long,
        env = "JOBPLANE_WORKER_TOKEN",
        hide_env_values = true,
        value_parser = token,
        required_unless_present = "worker_token_file",
        conflicts_with = "worker_token_file"
    )]
    pub worker_token: Option<Credential>,

    /// A file with the worker's token, read again when the controller refuses the one it had
    #[arg(long, env = "JOBPLANE_WORKER_TOKEN_FILE")]
    pub worker_token_file: Option<PathBuf>,

    /// How many executions run at once, 1 to 1,000 [default: the number of cores]
    #[arg(long, env = "JOBPLANE_CONCURRENCY", value_parser = clap::value_parser!(u32).range(1..=i64::from(limits::MAX_DEQUEUE)))]
    pub concurrency: Option<u32>,

    /// The queues to take from, in this order, with commas between [default: the token's, or `default`]
    #[arg(long, env = "JOBPLANE_QUEUES", value_delimiter = ',')]
    pub queues: Vec<String>,

    /// How jobs are run
    #[arg(long, env = "JOBPLANE_RUNTIME", value_enum, default_value_t = RuntimeKind::Exec)]
    pub runtime: RuntimeKind,

    /// How long running jobs may go on after SIGTERM, in seconds, before they are stopped and
    /// released. Whoever stops the worker must wait this long, the kill grace and a few seconds more
    #[arg(long, env = "JOBPLANE_DRAIN_SECONDS", default_value_t = DRAIN_SECONDS)]
    pub drain_seconds: u32,

    /// How long a job has between SIGTERM and SIGKILL, in seconds, 0 to 30
    #[arg(long, env = "JOBPLANE_KILL_GRACE_SECONDS", default_value_t = KILL_GRACE_SECONDS,
        value_parser = clap::value_parser!(u32).range(0..=i64::from(MAX_KILL_GRACE_SECONDS)))]
    pub kill_grace_seconds: u32,

    /// Variables of the worker that jobs see too, with commas between; PATH, LANG, LC_* and TZ always are
    #[arg(long, env = "JOBPLANE_ENV_ALLOW", value_delimiter = ',')]
    pub env_allow: Vec<String>,

    /// As whom exec jobs run, and what they may use.
    #[command(flatten)]
    pub jobs: JobSettings,

    /// What only containers need to know.
    #[command(flatten)]
    pub container: ContainerSettings,

    /// The worker's name for people, at most 200 bytes [default: host name and process id]
    #[arg(long, env = "JOBPLANE_WORKER_ID")]
    pub worker_id: Option<String>,

    /// Where to serve /healthz, /readyz and /metrics, such as 0.0.0.0:8080 [default: nowhere]
    #[arg(long, env = "JOBPLANE_METRICS_ADDR")]
    pub metrics_addr: Option<SocketAddr>,

    /// How the worker's own log looks [default: pretty on a terminal, JSON otherwise]
    #[arg(long, env = "JOBPLANE_LOG_FORMAT", value_enum)]
    pub log_format: Option<LogFormat>,
}

/// How jobs are run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RuntimeKind {
    /// As a process beside the worker.
    Exec,
    /// In a container of the job's image.
    Container,
}

/// How the worker's own log looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Pretty,
    /// For log collectors: one object a line.
    Json,
}

impl Settings {
    /// What is told to every worker.
    pub(crate) fn options(&self) -> Result<Options, Error> {
        let credential = match (&self.worker_token, &self.worker_token_file) {
            (Some(token), None) => token.clone(),
            (None, Some(path)) => Credential::File(path.clone()),
            _ => {
                let detail = "set either JOBPLANE_WORKER_TOKEN or JOBPLANE_WORKER_TOKEN_FILE";
                return Err(Error::Configuration(detail.to_owned()));
            }
        };
        Ok(Options {
            url: self.url.clone(),
            credential,
            concurrency: self.concurrency,
            queues: self.queues.clone(),
            worker_id: self.worker_id.clone(),
            drain: Duration::from_secs(self.drain_seconds.into()),
            kill_grace: self.kill_grace(),
            metrics_addr: self.metrics_addr,
        })
    }

    /// What runs the jobs.
    pub(crate) fn runtime(&self) -> Result<Box<dyn Runtime>, Error> {
        match self.runtime {
            RuntimeKind::Exec => {
                let token_file = self.worker_token_file.as_deref();
                Ok(Box::new(Exec::new(&self.env_allow, self.kill_grace(), &self.jobs, token_file)?))
            }
            RuntimeKind::Container => {
                let worker = self.options()?.name();
                let container = Container::new(&self.container, &self.env_allow, self.kill_grace(), worker)?;
                Ok(Box::new(container))
            }
        }
    }

    fn kill_grace(&self) -> Duration {
        Duration::from_secs(self.kill_grace_seconds.into())
    }
}

/// Takes the token out of sight the moment it is read.
fn token(text: &str) -> Result<Credential, std::convert::Infallible> {
    Ok(Credential::Value(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        settings: Settings,
    }

    #[test]
    fn a_kill_grace_that_the_controller_would_not_wait_for_is_refused() {
        let line = |grace| {
            let fixed = ["worker", "--url", "http://localhost", "--worker-token", "jp_worker_x"];
            Line::try_parse_from(fixed.into_iter().chain(["--kill-grace-seconds", grace]))
        };
        assert_eq!(line("30").unwrap().settings.kill_grace_seconds, 30);
        assert!(line("31").is_err());
    }
}
