//! What the clients of a story have seen, as `story-app load` tells it: counts, failures with their times, answers by pod and by second.
//! It owns the words that the program and the stories share, and judges nothing.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// How many failures a group keeps with time and reason; [`Group::failed`] counts all of them.
pub const FAILURES_KEPT: usize = 200;

/// Milliseconds since 1970, by which clients in pods and the story itself tell when something was: they are on one machine.
pub fn unix_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |since| since.as_millis() as u64)
}

/// All groups of clients by name.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Report(pub BTreeMap<String, Group>);

/// One group: clients that behave alike.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Group {
    /// Requests that were answered; of held streams the pieces that came.
    pub answered: u64,
    /// Requests and streams that failed after they had a connection, or found none for a minute.
    pub failed: u64,
    /// The first of them.
    pub failures: Vec<Failure>,
    /// Connections that were made.
    pub connections: u64,
    /// Attempts to connect that failed and were made again.
    pub connect_retries: u64,
    /// Held streams that the server ended as it should.
    pub streams_ended: u64,
    /// Held streams that are open, by the pod that serves them.
    pub streams_open: BTreeMap<String, u64>,
    /// Answers by the pod that gave them.
    pub by_pod: BTreeMap<String, u64>,
    /// The same by second (since 1970).
    pub by_second: BTreeMap<u64, BTreeMap<String, u64>>,
    /// The longest time that an answer took, in milliseconds.
    pub slowest_ms: u64,
}

/// A request that failed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    /// When it began, with its connecting ([`unix_ms`]).
    pub began_ms: u64,
    /// When it was over.
    pub ended_ms: u64,
    /// Why.
    pub reason: String,
}

impl Report {
    /// What all groups saw together.
    pub fn total(&self) -> Group {
        let mut total = Group::default();
        for group in self.0.values() {
            total.answered += group.answered;
            total.failed += group.failed;
            total.failures.extend(group.failures.iter().cloned());
            total.connections += group.connections;
            total.connect_retries += group.connect_retries;
            total.streams_ended += group.streams_ended;
            add(&mut total.streams_open, &group.streams_open);
            add(&mut total.by_pod, &group.by_pod);
            for (second, pods) in &group.by_second {
                add(total.by_second.entry(*second).or_default(), pods);
            }
            total.slowest_ms = total.slowest_ms.max(group.slowest_ms);
        }
        total
    }
}

impl Group {
    /// An answer of `pod` after so many milliseconds.
    pub fn answer(&mut self, pod: &str, took_ms: u64) {
        self.answered += 1;
        *self.by_pod.entry(pod.to_owned()).or_default() += 1;
        let second = self.by_second.entry(unix_ms() / 1000).or_default();
        *second.entry(pod.to_owned()).or_default() += 1;
        self.slowest_ms = self.slowest_ms.max(took_ms);
    }

    /// A failure of what began at `began_ms`.
    pub fn failure(&mut self, began_ms: u64, reason: String) {
        self.failed += 1;
        if self.failures.len() < FAILURES_KEPT {
            self.failures.push(Failure {
                began_ms,
                ended_ms: unix_ms(),
                reason,
            });
        }
    }

    /// The failures of what began at `ms` or later.
    pub fn failures_since(&self, ms: u64) -> Vec<&Failure> {
        let failures = self.failures.iter();
        failures.filter(|one| one.began_ms >= ms).collect()
    }

    /// Answers by pod in the whole seconds from `ms` on.
    pub fn answers_since(&self, ms: u64) -> BTreeMap<String, u64> {
        let mut sum = BTreeMap::new();
        for (_, pods) in self.by_second.range(ms.div_ceil(1000)..) {
            add(&mut sum, pods);
        }
        sum
    }
}

fn add(sum: &mut BTreeMap<String, u64>, more: &BTreeMap<String, u64>) {
    for (pod, count) in more {
        *sum.entry(pod.clone()).or_default() += count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_added_up_and_told_by_time() {
        let mut one = Group::default();
        one.answer("a", 3);
        one.failure(1_000, "reset".to_owned());
        let mut two = Group::default();
        two.answer("a", 5);
        two.answer("b", 4);
        two.failure(2_000, "no answer".to_owned());
        let total = Report([("one".to_owned(), one), ("two".to_owned(), two)].into()).total();
        assert_eq!((total.answered, total.failed, total.slowest_ms), (3, 2, 5));
        assert_eq!((total.by_pod["a"], total.by_pod["b"]), (2, 1));
        assert_eq!(total.failures_since(1_500).len(), 1);
        assert_eq!(total.answers_since(0)["a"], 2);
        assert!(total.answers_since(unix_ms() + 2_000).is_empty());
    }
}
