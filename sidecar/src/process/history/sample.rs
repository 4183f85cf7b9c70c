//! Samples: a process's figures over one second. It owns what is sampled and how totals become rates; it reads no clock.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::SAMPLES_KEPT;
use crate::time::Time;

/// Declares a sample's figures once: as a struct, and as the columns that many of them are sent in.
macro_rules! figures {
    ($($(#[$meta:meta])* $name:ident: $kind:ty,)*) => {
        /// The figures of one second.
        #[derive(Debug, Clone, Copy, Default, PartialEq)]
        pub struct Sample {
            $($(#[$meta])* pub $name: $kind,)*
        }

        /// Samples by column, oldest first; all columns are of one length.
        #[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
        #[serde(rename_all = "camelCase", default)]
        pub struct Columns {
            $($(#[$meta])* pub $name: Vec<$kind>,)*
        }

        impl Columns {
            /// Adds a sample.
            pub fn push(&mut self, sample: &Sample) {
                $(self.$name.push(sample.$name);)*
            }

            /// The samples, as many as the shortest column has.
            pub fn samples(&self) -> Vec<Sample> {
                let count = [$(self.$name.len()),*].into_iter().min().unwrap_or(0);
                (0..count).map(|row| Sample { $($name: self.$name[row],)* }).collect()
            }
        }
    };
}

figures! {
    /// When, in milliseconds since the process's epoch.
    at_millis: u64,
    /// Whether the process was ready.
    ready: bool,
    /// Bytes a second from clients to targets.
    bytes_to_upstream: u64,
    /// Bytes a second from targets to clients.
    bytes_to_client: u64,
    /// Connections open.
    connections_open: u64,
    /// Connections opened a second.
    opened: u64,
    /// Submissions a second, those that were only a wait not among them.
    submissions: u64,
    /// Submissions a second that were pushed back.
    pushed_back: u64,
    /// The share of pushback of the worst worker, in percent.
    pushback_percent: u64,
    /// Time that workers meant to spend in backoff, in microseconds a second.
    backoff_micros: u64,
    /// The smallest batch limit of a worker; 0 without workers.
    batch_limit: u64,
    /// Workers that did not accept.
    paused_workers: u64,
}

impl Columns {
    /// How many samples.
    pub fn len(&self) -> usize {
        self.at_millis.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.at_millis.is_empty()
    }
}

/// What was counted since the process's start, and what stands at the moment.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Totals {
    /// Bytes from clients to targets.
    pub bytes_to_upstream: u64,
    /// Bytes from targets to clients.
    pub bytes_to_client: u64,
    /// Connections opened.
    pub opened: u64,
    /// Submissions.
    pub submissions: u64,
    /// Those that were pushed back.
    pub pushed_back: u64,
    /// Time meant to be spent in backoff, in seconds.
    pub backoff_seconds: f64,
    /// What stands at the moment: only these of a sample count here.
    pub standing: Sample,
}

impl Totals {
    /// The sample of the time since `before`.
    pub fn since(&self, before: &Totals, elapsed: Duration, at: Time) -> Sample {
        let seconds = elapsed.as_secs_f64().max(0.001);
        // A relay that is gone for good takes its counts with it: then a total may be smaller.
        let rate = |now: u64, then: u64| (now.saturating_sub(then) as f64 / seconds).round() as u64;
        let backoff = (self.backoff_seconds - before.backoff_seconds).max(0.0);
        Sample {
            at_millis: at.as_nanos() / 1_000_000,
            bytes_to_upstream: rate(self.bytes_to_upstream, before.bytes_to_upstream),
            bytes_to_client: rate(self.bytes_to_client, before.bytes_to_client),
            opened: rate(self.opened, before.opened),
            submissions: rate(self.submissions, before.submissions),
            pushed_back: rate(self.pushed_back, before.pushed_back),
            backoff_micros: (backoff * 1e6 / seconds).round() as u64,
            ..self.standing
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Samples(VecDeque<(u64, Sample)>);

impl Samples {
    pub(super) fn keep(&mut self, mark: u64, sample: Sample) {
        if self.0.len() == SAMPLES_KEPT {
            self.0.pop_front();
        }
        self.0.push_back((mark, sample));
    }

    pub(super) fn since(&self, mark: u64) -> Columns {
        let mut columns = Columns::default();
        for (_, sample) in self.0.iter().filter(|(of, _)| *of > mark) {
            columns.push(sample);
        }
        columns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_become_rates_of_the_time_that_passed() {
        let before = Totals {
            bytes_to_client: 1000,
            opened: 9,
            backoff_seconds: 1.0,
            ..Totals::default()
        };
        let after = Totals {
            bytes_to_client: 5000,
            opened: 3,
            backoff_seconds: 1.5,
            standing: Sample {
                connections_open: 7,
                ready: true,
                ..Sample::default()
            },
            ..before
        };
        let at = Time::from_nanos(3_000_000_000);
        let sample = after.since(&before, Duration::from_secs(2), at);
        assert_eq!((sample.at_millis, sample.bytes_to_client), (3000, 2000));
        assert_eq!((sample.opened, sample.connections_open), (0, 7));
        assert_eq!((sample.backoff_micros, sample.ready), (250_000, true));
        let at_once = after.since(&before, Duration::ZERO, at);
        assert_eq!(at_once.bytes_to_client, 4_000_000);
    }

    #[test]
    fn columns_and_samples_are_the_same() {
        let sample = Sample {
            at_millis: 7,
            batch_limit: 64,
            ..Sample::default()
        };
        let mut columns = Columns::default();
        columns.push(&sample);
        assert_eq!(columns.samples(), [sample]);
        let text = serde_json::to_string(&columns).unwrap();
        assert!(text.contains("\"bytesToUpstream\":[0]"), "{text}");
        assert_eq!(serde_json::from_str::<Columns>(&text).unwrap(), columns);
        // A column that another version does not send is no sample's.
        let short: Columns = serde_json::from_str("{\"atMillis\":[1,2]}").unwrap();
        assert!(short.samples().is_empty());
    }
}
