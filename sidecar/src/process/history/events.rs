//! Events: what happened to a process, as sentences with a time. It owns their ring, and that what happens again and again is one
//! event with a count, so that a busy gate cannot push a change of readiness out.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::EVENTS_KEPT;
use crate::time::Time;

/// The most characters of a sentence.
const SENTENCE_MAX: usize = 400;

/// What happens again within this time of its last time is the same event.
const SAME_WITHIN: Duration = Duration::from_secs(30);

/// What an event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Kind {
    /// The process began, or drains.
    Process,
    /// It became ready or unready.
    Readiness,
    /// Settings were taken or refused.
    Settings,
    /// Pushback outlasted `maxRetries`.
    Stall,
    /// Accepting was paused.
    Gate,
    /// Which backend a worker runs on.
    Backend,
    /// A relay listens, or does not.
    Relay,
    /// The controller was reached, or lost.
    Controller,
}

/// What is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    kind: Kind,
    sentence: String,
    count: u64,
    is_repeated: bool,
}

impl Told {
    /// Something that is an event of its own each time.
    pub fn once(kind: Kind, sentence: impl Into<String>) -> Self {
        Told {
            kind,
            sentence: bounded(sentence.into()),
            count: 1,
            is_repeated: false,
        }
    }

    /// Something that may come often, `count` times by now: with the same sentence it is the same event.
    pub fn repeated(kind: Kind, sentence: impl Into<String>, count: u64) -> Self {
        Told {
            count,
            is_repeated: true,
            ..Told::once(kind, sentence)
        }
    }
}

fn bounded(mut sentence: String) -> String {
    if let Some((end, _)) = sentence.char_indices().nth(SENTENCE_MAX) {
        sentence.truncate(end);
        sentence.push('…');
    }
    sentence
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Its number, from 1.
    pub number: u64,
    /// When it happened first.
    pub at: Time,
    /// When it happened last.
    pub until: Time,
    /// What it is about.
    pub kind: Kind,
    /// What happened.
    pub sentence: String,
    /// How often.
    pub count: u64,
    mark: u64,
}

#[derive(Debug, Default)]
pub(super) struct Events {
    kept: VecDeque<Event>,
    told: u64,
}

impl Events {
    pub(super) fn tell(&mut self, mark: u64, at: Time, told: Told) {
        let same = |event: &&mut Event| {
            event.kind == told.kind
                && event.sentence == told.sentence
                && at.saturating_since(event.until) <= SAME_WITHIN
        };
        if told.is_repeated
            && let Some(event) = self.kept.iter_mut().rev().find(same)
        {
            event.count = event.count.saturating_add(told.count);
            (event.until, event.mark) = (at, mark);
            return;
        }
        if self.kept.len() == EVENTS_KEPT {
            self.kept.pop_front();
        }
        self.told += 1;
        self.kept.push_back(Event {
            number: self.told,
            at,
            until: at,
            kind: told.kind,
            sentence: told.sentence,
            count: told.count,
            mark,
        });
    }

    pub(super) fn since(&self, mark: u64) -> Vec<Event> {
        let after = self.kept.iter().filter(|event| event.mark > mark);
        after.cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Time {
        Time::from_nanos(seconds * 1_000_000_000)
    }

    #[test]
    fn what_happens_again_soon_is_one_event_and_later_another() {
        let mut events = Events::default();
        let pause = |count| Told::repeated(Kind::Gate, "worker 0 paused accepting: rate", count);
        events.tell(1, at(1), pause(3));
        events.tell(2, at(2), Told::once(Kind::Readiness, "unready"));
        events.tell(3, at(20), pause(2));
        events.tell(4, at(90), pause(1));
        let kept = events.since(0);
        let counts: Vec<u64> = kept.iter().map(|event| event.count).collect();
        assert_eq!(counts, [5, 1, 1]);
        assert_eq!((kept[0].at, kept[0].until), (at(1), at(20)));
        assert_eq!(events.since(3).len(), 1);
    }

    #[test]
    fn what_is_told_once_is_never_merged() {
        let mut events = Events::default();
        for mark in 0..2 {
            events.tell(mark, at(1), Told::once(Kind::Readiness, "ready again"));
        }
        assert_eq!(events.kept.len(), 2);
    }

    #[test]
    fn a_sentence_is_cut_at_a_character() {
        let long = Told::once(Kind::Settings, "ä".repeat(1000));
        assert_eq!(long.sentence.chars().count(), SENTENCE_MAX + 1);
    }
}
