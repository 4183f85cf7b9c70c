//! How many operations may be in flight.
//!
//! Owns the limit and the part of it kept back for closing and cancelling. Staying at or below what was prewarmed is
//! what keeps EAGAIN rare; backoff is for what gets past it. It counts nothing: the caller says what is in flight. The
//! reserve must stay free, or load could not be taken off under load.

/// Operations that a new connection needs room for: connect, a receive each way, and one send.
pub const OPERATIONS_PER_NEW_CONNECTION: u32 = 4;

/// The smallest limit that works: a new connection, and as much again in reserve.
const SMALLEST_LIMIT: u32 = 2 * OPERATIONS_PER_NEW_CONNECTION;

/// What bounds the operations of one worker. Any values are safe; those out of range are clamped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BudgetLimits {
    /// Operations in flight at most; at least 8.
    pub operations: u32,
    /// How many of them only a close or a cancel may use; at most half of `operations`.
    pub reserve: u32,
}

/// The budget of one worker.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    limits: BudgetLimits,
}

impl Budget {
    /// A budget within `limits`.
    #[must_use]
    pub fn new(limits: BudgetLimits) -> Self {
        let operations = limits.operations.max(SMALLEST_LIMIT);
        Budget {
            limits: BudgetLimits {
                operations,
                reserve: limits.reserve.min(operations / 2),
            },
        }
    }

    /// Takes new limits. What is in flight above a lowered limit finishes; nothing is added until it has.
    pub fn set_limits(&mut self, limits: BudgetLimits) {
        *self = Budget::new(limits);
    }

    /// Operations in flight at most, the reserve included.
    #[must_use]
    pub fn limit(&self) -> u32 {
        self.limits.operations
    }

    /// Operations in flight at most for everything but close and cancel.
    #[must_use]
    pub fn ordinary_limit(&self) -> u32 {
        self.limits.operations - self.limits.reserve
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_reserve_is_for_close_and_cancel() {
        let budget = Budget::new(BudgetLimits {
            operations: 100,
            reserve: 20,
        });
        assert_eq!((budget.limit(), budget.ordinary_limit()), (100, 80));
    }

    proptest! {
        #[test]
        fn a_connection_fits_and_at_most_half_is_kept_back(operations: u32, reserve: u32) {
            let budget = Budget::new(BudgetLimits { operations, reserve });
            prop_assert!(budget.ordinary_limit() >= OPERATIONS_PER_NEW_CONNECTION);
            prop_assert!(budget.ordinary_limit() >= budget.limit() / 2);
            prop_assert!(budget.limit() >= operations);
        }
    }
}
