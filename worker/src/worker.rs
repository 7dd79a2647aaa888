//! A worker of handlers that is ready to run.

mod apart;
mod builder;

pub use builder::WorkerBuilder;

use crate::handlers::Handlers;
use crate::options::Options;
use crate::{Error, Shutdown, agent, on_signals};
use apart::apart;
use std::future::Future;
use std::pin::pin;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// A worker that is ready to run handlers in this process: [`Worker::builder`] makes one.
///
/// It has a thread of its own, from which it keeps leases and sends results and logs; handlers are tasks of the runtime
/// that it is run on. A handler that blocks a thread of that runtime is in the way of others there, but costs no lease.
///
/// Whoever drops [`run`](Self::run) or [`run_until`](Self::run_until) before its end ends the worker there and then:
/// handlers are dropped, nothing more is said to the controller, and what ran runs again once its lease has expired.
pub struct Worker {
    options: Options,
    handlers: Handlers,
}

impl Worker {
    /// Begins to describe a worker that runs handlers.
    pub fn builder() -> WorkerBuilder {
        WorkerBuilder::default()
    }

    /// Runs until SIGTERM or SIGINT has been received and what runs has ended, or a second signal or the end of
    /// the drain time stops it. What still runs then is asked to end, dropped after the kill grace, and released.
    ///
    /// The signals do what they would without it again once it has ended or is dropped. A program that has other use for
    /// them had better call [`run_until`](Self::run_until).
    ///
    /// # Errors
    /// [`Error::Refused`] or [`Error::Gateway`] if the controller refuses the very first dequeue;
    /// [`Error::Fault`] if a part of the worker fails; [`Error::Configuration`] if signals cannot be listened to.
    /// Once the first dequeue has been answered, nothing else but a shutdown ends the worker.
    pub async fn run(self) -> Result<(), Error> {
        self.follow(on_signals).await
    }

    /// As [`Worker::run`], for a program that has signals of its own: drains once `stop` is ready, or panics.
    ///
    /// # Errors
    /// As for [`Worker::run`].
    pub async fn run_until(self, stop: impl Future<Output = ()> + Send + 'static) -> Result<(), Error> {
        // Kept to the end, which would count as a second signal.
        let (sender, shutdown) = watch::channel(Shutdown::Running);
        let mut work = pin!(self.follow(|| Ok(shutdown)));
        let mut stopping = JoinSet::new();
        stopping.spawn(stop);
        tokio::select! {
            ended = &mut work => return ended,
            Some(stopped) = stopping.join_next() => if let Err(fault) = stopped {
                tracing::error!(%fault, "what was to say when to stop has failed: draining");
            }
        }
        sender.send_replace(Shutdown::Draining);
        work.await
    }

    /// Runs apart from the caller's runtime, on which only the handlers are.
    async fn follow(
        self,
        shutdown: impl FnOnce() -> Result<watch::Receiver<Shutdown>, Error> + Send + 'static,
    ) -> Result<(), Error> {
        let Self { options, handlers } = self;
        let runtime = Box::new(handlers.runtime(options.kill_grace, Handle::current()));
        apart(async move { agent::run(&options, runtime, shutdown()?).await }).await
    }
}
