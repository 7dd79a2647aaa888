//! How a worker is told to stop: the signals, and what each of them means.

use crate::Error;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag::register_conditional_default;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
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

/// The shutdown that SIGTERM and SIGINT ask for: the first drains, the second ends the drain. Once nobody has the
/// receiver any more, the signals end the process again.
///
/// # Errors
/// [`Error::Configuration`] if the signals cannot be listened to.
pub fn on_signals() -> Result<watch::Receiver<Shutdown>, Error> {
    let refused = |error: io::Error| Error::Configuration(format!("signals cannot be received: {error}"));
    let (listener, terminate, interrupt) = Listener::new().map_err(refused)?;
    let (sender, receiver) = watch::channel(Shutdown::Running);
    tokio::spawn(async move {
        forward(terminate, interrupt, sender).await;
        drop(listener);
    });
    Ok(receiver)
}

async fn forward(mut terminate: Signal, mut interrupt: Signal, sender: watch::Sender<Shutdown>) {
    for next in [Shutdown::Draining, Shutdown::Stopping] {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            () = sender.closed() => return,
        }
        sender.send_replace(next);
    }
    // The sender stays, so that whoever watches never takes its end for news.
    sender.closed().await;
}

/// Whoever listens to the signals. Tokio never stops catching a signal that it has caught once: without any listener,
/// nothing would come of them any more.
struct Listener {
    /// Whether the signals do what they would by default.
    unheard: Arc<AtomicBool>,
}

/// How many there are.
static LISTENERS: Mutex<usize> = Mutex::new(0);

impl Listener {
    /// A listener, and how it hears of SIGTERM and SIGINT.
    ///
    /// What a signal does by default is decided before anyone hears of it: after, an idle worker may have ended
    /// meanwhile, and the same signal would end the process as one that nobody listens to.
    fn new() -> io::Result<(Self, Signal, Signal)> {
        static UNHEARD: OnceLock<Arc<AtomicBool>> = OnceLock::new();
        let mut listeners = LISTENERS.lock().unwrap_or_else(PoisonError::into_inner);
        let unheard = match UNHEARD.get() {
            Some(unheard) => unheard.clone(),
            None => {
                let unheard = Arc::new(AtomicBool::new(true));
                for signal in [SIGTERM, SIGINT] {
                    register_conditional_default(signal, unheard.clone())?;
                }
                UNHEARD.get_or_init(|| unheard).clone()
            }
        };
        let (terminate, interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        *listeners += 1;
        unheard.store(false, Ordering::SeqCst);
        Ok((Self { unheard }, terminate, interrupt))
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let mut listeners = LISTENERS.lock().unwrap_or_else(PoisonError::into_inner);
        *listeners -= 1;
        self.unheard.store(*listeners == 0, Ordering::SeqCst);
    }
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
