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
    /// Whether this machine could start the last job that it was to.
    starts: AtomicBool,
}

impl Default for Health {
    fn default() -> Self {
        Self { faulty: AtomicBool::new(false), heard: AtomicBool::new(false), starts: AtomicBool::new(true) }
    }
}

impl Health {
    pub(crate) fn is_faulty(&self) {
        self.faulty.store(true, Ordering::Relaxed);
    }

    pub(crate) fn heard(&self, answered: bool) {
        self.heard.store(answered, Ordering::Relaxed);
    }

    pub(crate) fn starts(&self, could: bool) {
        self.starts.store(could, Ordering::Relaxed);
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
                (!self.starts.load(Ordering::Relaxed)).then_some("this machine cannot start what it takes")
            })
    }
}
