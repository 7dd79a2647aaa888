//! Small configurations hold in every state, and stop holding when any one rule is taken away.

use crate::steps::{Protocol, Rules};
use stateright::{Checker, HasDiscoveries, Model};

/// One execution and two workers, which ask twice.
fn one(rules: Rules) -> Protocol {
    Protocol { executions: 1, workers: 2, leases: 2, max_attempts: 2, limit: 1, rules }
}

/// Two executions of which one may run, and two workers, which ask once.
fn two(rules: Rules) -> Protocol {
    Protocol { executions: 2, workers: 2, leases: 1, max_attempts: 2, limit: 1, rules }
}

#[test]
fn every_state_is_as_it_must_be() {
    for protocol in [one(Rules::default()), two(Rules::default())] {
        protocol.checker().threads(2).spawn_bfs().join().assert_properties();
    }
}

#[test]
fn without_any_one_rule_a_state_is_found_that_must_not_be() {
    let rules = Rules::default;
    for (without, breaks) in [
        (one(Rules { fence: false, ..rules() }), "only its own lease or the controller ends an attempt"),
        (two(Rules { one_claim_a_lease: false, ..rules() }), "a lease takes once"),
        (two(Rules { one_lease_a_slot: false, ..rules() }), "no more leases than the limit"),
        (one(Rules { fresh_look: false, ..rules() }), "what a worker is told is so"),
        (one(Rules { row_locks: false, ..rules() }), "an execution is in one place"),
        (one(Rules { expiry_spends: false, ..rules() }), "no more tries are spent than there are"),
    ] {
        let found = HasDiscoveries::AnyOf([breaks].into());
        let checker = without.clone().checker().threads(2).finish_when(found).spawn_bfs().join();
        assert!(checker.discovery(breaks).is_some(), "{breaks}, with {without:?}");
    }
}
