//! The handlers runtime: a job is an async function of this process, chosen by the job's name.

mod attempt;
mod context;
mod error;

pub use context::{Context, StopReason};
pub use error::JobError;

use crate::Error;
use crate::agent::{Progress, StopReceiver};
use crate::logs::LogWriter;
use crate::runtime::{Ending, Runtime};
use jobplane_protocol::{Json, LeasedExecution};
use rand::Rng;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::future::{Future, ready};
use std::ops::RangeInclusive;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;

/// After how many seconds an execution without a handler is tried again: so that it is not taken in a loop, that it
/// outlasts a deployment of new workers, and that a backlog of them does not come back all at once.
const NO_HANDLER_SECONDS: RangeInclusive<i32> = 45..=75;

/// What a handler comes to: its output as JSON, or why there is none.
type Output = Result<Json, JobError>;
/// A handler, its types erased.
type Handler = dyn Fn(Context, Option<Json>) -> Pin<Box<dyn Future<Output = Output> + Send>> + Send + Sync;

/// Handlers as they are added.
#[derive(Default)]
pub(crate) struct Handlers {
    by_job: BTreeMap<String, Arc<Handler>>,
    /// Jobs that were given more than one.
    twice: Vec<String>,
}

impl Handlers {
    pub(crate) fn add<I, O, F, R>(&mut self, job: String, handler: F)
    where
        F: Fn(Context, I) -> R + Send + Sync + 'static,
        R: Future<Output = Result<O, JobError>> + Send + 'static,
        I: DeserializeOwned + 'static,
        O: Serialize + 'static,
    {
        let handler = move |context, input: Option<Json>| -> Pin<Box<dyn Future<Output = Output> + Send>> {
            match read(input.as_ref()) {
                Ok(input) => {
                    let output = handler(context, input);
                    Box::pin(async move { written(&output.await?) })
                }
                Err(error) => Box::pin(ready(Err(error))),
            }
        };
        if self.by_job.insert(job.clone(), Arc::new(handler)).is_some() {
            self.twice.push(job);
        }
    }

    /// Refuses what could not work.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.by_job.is_empty() {
            return Err(Error::Configuration("a worker needs at least one handler".to_owned()));
        }
        if !self.twice.is_empty() {
            return Err(Error::Configuration(format!("more than one handler for {}", self.twice.join(", "))));
        }
        Ok(())
    }

    /// The runtime that they make: each handler is a task there.
    pub(crate) fn runtime(self, kill_grace: Duration, tasks: Handle) -> InProcess {
        InProcess { handlers: self.by_job, kill_grace, tasks }
    }
}

/// The input as its handler wants it.
fn read<I: DeserializeOwned>(input: Option<&Json>) -> Result<I, JobError> {
    let text = input.map_or("null", |json| json.get());
    serde_path_to_error::deserialize(&mut serde_json::Deserializer::from_str(text)).map_err(|error| {
        let path = match error.path().to_string() {
            root if root == "." => "input".to_owned(),
            path => format!("input.{path}"),
        };
        JobError::new(format!("{path}: {}", error.inner())).not_retryable()
    })
}

/// The output as the controller takes it.
fn written(output: &impl Serialize) -> Output {
    serde_json::value::to_raw_value(output).map_err(|error| {
        JobError::new(format!("the output cannot be written as JSON: {error}")).not_retryable()
    })
}

/// Runs jobs as tasks of this process.
pub(crate) struct InProcess {
    handlers: BTreeMap<String, Arc<Handler>>,
    kill_grace: Duration,
    /// Where handlers run, the program's own runtime: the worker is not held up by what they do there.
    tasks: Handle,
}

impl InProcess {
    /// Failed, but perhaps not on another worker. It is not released: then it would be first in line again, for
    /// this worker too, and for as long as no worker had a handler nobody would be told.
    fn without_handler(&self, job: &str) -> Ending {
        let known: Vec<_> = self.handlers.keys().map(String::as_str).collect();
        let error = format!("this worker has no handler for the job {job:?}, only for {}", known.join(", "));
        tracing::error!(job, "no handler: the execution fails, and is tried again in about a minute");
        let retry_after_seconds = Some(rand::rng().random_range(NO_HANDLER_SECONDS));
        Ending { retry_after_seconds, ..Ending::failed(error) }
    }
}

impl Runtime for InProcess {
    fn run<'a>(
        &'a self,
        leased: &'a LeasedExecution,
        log: &'a mut LogWriter,
        progress: Progress,
        stop: StopReceiver,
    ) -> Pin<Box<dyn Future<Output = Ending> + Send + 'a>> {
        Box::pin(async move {
            match self.handlers.get(&leased.job.name) {
                Some(handler) => {
                    let task = (handler.clone(), &self.tasks);
                    attempt::run(task, leased, log, progress, stop, self.kill_grace).await
                }
                None => self.without_handler(&leased.job.name),
            }
        })
    }
}

#[cfg(test)]
mod tests;
