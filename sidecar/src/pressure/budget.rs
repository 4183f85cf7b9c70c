//! How many operations may be in flight.
//!
//! Owns the limit and the part of it kept back for closing and cancelling. Staying at or below what was prewarmed is
//! what keeps EAGAIN rare; backoff is for what gets past it. It counts nothing: the caller says what is in flight. It
//! must never refuse a close while the reserve has room, or load could not be taken off under load.

/// Operations that a new connection needs room for: connect, a receive each way, and one send.
pub const OPERATIONS_PER_NEW_CONNECTION: u32 = 4;

/// The smallest limit that works: a new connection, and as much again in reserve.
const SMALLEST_LIMIT: u32 = 2 * OPERATIONS_PER_NEW_CONNECTION;

/// What asks for room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Taking on another connection.
    NewConnection,
    /// An operation of a connection that is already relayed.
    Ordinary,
    /// A close or a cancel: frees more than it takes, so it may use the reserve.
    CloseOrCancel,
}

/// What bounds the operations of one worker. Any values are safe; those out of range are clamped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BudgetLimits {
    /// Operations in flight at most; at least 8, 8192 (what is prewarmed) by default.
    pub operations: u32,
    /// How many of them only a close or a cancel may use; at most half of `operations`, 256 by default.
    pub reserve: u32,
}

impl Default for BudgetLimits {
    fn default() -> Self {
        BudgetLimits {
            operations: 8192,
            reserve: 256,
        }
    }
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

    /// How many more pieces of `work` may start while `in_flight` operations are: connections for
    /// [`Work::NewConnection`], operations otherwise.
    #[must_use]
    pub fn room(&self, work: Work, in_flight: u32) -> u32 {
        match work {
            Work::NewConnection => {
                self.ordinary_limit().saturating_sub(in_flight) / OPERATIONS_PER_NEW_CONNECTION
            }
            Work::Ordinary => self.ordinary_limit().saturating_sub(in_flight),
            Work::CloseOrCancel => self.limit().saturating_sub(in_flight),
        }
    }

    /// Whether one more piece of `work` may start while `in_flight` operations are.
    #[must_use]
    pub fn admits(&self, work: Work, in_flight: u32) -> bool {
        self.room(work, in_flight) > 0
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
        assert!(budget.admits(Work::NewConnection, 76));
        assert!(!budget.admits(Work::NewConnection, 77));
        assert!(budget.admits(Work::Ordinary, 79));
        assert!(!budget.admits(Work::Ordinary, 80));
        assert!(budget.admits(Work::CloseOrCancel, 99));
        assert!(!budget.admits(Work::CloseOrCancel, 100));
    }

    proptest! {
        #[test]
        fn never_over_the_limit_and_never_wedged(operations: u32, reserve: u32, in_flight: u32) {
            let budget = Budget::new(BudgetLimits { operations, reserve });
            prop_assert!(budget.admits(Work::NewConnection, 0), "an idle worker takes a connection");
            prop_assert!(budget.ordinary_limit() >= budget.limit() / 2);
            for (work, cost) in [
                (Work::NewConnection, OPERATIONS_PER_NEW_CONNECTION),
                (Work::Ordinary, 1),
                (Work::CloseOrCancel, 1),
            ] {
                let room = u64::from(budget.room(work, in_flight));
                if room > 0 {
                    prop_assert!(u64::from(in_flight) + room * u64::from(cost) <= u64::from(budget.limit()));
                }
            }
            // What admits more admits less: a class never overtakes one that matters more.
            if budget.admits(Work::NewConnection, in_flight) {
                prop_assert!(budget.admits(Work::Ordinary, in_flight));
            }
            if budget.admits(Work::Ordinary, in_flight) {
                prop_assert!(budget.admits(Work::CloseOrCancel, in_flight));
            }
        }
    }
}
