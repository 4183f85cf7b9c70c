//! When a status is written: only when its meaning has changed, and at most every so often per policy. Pure, told the time.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use ringside_api::resources::PolicyStatus;

/// The least time between two writes of the same policy's status.
pub const WRITE_EVERY: Duration = Duration::from_secs(10);

/// What was written of each policy, and when.
#[derive(Debug)]
pub struct Pace<K> {
    written: HashMap<K, (PolicyStatus, Duration)>,
}

impl<K> Default for Pace<K> {
    fn default() -> Self {
        Self {
            written: HashMap::new(),
        }
    }
}

/// What to do about a policy's status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// It says what was written.
    Nothing,
    /// Write it.
    Now,
    /// It is to be written, but not before.
    At(Duration),
}

impl<K: Eq + Hash + Clone> Pace<K> {
    /// Whether `status` is to be written, and when.
    pub fn due(&self, policy: &K, status: &PolicyStatus, now: Duration) -> Due {
        let Some((written, at)) = self.written.get(policy) else {
            return Due::Now;
        };
        if means_the_same(written, status) {
            return Due::Nothing;
        }
        // What somebody waits for who has just changed the policy comes at once.
        let is_new = written.observed_generation != status.observed_generation;
        let from = *at + WRITE_EVERY;
        if is_new || now >= from {
            Due::Now
        } else {
            Due::At(from)
        }
    }

    /// What was written last.
    pub fn last(&self, policy: &K) -> Option<&PolicyStatus> {
        self.written.get(policy).map(|(status, _)| status)
    }

    /// A status was written.
    pub fn wrote(&mut self, policy: K, status: PolicyStatus, now: Duration) {
        self.written.insert(policy, (status, now));
    }

    /// Forgets policies that are gone.
    pub fn keep_only(&mut self, mut is_there: impl FnMut(&K) -> bool) {
        self.written.retain(|policy, _| is_there(policy));
    }
}

/// Whether two statuses tell a reader the same: shares of pushback move all the time and are no news by themselves.
fn means_the_same(a: &PolicyStatus, b: &PolicyStatus) -> bool {
    let plain = |status: &PolicyStatus| {
        let mut status = status.clone();
        for worst in &mut status.worst_pods {
            worst.pushback_percent = worst.pushback_percent.div_ceil(25);
            worst.since = None;
        }
        for condition in &mut status.conditions {
            if condition.reason == "Pushback" {
                condition.message.clear();
            }
        }
        status
    };
    plain(a) == plain(b)
}

#[cfg(test)]
mod tests {
    use ringside_api::resources::{PodCounts, WorstPod};

    use super::*;

    fn status(generation: i64, ready: u32, pushback_percent: u32) -> PolicyStatus {
        PolicyStatus {
            observed_generation: Some(generation),
            pods: Some(PodCounts {
                ready,
                ..PodCounts::default()
            }),
            worst_pods: vec![WorstPod {
                name: "web-1".to_owned(),
                pushback_percent,
                since: None,
            }],
            ..PolicyStatus::default()
        }
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn it_is_written_when_its_meaning_changes_and_not_too_often() {
        let mut pace = Pace::default();
        assert_eq!(pace.due(&"web", &status(1, 2, 60), at(0)), Due::Now);
        pace.wrote("web", status(1, 2, 60), at(0));
        assert_eq!(pace.due(&"web", &status(1, 2, 60), at(1)), Due::Nothing);
        assert_eq!(
            pace.due(&"web", &status(1, 2, 70), at(1)),
            Due::Nothing,
            "a share is no news"
        );
        assert_eq!(pace.due(&"web", &status(1, 1, 60), at(1)), Due::At(at(10)));
        assert_eq!(pace.due(&"web", &status(1, 1, 60), at(10)), Due::Now);
        assert_eq!(
            pace.due(&"web", &status(2, 2, 60), at(1)),
            Due::Now,
            "somebody waits for it"
        );
        pace.keep_only(|_| false);
        assert!(pace.last(&"web").is_none());
    }
}
