//! When a status is written: only when its meaning has changed, and at most every so often per policy. Pure, told the time.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use ringside_api::resources::PolicyStatus;
use serde_json::Value;

use crate::policies::SeenStatus;

/// The least time between two writes of the same policy's status.
pub const WRITE_EVERY: Duration = Duration::from_secs(10);

/// What was written of each policy, and when.
#[derive(Debug)]
pub struct Pace<K> {
    written: HashMap<K, Written>,
}

#[derive(Debug)]
struct Written {
    status: PolicyStatus,
    /// The version of the object that was written.
    version: u64,
    at: Duration,
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
    /// Whether `status` is to be written, and when. `seen` is what the API server has, as far as it is known: where somebody has written
    /// over what was written here, it is put right.
    pub fn due(
        &self,
        policy: &K,
        status: &PolicyStatus,
        seen: Option<&SeenStatus>,
        now: Duration,
    ) -> Due {
        let Some(Written {
            status: written,
            version,
            at,
        }) = self.written.get(policy)
        else {
            // What another leader wrote says the same.
            let is_told = seen.is_some_and(|seen| {
                let same = |told: &PolicyStatus| means_the_same(told, status);
                seen.status.as_ref().is_some_and(same) || is_kept(status, seen)
            });
            return if is_told { Due::Nothing } else { Due::Now };
        };
        // What was seen may be older than what was written.
        let is_overwritten =
            seen.is_some_and(|seen| seen.version > *version && !is_kept(written, seen));
        if means_the_same(written, status) && !is_overwritten {
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
        self.written.get(policy).map(|written| &written.status)
    }

    /// A status was written, into that version of the object.
    pub fn wrote(&mut self, policy: K, status: PolicyStatus, version: u64, at: Duration) {
        let written = Written {
            status,
            version,
            at,
        };
        self.written.insert(policy, written);
    }

    /// Forgets policies that are gone.
    pub fn keep_only(&mut self, mut is_there: impl FnMut(&K) -> bool) {
        self.written.retain(|policy, _| is_there(policy));
    }
}

/// Whether all that was written is there still. What others have added, such as conditions of their own, is theirs.
fn is_kept(written: &PolicyStatus, seen: &SeenStatus) -> bool {
    let Some(seen) = &seen.status else {
        return false;
    };
    let (written, seen) = (serde_json::to_value(written), serde_json::to_value(seen));
    matches!((written, seen), (Ok(written), Ok(seen)) if is_within(&written, &seen))
}

/// Whether all of `part` is in `whole`; members of lists are told apart by their type or name.
fn is_within(part: &Value, whole: &Value) -> bool {
    match (part, whole) {
        (Value::Object(part), Value::Object(whole)) => part.iter().all(|(key, part)| {
            let whole = whole.get(key);
            whole.is_some_and(|whole| is_within(part, whole))
        }),
        (Value::Array(part), Value::Array(whole)) => part
            .iter()
            .all(|part| whole.iter().any(|whole| is_within(part, whole))),
        _ => part == whole,
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
        assert_eq!(pace.due(&"web", &status(1, 2, 60), None, at(0)), Due::Now);
        pace.wrote("web", status(1, 2, 60), 5, at(0));
        assert_eq!(
            pace.due(&"web", &status(1, 2, 60), None, at(1)),
            Due::Nothing
        );
        assert_eq!(
            pace.due(&"web", &status(1, 2, 70), None, at(1)),
            Due::Nothing,
            "a share is no news"
        );
        assert_eq!(
            pace.due(&"web", &status(1, 1, 60), None, at(1)),
            Due::At(at(10))
        );
        assert_eq!(pace.due(&"web", &status(1, 1, 60), None, at(10)), Due::Now);
        assert_eq!(
            pace.due(&"web", &status(2, 2, 60), None, at(1)),
            Due::Now,
            "somebody waits for it"
        );
        pace.keep_only(|_| false);
        assert!(pace.last(&"web").is_none());
    }

    #[test]
    fn a_new_leader_writes_nothing_that_is_there_already() {
        let pace = Pace::default();
        let due = |seen: PolicyStatus| {
            let seen = SeenStatus {
                version: 3,
                status: Some(seen),
            };
            pace.due(&"web", &status(1, 2, 60), Some(&seen), at(0))
        };
        assert_eq!(due(status(1, 2, 70)), Due::Nothing);
        assert_eq!(due(status(1, 1, 60)), Due::Now);
        assert_eq!(due(status(2, 2, 60)), Due::Now);
    }

    #[test]
    fn what_somebody_writes_over_it_is_put_right_after_a_while() {
        let mut pace = Pace::default();
        let ours = status(1, 2, 60);
        pace.wrote("web", ours.clone(), 5, at(0));
        let due = |version: u64, status: Option<PolicyStatus>, seconds: u64| {
            let seen = SeenStatus { version, status };
            pace.due(&"web", &ours, Some(&seen), at(seconds))
        };
        assert_eq!(due(6, Some(status(1, 9, 60)), 1), Due::At(at(10)));
        assert_eq!(due(6, Some(status(1, 9, 60)), 10), Due::Now);
        assert_eq!(due(6, None, 10), Due::Now, "it was taken away");
        assert_eq!(due(4, Some(status(1, 9, 60)), 10), Due::Nothing, "older");
        let mut with_more = ours.clone();
        with_more.backends.insert("theirs".to_owned(), 1);
        assert_eq!(due(6, Some(with_more), 10), Due::Nothing, "theirs to keep");
    }
}
