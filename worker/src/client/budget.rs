//! The retry budget: what keeps a fleet from hammering a controller that is already sick.

use std::sync::atomic::{AtomicU32, Ordering};

/// Tokens to begin with, and the most there can be.
const CAPACITY: u32 = 500;
/// Tokens that one retry takes.
const RETRY_COST: u32 = 5;
/// Tokens that a call which succeeded at once brings.
const SUCCESS_INCOME: u32 = 1;

/// A token bucket that all calls of one client share, with the figures of the AWS SDKs' standard
/// retry mode: a retry takes 5 of 500 tokens, a call that succeeds at once brings 1, one that
/// succeeds after retries brings back what the last of them took. When it is empty, calls are still
/// made once each, so the load on a sick controller falls to what a healthy one bears.
#[derive(Debug)]
pub(crate) struct RetryBudget {
    tokens: AtomicU32,
}

impl RetryBudget {
    pub(crate) fn full() -> Self {
        Self { tokens: AtomicU32::new(CAPACITY) }
    }

    /// Takes what one retry costs; false when there is not enough left.
    pub(crate) fn withdraw(&self) -> bool {
        self.tokens
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |tokens| tokens.checked_sub(RETRY_COST))
            .is_ok()
    }

    /// Puts back what a success after `retries` retries brings.
    pub(crate) fn deposit(&self, retries: u32) {
        let income = if retries == 0 { SUCCESS_INCOME } else { RETRY_COST };
        let deposited = self.tokens.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |tokens| {
            Some(tokens.saturating_add(income).min(CAPACITY))
        });
        debug_assert!(deposited.is_ok(), "the update is never refused");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_budget_refuses_until_successes_have_filled_it() {
        let budget = RetryBudget::full();
        let granted = (0..1000).filter(|_| budget.withdraw()).count();
        assert_eq!(granted, 100);
        for _ in 0..4 {
            budget.deposit(0);
        }
        assert!(!budget.withdraw());
        budget.deposit(0);
        assert!(budget.withdraw());
    }
}
