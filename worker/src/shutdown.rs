//! How a worker is told to stop: the signals, and what each of them means.

use crate::Error;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

/// How far a shutdown has gone; it only ever grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Shutdown {
    /// None: the worker takes work.
    Running,
    /// No new work; what runs may finish until the drain time ends.
    Draining,
    /// What still runs is stopped and released.
    Stopping,
}

/// The shutdown that SIGTERM and SIGINT ask for: the first drains, the second ends the drain.
///
/// # Errors
/// [`Error::Configuration`] if the signals cannot be listened to.
pub fn on_signals() -> Result<watch::Receiver<Shutdown>, Error> {
    let listen = |kind| {
        signal(kind).map_err(|error| Error::Configuration(format!("signals cannot be received: {error}")))
    };
    let (terminate, interrupt) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    let (sender, receiver) = watch::channel(Shutdown::Running);
    tokio::spawn(forward(terminate, interrupt, sender));
    Ok(receiver)
}

async fn forward(mut terminate: Signal, mut interrupt: Signal, sender: watch::Sender<Shutdown>) {
    for next in [Shutdown::Draining, Shutdown::Stopping] {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        sender.send_replace(next);
    }
    // The sender stays, so that whoever watches never takes its end for news.
    sender.closed().await;
}

/// The shutdown as the worker lives it: a drain that has lasted for `drain` becomes a stop. The end
/// of the sender counts as the last signal, since no other can come.
pub(crate) fn phases(mut shutdown: watch::Receiver<Shutdown>, drain: Duration) -> watch::Receiver<Shutdown> {
    let (sender, receiver) = watch::channel(Shutdown::Running);
    tokio::spawn(async move {
        drop(shutdown.wait_for(|phase| *phase >= Shutdown::Draining).await);
        sender.send_replace(Shutdown::Draining);
        tokio::select! {
            () = tokio::time::sleep(drain) => {}
            _ = shutdown.wait_for(|phase| *phase >= Shutdown::Stopping) => {}
        }
        sender.send_replace(Shutdown::Stopping);
        sender.closed().await;
    });
    receiver
}
