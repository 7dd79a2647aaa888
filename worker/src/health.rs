//! How the worker is, for whoever watches over it: whether it lives, and whether it can work.

use crate::Shutdown;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::watch;

/// What the agent knows about itself.
#[derive(Debug)]
pub(crate) struct Health {
    /// Whether a part of the agent has ended that never should.
    faulty: AtomicBool,
    /// Whether the last dequeue was answered.
    heard: AtomicBool,
    starts: watch::Sender<Starts>,
}

/// Whether this machine can start what it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Starts {
    /// As far as is known.
    Good,
    /// An attempt was given back for what the machine lacks, and none has begun since.
    Bad,
    /// One has begun since. Some runtimes only find out in the next moment that it could not.
    Perhaps,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            faulty: AtomicBool::new(false),
            heard: AtomicBool::new(false),
            starts: watch::Sender::new(Starts::Good),
        }
    }
}

impl Health {
    pub(crate) fn is_faulty(&self) {
        self.faulty.store(true, Ordering::Relaxed);
    }

    pub(crate) fn heard(&self, answered: bool) {
        self.heard.store(answered, Ordering::Relaxed);
    }

    /// Hears of every attempt that begins or ends.
    pub(crate) fn starts(&self) -> watch::Receiver<Starts> {
        self.starts.subscribe()
    }

    /// An attempt has begun.
    pub(crate) fn begun(&self) {
        self.starts.send_if_modified(|starts| {
            let counts = *starts == Starts::Bad;
            if counts {
                *starts = Starts::Perhaps;
            }
            counts
        });
    }

    /// An attempt has ended, perhaps for what this machine lacks.
    pub(crate) fn ended(&self, unstarted: bool) {
        self.starts.send_modify(|starts| {
            if unstarted {
                *starts = Starts::Bad;
            }
        });
    }

    /// What has begun has stayed.
    pub(crate) fn proven(&self) {
        self.starts.send_if_modified(|starts| {
            let proven = *starts == Starts::Perhaps;
            if proven {
                *starts = Starts::Good;
            }
            proven
        });
    }

    /// Why the process is of no use any more; nothing if it is.
    pub(crate) fn fault(&self) -> Option<&'static str> {
        self.faulty.load(Ordering::Relaxed).then_some("a part of the worker has failed, and it stops")
    }

    /// Why it takes no work now; nothing if it does.
    pub(crate) fn unready(&self, phase: &watch::Receiver<Shutdown>) -> Option<&'static str> {
        let draining = *phase.borrow() >= Shutdown::Draining;
        self.fault()
            .or_else(|| draining.then_some("it is draining"))
            .or_else(|| (!self.heard.load(Ordering::Relaxed)).then_some("the last dequeue was not answered"))
            .or_else(|| {
                (*self.starts.borrow() != Starts::Good).then_some("this machine cannot start what it takes")
            })
    }
}
