//! The last minutes of a process: a sample of its figures each second, and the events that are worth a sentence.
//!
//! It owns both rings and their bounds. It only remembers what it is given; who looks at the process is `watching`.

mod events;
mod sample;
mod watching;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub use events::{Event, Kind, Told};
pub use sample::{Columns, Sample, Totals};
pub(super) use watching::watch;

use crate::time::Time;
use events::Events;
use sample::Samples;

/// How often a sample is taken.
pub const EVERY: Duration = Duration::from_secs(1);

/// Samples that are kept: the last five minutes.
pub const SAMPLES_KEPT: usize = 300;

/// Events that are kept.
pub const EVENTS_KEPT: usize = 100;

/// What was seen, for anybody to read.
#[derive(Debug, Default)]
pub struct History(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    samples: Samples,
    events: Events,
    /// One more with each sample and with each change of an event.
    mark: u64,
}

/// What came after a mark.
#[derive(Debug, Clone, PartialEq)]
pub struct Since {
    /// The mark to ask by the next time.
    pub mark: u64,
    /// Samples, oldest first.
    pub samples: Columns,
    /// Events that are new or were told again, oldest first.
    pub events: Vec<Event>,
}

impl History {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a sample, in the place of the oldest where there are [`SAMPLES_KEPT`].
    pub fn keep(&self, sample: Sample) {
        let mut inner = self.lock();
        inner.mark += 1;
        let mark = inner.mark;
        inner.samples.keep(mark, sample);
    }

    /// Tells an event, in the place of the oldest where there are [`EVENTS_KEPT`].
    pub fn tell(&self, at: Time, told: Told) {
        let mut inner = self.lock();
        inner.mark += 1;
        let mark = inner.mark;
        inner.events.tell(mark, at, told);
    }

    /// What came after `mark`; everything where no such mark was given out, as by the process before this one.
    pub fn since(&self, mark: u64) -> Since {
        let inner = self.lock();
        let after = if mark > inner.mark { 0 } else { mark };
        Since {
            mark: inner.mark,
            samples: inner.samples.since(after),
            events: inner.events.since(after),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(sentence: &str) -> Told {
        Told::once(Kind::Settings, sentence)
    }

    #[test]
    fn a_mark_gives_what_came_after_it_and_an_unknown_one_everything() {
        let history = History::default();
        history.keep(Sample::default());
        history.tell(Time::ZERO, told("taken"));
        let first = history.since(0);
        assert_eq!((first.samples.len(), first.events.len()), (1, 1));
        let none = history.since(first.mark);
        assert_eq!((none.samples.len(), none.events.len()), (0, 0));
        history.keep(Sample::default());
        let more = history.since(first.mark);
        assert_eq!((more.samples.len(), more.events.len()), (1, 0));
        assert_eq!(history.since(1_000_000).samples.len(), 2);
    }

    #[test]
    fn an_event_that_is_told_again_is_given_again() {
        let history = History::default();
        let stall = || Told::repeated(Kind::Stall, "worker 0 stalled", 1);
        history.tell(Time::ZERO, stall());
        let mark = history.since(0).mark;
        history.tell(Time::from_nanos(1_000_000_000), stall());
        let since = history.since(mark);
        assert_eq!((since.events.len(), since.events[0].count), (1, 2));
    }

    #[test]
    fn memory_is_bounded() {
        let history = History::default();
        for number in 0..1000 {
            history.keep(Sample::default());
            history.tell(Time::ZERO, told(&format!("event {number}")));
        }
        let all = history.since(0);
        assert_eq!(
            (all.samples.len(), all.events.len()),
            (SAMPLES_KEPT, EVENTS_KEPT)
        );
        assert_eq!(all.events.last().unwrap().sentence, "event 999");
    }
}
