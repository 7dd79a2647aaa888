//! What can happen next, and what comes of it: the statements of the control plane, and what workers do.

use crate::state::{
    Claim, Ended, Execution, Lease, LeaseId, Message, Outcome, Report, State, Status, Waiting, Worker,
};
use std::collections::BTreeSet;

/// A configuration of the protocol, small enough to look at every state of it.
#[derive(Debug, Clone)]
pub(crate) struct Protocol {
    /// How many executions wait in the beginning, all of one tenant.
    pub(crate) executions: u8,
    /// How many workers there are.
    pub(crate) workers: u8,
    /// How many leases each worker asks for in all, one execution each.
    pub(crate) leases: u8,
    /// How many tries an execution has.
    pub(crate) max_attempts: u8,
    /// The tenant's concurrency limit.
    pub(crate) limit: u8,
    /// What keeps it right.
    pub(crate) rules: Rules,
}

/// What keeps the protocol right. Without any one of these a state can be found that must not be.
#[derive(Debug, Clone)]
pub(crate) struct Rules {
    /// A result counts only under the lease that the execution is held by.
    pub(crate) fence: bool,
    /// A `lease_id` has one row in `dequeues`, so that it takes once.
    pub(crate) one_claim_a_lease: bool,
    /// No two leases have the same place under a limit.
    pub(crate) one_lease_a_slot: bool,
    /// What is not there is looked for once more before it is said to be lost.
    pub(crate) fresh_look: bool,
    /// A cancel waits for a claim that has the row in hand.
    pub(crate) row_locks: bool,
    /// An expired attempt has spent a try.
    pub(crate) expiry_spends: bool,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            fence: true,
            one_claim_a_lease: true,
            one_lease_a_slot: true,
            fresh_look: true,
            row_locks: true,
            expiry_spends: true,
        }
    }
}

/// One thing that happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Action {
    /// A worker makes up a lease and asks for work.
    Ask(u8),
    /// A dequeue arrives, and its claim begins: it sees what there is now.
    Begin(LeaseId),
    /// A claim commits, and is answered.
    Commit(Claim),
    /// A result arrives, is taken and answered.
    Take(Report),
    /// A worker hears an answer.
    Hear(u8, Message),
    /// A worker's heartbeat is answered that the lease is lost, or that a cancel was asked.
    Heartbeat(u8),
    /// A job ends.
    End(u8, Outcome),
    /// A worker dies with its job, and one takes its place that knows nothing.
    Crash(u8),
    /// The tick ends a lease that nobody has renewed.
    Expire(Execution),
    /// The tenant cancels.
    Cancel(Execution),
}

impl Protocol {
    /// The first state.
    pub(crate) fn first(&self) -> State {
        State::new(self.executions, self.workers)
    }

    /// All that can happen now.
    pub(crate) fn possible(&self, state: &State, actions: &mut Vec<Action>) {
        for (worker, &(doing, asked)) in (0..).zip(&state.workers) {
            match doing {
                Worker::Idle if asked < self.leases => actions.push(Action::Ask(worker)),
                Worker::Idle => {}
                Worker::Running(id, execution) => {
                    if state.leases.get(&execution).is_none_or(|lease| lease.id != id || lease.cancel_asked) {
                        actions.push(Action::Heartbeat(worker));
                    }
                    let ends = [Outcome::Succeeded, Outcome::Failed, Outcome::Released];
                    actions.extend(ends.map(|outcome| Action::End(worker, outcome)));
                }
                Worker::Asking(_) | Worker::Reporting(_) => {}
            }
            if doing != Worker::Idle {
                actions.push(Action::Crash(worker));
            }
            let heard = state.messages.iter().filter(|message| doing.waits_for(message));
            actions.extend(heard.map(|&message| Action::Hear(worker, message)));
        }
        actions.extend(state.messages.iter().filter_map(|message| match message {
            Message::Dequeue(id) => Some(Action::Begin(*id)),
            Message::Result(report) => Some(Action::Take(*report)),
            Message::Leased(..) | Message::Decided(..) => None,
        }));
        actions.extend(state.claims.iter().map(|&claim| Action::Commit(claim)));
        actions.extend(state.leases.keys().map(|&execution| Action::Expire(execution)));
        let waiting = state.waiting.keys().filter(|&&it| !(self.rules.row_locks && state.is_locked(it)));
        let running = state.leases.iter().filter(|(_, lease)| !lease.cancel_asked).map(|(it, _)| it);
        actions.extend(waiting.chain(running).map(|&execution| Action::Cancel(execution)));
    }

