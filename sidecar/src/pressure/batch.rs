//! How many entries to offer the kernel in one submission.
//!
//! Owns one number between `min` and `max`: halved at pushback, added to while submissions are taken whole (additive
//! increase, multiplicative decrease). It must never hold entries back for good: the limit is at least 1.

/// How the batch limit moves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BatchMode {
    /// Between `min` and `max`, by what the kernel takes.
    #[default]
    Adaptive,
    /// Always `max`.
    Fixed,
}

/// What bounds a submission. Any values are safe; those out of range are clamped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchLimits {
    /// How the limit moves.
    pub mode: BatchMode,
    /// Entries that may always be offered at once; 1 to `max`, 8 by default.
    pub min: u32,
    /// Entries that are never exceeded; at least 1, 256 by default.
    pub max: u32,
}

/// Clean windows from `min` back to `max`: a window is as many entries taken as the limit allows at once.
const STEPS_TO_RECOVER: u32 = 32;

/// The batch limit of one worker.
#[derive(Clone, Debug)]
pub struct Batch {
    limits: BatchLimits,
    limit: u32,
    /// Entries taken since the limit last moved. Counting entries and not submissions keeps a trickle of single
    /// entries from claiming that large batches are welcome again.
    taken: u32,
}

impl Batch {
    /// Starts at `max`: nothing has been refused yet.
    #[must_use]
    pub fn new(limits: BatchLimits) -> Self {
        let mut batch = Batch {
            limits,
            limit: u32::MAX,
            taken: 0,
        };
        batch.set_limits(limits);
        batch
    }

    /// Takes new limits; the present limit is brought within them.
    pub fn set_limits(&mut self, limits: BatchLimits) {
        let max = limits.max.max(1);
        self.limits = BatchLimits {
            mode: limits.mode,
            min: limits.min.clamp(1, max),
            max,
        };
        self.limit = match limits.mode {
            BatchMode::Fixed => max,
            BatchMode::Adaptive => self.limit.clamp(self.limits.min, max),
        };
        self.taken = 0;
    }

    /// Entries to offer at most in the next submission; 1 or more.
    #[must_use]
    pub fn limit(&self) -> u32 {
        self.limit
    }

    /// The kernel took less than it was offered.
    pub fn pushed_back(&mut self) {
        self.taken = 0;
        if self.limits.mode == BatchMode::Adaptive {
            self.limit = (self.limit / 2).max(self.limits.min);
        }
    }

    /// The kernel took all of a submission of `entries`.
    pub fn taken_whole(&mut self, entries: u32) {
        if self.limit == self.limits.max {
            return;
        }
        self.taken = self.taken.saturating_add(entries);
        if self.taken >= self.limit {
            self.taken = 0;
            let step = ((self.limits.max - self.limits.min) / STEPS_TO_RECOVER).max(1);
            self.limit = self.limit.saturating_add(step).min(self.limits.max);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: BatchLimits = BatchLimits {
        mode: BatchMode::Adaptive,
        min: 8,
        max: 256,
    };

    fn any_limits() -> impl Strategy<Value = BatchLimits> {
        let edge = prop_oneof![any::<u32>(), 0..1000u32, Just(0), Just(u32::MAX)];
        (any::<bool>(), edge.clone(), edge).prop_map(|(fixed, min, max)| BatchLimits {
            mode: if fixed {
                BatchMode::Fixed
            } else {
                BatchMode::Adaptive
            },
            min,
            max,
        })
    }

    #[test]
    fn halves_at_pushback_and_adds_back_when_clean() {
        let mut batch = Batch::new(LIMITS);
        batch.pushed_back();
        assert_eq!(batch.limit(), 128);
        batch.taken_whole(127);
        assert_eq!(batch.limit(), 128, "a window is not full yet");
        batch.taken_whole(1);
        assert_eq!(batch.limit(), 135);
    }

    #[test]
    fn recovers_from_min_to_max_in_a_few_thousand_entries() {
        let mut batch = Batch::new(LIMITS);
        for _ in 0..10 {
            batch.pushed_back();
        }
        assert_eq!(batch.limit(), 8);
        let mut entries = 0;
        while batch.limit() < 256 {
            batch.taken_whole(8);
            entries += 8;
        }
        assert!(entries < 10_000, "took {entries} entries");
    }

    proptest! {
        #[test]
        fn stays_within_its_limits(
            start in any_limits(),
            events in prop::collection::vec((0..3u8, any::<u32>(), any_limits()), 0..80),
        ) {
            let mut batch = Batch::new(start);
            let mut limits = start;
            for (event, entries, change) in events {
                let before = batch.limit();
                match event {
                    0 => {
                        batch.pushed_back();
                        prop_assert!(batch.limit() <= before);
                    }
                    1 => {
                        batch.taken_whole(entries);
                        prop_assert!(batch.limit() >= before);
                    }
                    _ => {
                        limits = change;
                        batch.set_limits(change);
                    }
                }
                let max = limits.max.max(1);
                prop_assert!(batch.limit() <= max);
                prop_assert!(batch.limit() >= limits.min.clamp(1, max));
                if limits.mode == BatchMode::Fixed {
                    prop_assert_eq!(batch.limit(), max);
                }
            }
        }
    }
}
