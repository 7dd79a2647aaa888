//! A job as it is defined on the command line, shared by `job create`, `job update` and `submit`.

use crate::time::parse_seconds;
use crate::values::{Limit, priority, variable};
use jobplane_protocol::{CreateJob, Job, Priority, RetryPolicy};

/// What a job is; whatever is not said is left to the controller, or stays.
#[derive(Debug, Clone, Default, clap::Args)]
pub(in crate::commands) struct Definition {
    /// The image to run it in, for workers with the container runtime
    #[arg(long)]
    pub(super) image: Option<String>,
    /// A variable that its process gets; may be repeated
    #[arg(long, short, value_name = "NAME=VALUE", value_parser = variable)]
    pub(super) env: Vec<(String, String)>,
    /// The queue its executions wait in [when new: default]
    #[arg(long, short)]
    pub(super) queue: Option<String>,
    /// Its weight in the fair order: 0, 25, 50, 75 or 100 [when new: 0]
    #[arg(long, value_parser = priority)]
    pub(super) priority: Option<Priority>,
    /// How long one attempt may take, such as 30s or 2h [when new: 5m]
    #[arg(long, value_name = "DURATION", value_parser = parse_seconds)]
    pub(super) time_limit: Option<i32>,
    /// At most so many of it run at once, or `none`
    #[arg(long, value_name = "N")]
    pub(super) max_running: Option<Limit>,
    /// Tries before an execution fails for good [when new: 5]
    #[arg(long, value_name = "N")]
    pub(super) max_attempts: Option<i32>,
    /// The wait after the first failed try [when new: 10s]
    #[arg(long, value_name = "DURATION", value_parser = parse_seconds)]
    pub(super) backoff: Option<i32>,
    /// What each further wait is multiplied with [when new: 2]
    #[arg(long, value_name = "FACTOR")]
    pub(super) backoff_factor: Option<f64>,
    /// The longest wait between two tries [when new: 1h]
    #[arg(long, value_name = "DURATION", value_parser = parse_seconds)]
    pub(super) backoff_cap: Option<i32>,
    /// The program and its arguments, after `--`; no shell in between
    #[arg(last = true)]
    pub(super) command: Vec<String>,
}

impl Definition {
    /// The request that makes it.
    pub(in crate::commands) fn create(&self, name: String) -> CreateJob {
        CreateJob {
            name,
            command: (!self.command.is_empty()).then(|| self.command.clone()),
            image: self.image.clone(),
            env: self.env.iter().cloned().collect(),
            queue: self.queue.clone(),
            priority: self.priority.unwrap_or_default(),
            timeout_seconds: self.time_limit,
            max_running: self.max_running.and_then(|limit| limit.0),
            retry: self.retry(&RetryPolicy::default()),
        }
    }

    /// `policy` with what is said here.
    pub(super) fn retry(&self, policy: &RetryPolicy) -> RetryPolicy {
        RetryPolicy {
            max_attempts: self.max_attempts.unwrap_or(policy.max_attempts),
            backoff_seconds: self.backoff.unwrap_or(policy.backoff_seconds),
            backoff_factor: self.backoff_factor.unwrap_or(policy.backoff_factor),
            backoff_cap_seconds: self.backoff_cap.unwrap_or(policy.backoff_cap_seconds),
        }
    }

    /// In what `job` is not what is said here.
    pub(in crate::commands) fn differences(&self, job: &Job) -> Vec<&'static str> {
        let agrees = [
            ("command", self.command.is_empty() || job.command.as_ref() == Some(&self.command)),
            ("image", self.image.is_none() || self.image == job.image),
            ("env", self.env.iter().all(|(name, value)| job.env.get(name) == Some(value))),
            ("queue", self.queue.as_ref().is_none_or(|queue| *queue == job.queue)),
            ("priority", self.priority.is_none_or(|priority| priority == job.priority)),
            ("time limit", self.time_limit.is_none_or(|limit| limit == job.timeout_seconds)),
            ("max running", self.max_running.is_none_or(|limit| limit.0 == job.max_running)),
            ("retries", self.retry(&job.retry) == job.retry),
        ];
        agrees.into_iter().filter_map(|(what, agrees)| (!agrees).then_some(what)).collect()
    }

    /// The program's name, without its folders.
    pub(in crate::commands) fn program(&self) -> Option<&str> {
        self.command.first().and_then(|program| program.rsplit('/').next()).filter(|name| !name.is_empty())
    }
}

/// A command for people, quoted as a shell would want it.
pub(super) fn words(command: &[String]) -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_./=:,+@%".contains(c);
    let quoted = |word: &String| {
        if !word.is_empty() && word.chars().all(plain) {
            word.clone()
        } else {
            format!("'{}'", word.replace('\'', r"'\''"))
        }
    };
    command.iter().map(quoted).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_shown_as_a_shell_would_read_it() {
        let command = ["sh", "-c", "echo 'a b'", ""].map(str::to_owned);
        assert_eq!(words(&command), r"sh -c 'echo '\''a b'\''' ''");
    }

    #[test]
    fn only_what_is_said_can_differ() {
        let now = jiff::Timestamp::UNIX_EPOCH;
        let made = CreateJob { command: Some(vec!["true".into()]), ..CreateJob::default() };
        let job = Job {
            id: jobplane_protocol::JobId(uuid::Uuid::nil()),
            name: "n".into(),
            command: made.command,
            image: None,
            env: [("A".to_owned(), "1".to_owned())].into(),
            queue: "gpu".into(),
            priority: Priority::default(),
            timeout_seconds: 60,
            max_running: None,
            retry: RetryPolicy { max_attempts: 9, ..RetryPolicy::default() },
            created_at: now,
            updated_at: now,
            deleted_at: None,
        };
        let same = Definition { command: vec!["true".into()], ..Definition::default() };
        assert!(same.differences(&job).is_empty());
        let other = Definition { backoff: Some(1), queue: Some("default".into()), ..same };
        assert_eq!(other.differences(&job), ["queue", "retries"]);
    }
}