    /// What there is after that; nothing if it changes nothing.
    pub(crate) fn after(&self, before: &State, action: Action) -> Option<State> {
        let mut state = before.clone();
        match action {
            Action::Ask(worker) => {
                let (doing, asked) = &mut state.workers[usize::from(worker)];
                let id = LeaseId { worker, nth: *asked };
                (*doing, *asked) = (Worker::Asking(id), *asked + 1);
                state.messages.insert(Message::Dequeue(id));
            }
            Action::Begin(id) => {
                // One that finds nothing to take changes nothing by waiting.
                match self.picks(&state) {
                    Some((execution, row, slot)) => {
                        state.claims.insert(Claim { id, execution, row, slot });
                    }
                    None => {
                        let held = state.held(id);
                        state.messages.insert(Message::Leased(id, held));
                    }
                }
            }
            Action::Commit(claim) => {
                state.claims.remove(&claim);
                let held = self.claim(&mut state, claim);
                state.messages.insert(Message::Leased(claim.id, held));
            }
            Action::Take(report) => {
                let decided = self.result(&mut state, report);
                state.messages.insert(Message::Decided(report, decided));
            }
            Action::Hear(worker, message) => {
                state.workers[usize::from(worker)].0 = match message {
                    Message::Leased(id, Some(execution)) => Worker::Running(id, execution),
                    _ => Worker::Idle,
                };
            }
            Action::Heartbeat(worker) => {
                let (doing, _) = &mut state.workers[usize::from(worker)];
                let Worker::Running(id, execution) = *doing else { return None };
                // A job that has lost its lease is stopped and not reported.
                let held = state.leases.get(&execution).is_some_and(|lease| lease.id == id);
                *doing = if held {
                    report(&mut state.messages, id, execution, Outcome::Cancelled)
                } else {
                    Worker::Idle
                };
            }
            Action::End(worker, outcome) => {
                let (doing, _) = &mut state.workers[usize::from(worker)];
                let Worker::Running(id, execution) = *doing else { return None };
                *doing = report(&mut state.messages, id, execution, outcome);
            }
            Action::Crash(worker) => state.workers[usize::from(worker)].0 = Worker::Idle,
            Action::Expire(execution) => self.end(&mut state, execution, Outcome::Expired, None),
            Action::Cancel(execution) => match state.leases.get_mut(&execution) {
                Some(lease) => lease.cancel_asked = true,
                None => {
                    state.waiting.remove(&execution)?;
                    let (outcome, status) = (Outcome::Cancelled, Status::Cancelled);
                    state
                        .attempts
                        .insert((execution, 0), Ended { outcome, status, lease: None, reported_by: None });
                }
            },
        }
        state.tidy();
        Some(state)
    }

    /// The first row that no other claim has in hand, and the first place that is free as this claim sees it.
    fn picks(&self, state: &State) -> Option<(Execution, Waiting, u8)> {
        let (&execution, &row) = state.waiting.iter().find(|(execution, _)| !state.is_locked(**execution))?;
        let slot = (0..self.limit).find(|slot| state.leases.values().all(|lease| lease.slot != *slot))?;
        Some((execution, row, slot))
    }

    /// Takes the row if this lease has taken none and its place is still free; answers what the lease holds.
    fn claim(&self, state: &mut State, Claim { id, execution, row, slot }: Claim) -> Option<Execution> {
        if !(state.dequeues.contains_key(&id) && self.rules.one_claim_a_lease) {
            state.dequeues.insert(id, execution);
            let is_free = state.leases.values().all(|lease| lease.slot != slot);
            if is_free || !self.rules.one_lease_a_slot {
                state.waiting.remove(&execution);
                let Waiting { attempt, tries } = row;
                let lease = Lease { id, attempt: attempt + 1, tries, slot, cancel_asked: false };
                state.leases.insert(execution, lease);
            }
        }
        state.held(id)
    }

    /// Ends the attempt if the lease is held; answers what was decided, now or before.
    fn result(&self, state: &mut State, report: Report) -> Option<Status> {
        let lease = state.leases.get(&report.execution);
        if lease.is_some_and(|lease| lease.id == report.id || !self.rules.fence) {
            self.end(state, report.execution, report.outcome, Some(report.id));
        } else if !self.rules.fresh_look {
            // A repeated call may have begun before the first one committed, and sees nothing of it.
            return None;
        }
        state.decided(&report)
    }

    /// Ends an attempt and puts its execution where that is: done, or back in line.
    fn end(&self, state: &mut State, execution: Execution, outcome: Outcome, reported_by: Option<LeaseId>) {
        let Some(lease) = state.leases.remove(&execution) else { return };
        let spends = match outcome {
            Outcome::Released => false,
            Outcome::Expired => self.rules.expiry_spends,
            _ => true,
        };
        let tries = lease.tries + u8::from(spends);
        let status = match outcome {
            Outcome::Succeeded => Status::Succeeded,
            _ if outcome == Outcome::Cancelled || lease.cancel_asked => Status::Cancelled,
            _ if spends && tries >= self.max_attempts => Status::Failed,
            _ if tries == 0 => Status::Pending,
            _ => Status::Retrying,
        };
        if !status.is_final() {
            state.waiting.insert(execution, Waiting { attempt: lease.attempt, tries });
        }
        let ended = Ended { outcome, status, lease: Some(lease.id), reported_by };
        state.attempts.insert((execution, lease.attempt), ended);
    }
}

/// Sends a report, and repeats it until it is answered.
fn report(messages: &mut BTreeSet<Message>, id: LeaseId, execution: Execution, outcome: Outcome) -> Worker {
    let report = Report { id, execution, outcome };
    messages.insert(Message::Result(report));
    Worker::Reporting(report)
}
