//! The last second of submission attempts and of time spent in backoff.
//!
//! Owns ten buckets of a tenth of a second each. It keeps time from stepping back, and its work per call is bounded by
//! the number of buckets, however long nothing was told.

use std::time::Duration;

use crate::time::{Time, saturating_nanos};

const BUCKETS: u64 = 10;
const BUCKET: Duration = Duration::from_millis(100);
const BUCKET_NANOS: u64 = 100_000_000;

#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    attempts: u32,
    pushed_back: u32,
    backoff_nanos: u64,
}

impl Bucket {
    const EMPTY: Bucket = Bucket {
        attempts: 0,
        pushed_back: 0,
        backoff_nanos: 0,
    };

    fn is_empty(&self) -> bool {
        self.attempts == 0 && self.backoff_nanos == 0
    }
}

/// A sliding second, in steps of a tenth.
#[derive(Clone, Debug, Default)]
pub(super) struct Window {
    buckets: [Bucket; BUCKETS as usize],
    now: Time,
    is_backing_off: bool,
}

impl Window {
    /// Moves the window on to `now`; a `now` before the last one leaves it where it is.
    pub(super) fn advance(&mut self, now: Time) {
        let now = now.max(self.now);
        let (from, to) = (
            self.now.as_nanos() / BUCKET_NANOS,
            now.as_nanos() / BUCKET_NANOS,
        );
        // Buckets skipped entirely before the window's new start need no visit.
        let first = from.max(to.saturating_sub(BUCKETS));
        for index in first..=to {
            if index > from {
                *self.bucket(index) = Bucket::EMPTY;
            }
            if self.is_backing_off {
                let begin = self.now.as_nanos().max(index * BUCKET_NANOS);
                let end = now
                    .as_nanos()
                    .min((index * BUCKET_NANOS).saturating_add(BUCKET_NANOS));
                let spent = end.saturating_sub(begin);
                self.bucket(index).backoff_nanos += spent;
            }
        }
        self.now = now;
    }

    /// Counts attempts at the present moment.
    pub(super) fn count(&mut self, attempts: u32, pushed_back: u32) {
        let index = self.now.as_nanos() / BUCKET_NANOS;
        let bucket = self.bucket(index);
        bucket.attempts = bucket.attempts.saturating_add(attempts);
        bucket.pushed_back = bucket.pushed_back.saturating_add(pushed_back);
    }

    /// Whether time counts as spent in backoff from the present moment on.
    pub(super) fn set_backing_off(&mut self, is_backing_off: bool) {
        self.is_backing_off = is_backing_off;
    }

    /// The latest moment told.
    pub(super) fn now(&self) -> Time {
        self.now
    }

    /// The share of pushback: of the attempts or of the time, whichever is larger, in thousandths.
    pub(super) fn share_permille(&self) -> u32 {
        // The present bucket has only begun; time that has not passed yet cannot have been spent.
        let covered = BUCKET_NANOS * (BUCKETS - 1) + self.now.as_nanos() % BUCKET_NANOS;
        share_permille(&self.buckets, covered)
    }

    /// When the present unbroken run of buckets began of which each alone reaches `permille`: at most a second ago. A
    /// present bucket that holds nothing yet breaks no run.
    pub(super) fn high_since(&self, permille: u32) -> Time {
        let present = self.now.as_nanos() / BUCKET_NANOS;
        let mut since = self.now;
        for index in (present.saturating_sub(BUCKETS - 1)..=present).rev() {
            let bucket = self.buckets[(index % BUCKETS) as usize];
            let begin = Time::from_nanos(index * BUCKET_NANOS);
            let covered = self.now.saturating_since(begin).min(BUCKET);
            if index == present && bucket.is_empty() {
                continue;
            }
            if share_permille(&[bucket], saturating_nanos(covered)) < permille {
                break;
            }
            since = begin;
        }
        since
    }

    /// When the share may change by time alone: the end of the present bucket, while the window holds anything.
    pub(super) fn next_slide(&self) -> Option<Time> {
        let holds_any = self.is_backing_off || self.buckets.iter().any(|bucket| !bucket.is_empty());
        let present = self.now.as_nanos() / BUCKET_NANOS;
        holds_any.then(|| Time::from_nanos((present * BUCKET_NANOS).saturating_add(BUCKET_NANOS)))
    }

    fn bucket(&mut self, index: u64) -> &mut Bucket {
        &mut self.buckets[(index % BUCKETS) as usize]
    }
}

fn share_permille(buckets: &[Bucket], time_nanos: u64) -> u32 {
    let (mut attempts, mut pushed_back, mut backoff_nanos) = (0u64, 0u64, 0u64);
    for bucket in buckets {
        attempts += u64::from(bucket.attempts);
        pushed_back += u64::from(bucket.pushed_back);
        backoff_nanos += bucket.backoff_nanos;
    }
    permille(pushed_back, attempts).max(permille(backoff_nanos, time_nanos))
}

/// `part` of `whole` in thousandths, rounded up so that a little is never told as nothing; 0 of nothing.
fn permille(part: u64, whole: u64) -> u32 {
    if whole == 0 {
        return 0;
    }
    let share = (u128::from(part) * 1000).div_ceil(u128::from(whole));
    u32::try_from(share).unwrap_or(1000).min(1000)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn tells_the_share_of_the_last_ten_buckets(turns in prop::collection::vec((0..1500u64, 0..9u32, 0..9u32, any::<bool>()), 1..60)) {
            let mut window = Window::default();
            // What was told, by the millisecond: (attempts, pushed back), and whether the next one is spent in backoff.
            let mut told: Vec<(u64, u64, bool)> = vec![(0, 0, false)];
            let mut backing_off = false;
            for (gap, attempts, pushed_back, backs_off) in turns {
                told.last_mut().unwrap().2 = backing_off;
                told.extend((0..gap).map(|_| (0, 0, backing_off)));
                let now = told.len() - 1;
                window.advance(Time::from_nanos(now as u64 * 1_000_000));
                window.count(attempts, pushed_back.min(attempts));
                told[now].0 += u64::from(attempts);
                told[now].1 += u64::from(pushed_back.min(attempts));
                window.set_backing_off(backs_off);
                backing_off = backs_off;

                let begin = (now / 100).saturating_sub(9) * 100;
                let attempts: u64 = told[begin..=now].iter().map(|turn| turn.0).sum();
                let pushed_back: u64 = told[begin..=now].iter().map(|turn| turn.1).sum();
                let waited = told[begin..now].iter().filter(|turn| turn.2).count() as u64;
                let expected = permille(pushed_back, attempts).max(permille(waited, 900 + now as u64 % 100));
                prop_assert_eq!(window.share_permille(), expected);
            }
        }
    }
}
