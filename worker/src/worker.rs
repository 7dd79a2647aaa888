//! A worker that is ready to run: the agent, with the runtime that it was made for.

mod builder;

pub use builder::WorkerBuilder;

use crate::agent::{self, Agent};
use crate::options::Options;
use crate::runtime::Runtime;
use crate::{Error, Settings, Shutdown, on_signals};
use std::future::Future;
use std::time::Duration;
use tokio::sync::watch;

/// A worker that is ready to run. [`Worker::builder`] makes one of handlers, which run in this process.
pub struct Worker {
    agent: Agent,
    drain: Duration,
}

impl Worker {
    /// Begins to describe a worker that runs handlers.
    pub fn builder() -> WorkerBuilder {
        WorkerBuilder::default()
    }

    /// The worker that settings describe.
    pub(crate) fn of(settings: &Settings) -> Result<Self, Error> {
        Self::new(&settings.options()?, settings.runtime()?)
    }

    pub(crate) fn new(options: &Options, runtime: Box<dyn Runtime>) -> Result<Self, Error> {
        Ok(Self { agent: Agent::new(options, runtime)?, drain: options.drain })
    }

    /// Runs until SIGTERM or SIGINT has been received and what runs has ended, or a second signal or the end of
    /// the drain time stops it. What still runs then is asked to end, dropped after the kill grace, and released.
    ///
    /// # Errors
    /// [`Error::Refused`] or [`Error::Gateway`] if the controller refuses the very first dequeue;
    /// [`Error::Fault`] if a part of the worker fails; [`Error::Configuration`] if signals cannot be listened to.
    /// Once the first dequeue has been answered, nothing else but a shutdown ends the worker.
    pub async fn run(self) -> Result<(), Error> {
        let shutdown = on_signals()?;
        self.follow(shutdown).await
    }

    /// As [`Worker::run`], for a program that has signals of its own: drains once `stop` is ready.
    ///
    /// # Errors
    /// As for [`Worker::run`].
    pub async fn run_until(self, stop: impl Future<Output = ()> + Send + 'static) -> Result<(), Error> {
        let (sender, shutdown) = watch::channel(Shutdown::Running);
        tokio::spawn(async move {
            tokio::select! {
                () = stop => {}
                () = sender.closed() => return,
            }
            sender.send_replace(Shutdown::Draining);
            // The end of the sender would count as a second signal.
            sender.closed().await;
        });
        self.follow(shutdown).await
    }

    pub(crate) async fn follow(self, shutdown: watch::Receiver<Shutdown>) -> Result<(), Error> {
        agent::run(self.agent, self.drain, shutdown).await
    }
}
