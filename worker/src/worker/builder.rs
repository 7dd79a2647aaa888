//! Describing a worker of handlers in code: the settings that make sense there, and the handlers.

use super::Worker;
use crate::handlers::{Context, Handlers, JobError};
use crate::options::{DRAIN_SECONDS, KILL_GRACE_SECONDS, MAX_KILL_GRACE_SECONDS, Options};
use crate::{Credential, Error};
use jobplane_protocol::limits;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Describes a [`Worker`] that runs handlers: [`Worker::builder`].
#[must_use = "it does nothing until it is built and run"]
pub struct WorkerBuilder {
    options: Options,
    handlers: Handlers,
}

impl Default for WorkerBuilder {
    fn default() -> Self {
        Self {
            options: Options {
                url: String::new(),
                credential: Credential::None,
                concurrency: None,
                queues: Vec::new(),
                worker_id: None,
                drain: Duration::from_secs(DRAIN_SECONDS.into()),
                kill_grace: Duration::from_secs(KILL_GRACE_SECONDS.into()),
                metrics_addr: None,
            },
            handlers: Handlers::default(),
        }
    }
}

impl WorkerBuilder {
    /// The controller, such as `https://jobs.example.com`. Needed.
    pub fn url(mut self, url: impl Into<String>) -> Self {
        self.options.url = url.into();
        self
    }

    /// The worker's token. Either this or [`token_file`](Self::token_file) is needed.
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.options.credential = Credential::Value(token.into());
        self
    }

    /// A file with the worker's token, read again when the controller refuses the one it had.
    pub fn token_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.options.credential = Credential::File(path.into());
        self
    }

    /// How many executions run at once, 1 to 1,000; as many as there are cores unless it is said. Handlers that
    /// mostly wait for others bear more.
    pub fn concurrency(mut self, executions: u32) -> Self {
        self.options.concurrency = Some(executions);
        self
    }

    /// The queues to take from, in this order; the token's, or `default`, unless it is said. What is in them should
    /// be for these handlers: see [`handler`](Self::handler).
    pub fn queues<Q: Into<String>>(mut self, queues: impl IntoIterator<Item = Q>) -> Self {
        self.options.queues = queues.into_iter().map(Into::into).collect();
        self
    }

    /// The worker's name for people, at most 200 bytes; host name and process id unless it is said.
    pub fn worker_id(mut self, name: impl Into<String>) -> Self {
        self.options.worker_id = Some(name.into());
        self
    }

    /// Where `/healthz`, `/readyz` and `/metrics` are served; nowhere unless it is said.
    pub fn metrics_addr(mut self, address: SocketAddr) -> Self {
        self.options.metrics_addr = Some(address);
        self
    }

    /// How long what runs may go on once the worker is to stop, 30 s unless it is said. Whoever stops the program
    /// must wait this long, the kill grace and a few seconds more.
    pub fn drain(mut self, time: Duration) -> Self {
        self.options.drain = time;
        self
    }

    /// How long a handler has between [`Context::cancelled`] and the moment it is dropped, 10 s unless it is said,
    /// 30 s at most. A handler whose lease is lost has no such time.
    pub fn kill_grace(mut self, time: Duration) -> Self {
        self.options.kill_grace = time;
        self
    }

    /// Runs executions of the job of this name. The controller wants a job to have a command; here it is not used.
    /// The name once more is a good one: a worker that runs commands fails it for good, as a program not found.
    ///
    /// The run's input is read into `I`, of which a run without input is `null`; what is not an `I` has failed and is
    /// not tried again, and its error names the wrong field. The output becomes the execution's result: JSON of at
    /// most 1 MB. An error may be any ([`JobError`]); a panic is contained and is a failure too.
    ///
    /// The handler is an async function: it must not block its thread (`tokio::task::spawn_blocking` is for that), or
    /// nothing can end it and others wait. At the attempt's time limit, a cancel or the end of a drain it hears of it by
    /// [`Context::cancelled`], and is dropped after the kill grace.
    ///
    /// An execution of a job that has no handler here has failed and is tried again after about a minute, perhaps by
    /// a worker that has one: so a queue should hold what all of its workers can run.
    pub fn handler<I, O, F, R>(mut self, job: impl Into<String>, handler: F) -> Self
    where
        F: Fn(Context, I) -> R + Send + Sync + 'static,
        R: Future<Output = Result<O, JobError>> + Send + 'static,
        I: DeserializeOwned + 'static,
        O: Serialize + 'static,
    {
        self.handlers.add(job.into(), handler);
        self
    }

    /// The worker, ready to run. Nothing has been sent yet.
    ///
    /// # Errors
    /// [`Error::Configuration`] if URL, token or handlers are missing or unusable, a job has two handlers, or a
    /// number is out of its bounds.
    pub fn build(self) -> Result<Worker, Error> {
        let Self { options, handlers } = self;
        let refuse = |detail: String| Err(Error::Configuration(detail));
        if matches!(options.credential, Credential::None) {
            return refuse("the worker needs a token".to_owned());
        }
        if options.concurrency.is_some_and(|executions| !(1..=limits::MAX_DEQUEUE).contains(&executions)) {
            return refuse(format!("concurrency must be within 1 to {}", limits::MAX_DEQUEUE));
        }
        if options.kill_grace > Duration::from_secs(MAX_KILL_GRACE_SECONDS.into()) {
            return refuse(format!("the kill grace is {MAX_KILL_GRACE_SECONDS} s at most"));
        }
        handlers.check()?;
        options.client()?;
        Ok(Worker { options, handlers })
    }
}
