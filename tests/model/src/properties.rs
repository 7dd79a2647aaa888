//! What must hold in every state, and what must be reachable for that to mean anything.

use crate::state::{Message, Outcome, State, Status, Worker};
use crate::steps::{Action, Protocol};
use stateright::{Model, Property};
use std::collections::BTreeSet;

impl Model for Protocol {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![self.first()]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        self.possible(state, actions);
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        self.after(state, action)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("an execution is in one place", in_one_place),
            Property::always("no more leases than the limit", |protocol: &Self, state: &State| {
                state.leases.len() <= usize::from(protocol.limit)
            }),
            Property::always("attempts are numbered without a gap", numbered),
            Property::always("no more tries are spent than there are", spent),
            Property::always("only its own lease or the controller ends an attempt", |_, state: &State| {
                state
                    .attempts
                    .values()
                    .all(|ended| ended.reported_by.is_none_or(|by| ended.lease == Some(by)))
            }),
            Property::always("a lease takes once", |_, state: &State| {
                let leases: BTreeSet<_> = state.taken().map(|(id, _)| id).collect();
                leases.len() == state.taken().count()
            }),
            Property::always("what a worker is told is so", told_the_truth),
            Property::sometimes("a retry succeeds", |_, state: &State| {
                state
                    .attempts
                    .iter()
                    .any(|((_, attempt), ended)| *attempt > 1 && ended.outcome == Outcome::Succeeded)
            }),
            Property::sometimes("tries run out", |_, state: &State| {
                state.attempts.values().any(|ended| ended.status == Status::Failed)
            }),
            Property::sometimes("a cancel meets a running job", |_, state: &State| {
                state
                    .attempts
                    .values()
                    .any(|ended| ended.lease.is_some() && ended.status == Status::Cancelled)
            }),
            // Why jobs are run at least once, and not exactly once.
            Property::sometimes("two workers run one execution", |_, state: &State| {
                let running = |(worker, _): &(Worker, u8)| match worker {
                    Worker::Running(_, execution) => Some(*execution),
                    _ => None,
                };
                let all: Vec<_> = state.workers.iter().filter_map(running).collect();
                all.iter().collect::<BTreeSet<_>>().len() < all.len()
            }),
        ]
    }
}

/// Waiting, leased or ended for good: one of them and nothing else, so that none is lost and none ends twice.
fn in_one_place(protocol: &Protocol, state: &State) -> bool {
    (0..protocol.executions).all(|execution| {
        let finals =
            state.attempts.iter().filter(|((of, _), ended)| *of == execution && ended.status.is_final());
        let waiting = usize::from(state.waiting.contains_key(&execution));
        waiting + usize::from(state.leases.contains_key(&execution)) + finals.count() == 1
    })
}

fn numbered(protocol: &Protocol, state: &State) -> bool {
    (0..protocol.executions).all(|execution| {
        let ended: Vec<u8> = state
            .attempts
            .keys()
            .filter(|(of, attempt)| *of == execution && *attempt > 0)
            .map(|(_, n)| *n)
            .collect();
        let last = u8::try_from(ended.len()).unwrap_or(u8::MAX);
        let next = state.leases.get(&execution).map(|lease| lease.attempt);
        ended.iter().copied().eq(1..=last) && next.is_none_or(|next| next == last + 1)
    })
}

/// Counted from what ended the attempts, not from what the rows say of it.
fn spent(protocol: &Protocol, state: &State) -> bool {
    (0..protocol.executions).all(|execution| {
        let ended = state.attempts.iter().filter(|((of, attempt), _)| *of == execution && *attempt > 0);
        let spent = ended.filter(|(_, ended)| ended.outcome != Outcome::Released).count();
        spent <= usize::from(protocol.max_attempts)
    })
}

/// An accepted result is in the history as it was answered; one that was told to be lost is not.
fn told_the_truth(_: &Protocol, state: &State) -> bool {
    state.messages.iter().all(|message| match message {
        Message::Decided(report, said) => *said == state.decided(report),
        _ => true,
    })
}
