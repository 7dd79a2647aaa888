//! Everything there is at one moment: the tables, the claims and messages under way, the workers.

use std::collections::{BTreeMap, BTreeSet};

/// An execution, by its number.
pub(crate) type Execution = u8;

/// A `lease_id`: workers make them up, and no two the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct LeaseId {
    /// Whose it is.
    pub(crate) worker: u8,
    /// How many that worker made before it.
    pub(crate) nth: u8,
}

/// A row of `ready` or `delayed`: the attempts begun so far, and how many of them count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Waiting {
    pub(crate) attempt: u8,
    pub(crate) tries: u8,
}

/// A row of `leases`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Lease {
    pub(crate) id: LeaseId,
    pub(crate) attempt: u8,
    pub(crate) tries: u8,
    /// Its place under the tenant's concurrency limit.
    pub(crate) slot: u8,
    pub(crate) cancel_asked: bool,
}

/// What ended an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Outcome {
    Succeeded,
    Failed,
    Cancelled,
    Released,
    /// The controller's own word.
    Expired,
}

/// What an execution is after an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Status {
    Pending,
    Retrying,
    Succeeded,
    Failed,
    Cancelled,
}

impl Status {
    /// Whether nothing follows.
    pub(crate) fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }
}

/// A row of `attempts`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Ended {
    pub(crate) outcome: Outcome,
    pub(crate) status: Status,
    /// The lease that it was; none for an execution that was cancelled while it waited.
    pub(crate) lease: Option<LeaseId>,
    /// Under which lease this end was reported; none if the controller saw to it.
    pub(crate) reported_by: Option<LeaseId>,
}

/// What a worker reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Report {
    pub(crate) id: LeaseId,
    pub(crate) execution: Execution,
    pub(crate) outcome: Outcome,
}

/// What was sent. It stays here: it may come again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Message {
    /// Asks for work under this lease.
    Dequeue(LeaseId),
    /// Answers what the lease holds.
    Leased(LeaseId, Option<Execution>),
    /// Says how an attempt ended.
    Result(Report),
    /// Answers what follows; nothing if the lease is lost.
    Decided(Report, Option<Status>),
}

/// A claim that has begun and has not committed: the row that it has locked, and the place that it has chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Claim {
    pub(crate) id: LeaseId,
    pub(crate) execution: Execution,
    pub(crate) row: Waiting,
    pub(crate) slot: u8,
}

/// What a worker is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Worker {
    Idle,
    Asking(LeaseId),
    Running(LeaseId, Execution),
    Reporting(Report),
}

impl Worker {
    /// Whether this is the answer that it waits for.
    pub(crate) fn waits_for(&self, message: &Message) -> bool {
        match (self, message) {
            (Self::Asking(id), Message::Leased(answered, _)) => answered == id,
            (Self::Reporting(report), Message::Decided(answered, _)) => answered == report,
            _ => false,
        }
    }
}

/// One moment.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct State {
    /// Rows of `ready`, and of `delayed` too: a row may fall due at any step.
    pub(crate) waiting: BTreeMap<Execution, Waiting>,
    pub(crate) leases: BTreeMap<Execution, Lease>,
    /// By execution and number.
    pub(crate) attempts: BTreeMap<(Execution, u8), Ended>,
    /// What each `lease_id` took.
    pub(crate) dequeues: BTreeMap<LeaseId, Execution>,
    pub(crate) claims: BTreeSet<Claim>,
    pub(crate) messages: BTreeSet<Message>,
    /// Each, and how many leases it has made up.
    pub(crate) workers: Vec<(Worker, u8)>,
}

impl State {
    /// All executions wait, and all workers are idle.
    pub(crate) fn new(executions: u8, workers: u8) -> Self {
        Self {
            waiting: (0..executions).map(|execution| (execution, Waiting { attempt: 0, tries: 0 })).collect(),
            leases: BTreeMap::new(),
            attempts: BTreeMap::new(),
            dequeues: BTreeMap::new(),
            claims: BTreeSet::new(),
            messages: BTreeSet::new(),
            workers: vec![(Worker::Idle, 0); usize::from(workers)],
        }
    }

    /// Whether a claim that has not committed holds this execution's row.
    pub(crate) fn is_locked(&self, execution: Execution) -> bool {
        self.claims.iter().any(|claim| claim.execution == execution)
    }

    /// What this lease took and still holds.
    pub(crate) fn held(&self, id: LeaseId) -> Option<Execution> {
        let held = |execution: &Execution| self.leases.get(execution).is_some_and(|lease| lease.id == id);
        self.dequeues.get(&id).copied().filter(held)
    }

    /// Which lease took which execution, ever.
    pub(crate) fn taken(&self) -> impl Iterator<Item = (LeaseId, Execution)> {
        let now = self.leases.iter().map(|(execution, lease)| (lease.id, *execution));
        now.chain(self.attempts.iter().filter_map(|((execution, _), ended)| Some((ended.lease?, *execution))))
    }

    /// Forgets the answers that no worker waits for.
    pub(crate) fn tidy(&mut self) {
        let Self { messages, workers, .. } = self;
        messages.retain(|message| match message {
            Message::Dequeue(_) | Message::Result(_) => true,
            Message::Leased(..) | Message::Decided(..) => {
                workers.iter().any(|(worker, _)| worker.waits_for(message))
            }
        });
    }

    /// What the result of this lease led to, if one was taken.
    pub(crate) fn decided(&self, report: &Report) -> Option<Status> {
        let ended = self.attempts.range((report.execution, 0)..=(report.execution, u8::MAX));
        ended
            .map(|(_, ended)| ended)
            .find(|ended| ended.lease == Some(report.id) && ended.outcome != Outcome::Expired)
            .map(|ended| ended.status)
    }
}
