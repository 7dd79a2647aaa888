//! Jobs: the definitions that executions are asked of.

use crate::schema::{Command, Env, Name};
use crate::{Check, Checks, JobId, Page, limits, object};
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeMap;

/// The queue of a job that names none.
pub const DEFAULT_QUEUE: &str = "default";

/// A row's weight in the fair order, one of 0, 25, 50, 75, 100, weighing 1, 2, 4, 8, 16: a share,
/// not a wall, so nothing starves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "i64", into = "i16")]
#[schemars(with = "u8", extend("enum" = [0, 25, 50, 75, 100]))]
pub struct Priority(i16);

impl TryFrom<i64> for Priority {
    type Error = String;

    fn try_from(value: i64) -> Result<Self, String> {
        match value {
            0 | 25 | 50 | 75 | 100 => Ok(Self(i16::try_from(value).unwrap_or_default())),
            other => Err(format!("{other} is not a priority: one of 0, 25, 50, 75, 100")),
        }
    }
}

impl From<Priority> for i16 {
    fn from(priority: Priority) -> i16 {
        priority.0
    }
}

/// How often and how far apart an execution is tried. The wait before try n + 1 is
/// `backoff_seconds × backoff_factor^(n − 1)`, at most `backoff_cap_seconds`, ±20 % jitter.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RetryPolicy {
    /// Tries before the execution is a dead letter, 1 to 100.
    #[schemars(range(min = 1, max = limits::MAX_ATTEMPTS))]
    pub max_attempts: i32,
    /// The wait after the first failed try, in seconds.
    #[schemars(range(min = 0, max = limits::MAX_BACKOFF_SECONDS))]
    pub backoff_seconds: i32,
    /// What each further wait is multiplied with, 1 to 100.
    #[schemars(range(min = 1, max = 100))]
    pub backoff_factor: f64,
    /// The longest wait, in seconds.
    #[schemars(range(min = 0, max = limits::MAX_BACKOFF_SECONDS))]
    pub backoff_cap_seconds: i32,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self { max_attempts: 5, backoff_seconds: 10, backoff_factor: 2.0, backoff_cap_seconds: 3600 }
    }
}

/// `POST /jobs`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("anyOf" = [
    { "required": ["command"], "properties": { "command": { "type": "array" } } },
    { "required": ["image"], "properties": { "image": { "type": "string" } } },
]))]
pub struct CreateJob {
    /// Unique among the tenant's jobs that are not deleted.
    #[schemars(with = "Name")]
    pub name: String,
    /// Program and arguments, no shell in between.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Command>")]
    pub command: Option<Vec<String>>,
    /// The image to run it in, for workers with the container runtime.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Name>")]
    pub image: Option<String>,
    /// Variables that the job's process gets.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(with = "Env")]
    pub env: BTreeMap<String, String>,
    /// The queue its executions wait in; `default` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Name>")]
    pub queue: Option<String>,
    /// The priority of its executions unless a run says otherwise.
    #[serde(default)]
    pub priority: Priority,
    /// How long one attempt may take, in seconds, 1 to 604,800; 300 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = limits::MAX_TIMEOUT_SECONDS))]
    pub timeout_seconds: Option<i32>,
    /// At most so many of this job run at once; no limit when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = limits::MAX_RUNNING_LIMIT))]
    pub max_running: Option<i32>,
    /// How often it is tried.
    #[serde(default, deserialize_with = "object::object")]
    pub retry: RetryPolicy,
}

/// `PATCH /jobs/{id}`: what is absent stays; null takes `command`, `image` and `max_running` away.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct UpdateJob {
    /// A new name.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Name>")]
    pub name: Option<String>,
    /// A new command, or null for none.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Command>")]
    pub command: Option<Option<Vec<String>>>,
    /// A new image, or null for none.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Name>")]
    pub image: Option<Option<String>>,
    /// A new environment, replacing the whole old one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Env>")]
    pub env: Option<BTreeMap<String, String>>,
    /// The queue of executions asked for from now on.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Name>")]
    pub queue: Option<String>,
    /// The priority of executions asked for from now on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<Priority>,
    /// The time limit of attempts that start from now on, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = limits::MAX_TIMEOUT_SECONDS))]
    pub timeout_seconds: Option<i32>,
    /// A new limit on how many run at once, or null for none.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = limits::MAX_RUNNING_LIMIT))]
    pub max_running: Option<Option<i32>>,
    /// A new retry policy, replacing the whole old one.
    #[serde(deserialize_with = "object::optional", skip_serializing_if = "Option::is_none")]
    pub retry: Option<RetryPolicy>,
}

/// Tells an explicit null (`Some(None)`) from an absent field (`None`).
pub(crate) fn present<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// A job as it stands.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Job {
    /// Its id.
    pub id: JobId,
    /// Its name.
    pub name: String,
    /// Program and arguments.
    pub command: Option<Vec<String>>,
    /// The image it runs in.
    pub image: Option<String>,
    /// Variables that its process gets.
    pub env: BTreeMap<String, String>,
    /// The queue its executions wait in.
    pub queue: String,
    /// The priority of its executions.
    pub priority: Priority,
    /// How long one attempt may take, in seconds.
    pub timeout_seconds: i32,
    /// At most so many of it run at once.
    pub max_running: Option<i32>,
    /// How often it is tried.
    pub retry: RetryPolicy,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
    /// When it was deleted; its history stays.
    pub deleted_at: Option<Timestamp>,
}

/// A page of jobs; deleted ones are left out.
pub type JobPage = Page<Job>;

impl Check for RetryPolicy {
    fn check(&self, checks: &mut Checks) {
        checks.range("retry.max_attempts", self.max_attempts, 1..=limits::MAX_ATTEMPTS);
        checks.range("retry.backoff_seconds", self.backoff_seconds, 0..=limits::MAX_BACKOFF_SECONDS);
        checks.range("retry.backoff_factor", self.backoff_factor, 1.0..=100.0);
        checks.range("retry.backoff_cap_seconds", self.backoff_cap_seconds, 0..=limits::MAX_BACKOFF_SECONDS);
    }
}

impl Check for CreateJob {
    fn check(&self, checks: &mut Checks) {
        if self.command.is_none() && self.image.is_none() {
            checks.refuse("command", "a job needs a command or an image");
        }
        let change = UpdateJob {
            name: Some(self.name.clone()),
            command: self.command.clone().map(Some),
            image: self.image.clone().map(Some),
            env: Some(self.env.clone()),
            queue: self.queue.clone(),
            priority: Some(self.priority),
            timeout_seconds: self.timeout_seconds,
            max_running: self.max_running.map(Some),
            retry: Some(self.retry.clone()),
        };
        change.check(checks);
    }
}

impl Check for UpdateJob {
    fn check(&self, checks: &mut Checks) {
        if let Some(name) = &self.name {
            checks.name("name", name);
        }
        if let Some(Some(command)) = &self.command {
            checks.command("command", command);
        }
        if let Some(Some(image)) = &self.image {
            checks.name("image", image);
        }
        if let Some(env) = &self.env {
            checks.env("env", env);
        }
        if let Some(queue) = &self.queue {
            checks.name("queue", queue);
        }
        if let Some(seconds) = self.timeout_seconds {
            checks.range("timeout_seconds", seconds, 1..=limits::MAX_TIMEOUT_SECONDS);
        }
        if let Some(Some(limit)) = self.max_running {
            checks.range("max_running", limit, 1..=limits::MAX_RUNNING_LIMIT);
        }
        if let Some(retry) = &self.retry {
            retry.check(checks);
        }
    }
}
