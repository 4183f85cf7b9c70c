//! What is known of one sidecar: its last answer, its samples of the last minutes, its events, and since when it does not answer. Pure:
//! it is given answers and the time.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use serde::Deserialize;

use crate::admin::history::{Document, ShownEvent};
use crate::process::history::{EVENTS_KEPT, SAMPLES_KEPT, Sample};

/// The most characters of a text that is shown: an answer may be anybody's.
const TEXT_MAX: usize = 500;

/// One look at a sidecar.
#[derive(Debug, Clone, Default)]
pub(super) struct Answer {
    pub(super) status: Status,
    pub(super) history: Document,
}

/// The part of `/statusz` that is shown.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Status {
    pub(super) version: String,
    pub(super) uptime_seconds: f64,
    pub(super) ready: bool,
    pub(super) reason: String,
    pub(super) phase: String,
    pub(super) connections_open: u64,
    pub(super) connections_limit: u64,
    pub(super) workers: Vec<Worker>,
    pub(super) relays: Vec<Relay>,
    pub(super) settings: Settings,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Worker {
    pub(super) backend: String,
    pub(super) reason: String,
    pub(super) pushback_percent: u64,
    pub(super) accept_paused: bool,
    pub(super) accept_pause_reason: String,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Relay {
    pub(super) name: String,
    pub(super) listen: Vec<String>,
    pub(super) target: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Settings {
    pub(super) hash: String,
    pub(super) source: String,
    pub(super) generation: u64,
}

/// A sidecar as it is seen from here.
#[derive(Debug, Clone)]
pub(super) struct Sidecar {
    pub(super) name: String,
    /// Its last answer, also where it does not answer any more.
    pub(super) status: Option<Status>,
    /// Samples, oldest first, each with the time of day that its process gives it, in milliseconds since 1970.
    pub(super) samples: VecDeque<(u64, Sample)>,
    /// Events by number.
    pub(super) events: BTreeMap<u64, ShownEvent>,
    /// When its process began, in milliseconds since 1970.
    pub(super) started_millis: u64,
    /// Since when it does not answer, and why.
    pub(super) silent: Option<(Instant, String)>,
    mark: u64,
}

impl Sidecar {
    pub(super) fn new(name: &str, now: Instant) -> Self {
        Sidecar {
            name: shown(name),
            status: None,
            samples: VecDeque::new(),
            events: BTreeMap::new(),
            started_millis: 0,
            silent: Some((now, "it is asked".to_owned())),
            mark: 0,
        }
    }

    /// What to ask by the next time.
    pub(super) fn mark(&self) -> u64 {
        self.mark
    }

    /// Whether it answered the last time.
    pub(super) fn answers(&self) -> bool {
        self.silent.is_none()
    }

    /// For how long it does not answer.
    pub(super) fn silent_for(&self, now: Instant) -> Option<Duration> {
        let (since, _) = self.silent.as_ref()?;
        Some(now.saturating_duration_since(*since))
    }

    /// The last sample, where it answers.
    pub(super) fn newest(&self) -> Option<&Sample> {
        let newest = self.samples.back().map(|(_, sample)| sample);
        newest.filter(|_| self.answers())
    }

    /// Takes an answer, or why there is none; returns the mark to ask by the next time.
    pub(super) fn take(&mut self, answer: Result<Answer, String>, now: Instant) -> u64 {
        match answer {
            Ok(answer) => {
                self.remember(answer.history);
                self.status = Some(bounded(answer.status));
                self.silent = None;
            }
            Err(why) => {
                let since = self.silent.as_ref().map_or(now, |(since, _)| *since);
                self.silent = Some((since, shown(&why)));
            }
        }
        self.mark
    }

    fn remember(&mut self, history: Document) {
        if history.started_millis != self.started_millis {
            // Another process: its events are others; the samples of the one before stay in the picture.
            self.started_millis = history.started_millis;
            self.events.clear();
        }
        self.mark = history.mark;
        let known = self.samples.back().map_or(0, |(at, _)| *at);
        for sample in history.samples.samples() {
            let at = history.started_millis.saturating_add(sample.at_millis);
            if at > known {
                self.samples.push_back((at, sample));
            }
        }
        while self.samples.len() > SAMPLES_KEPT {
            self.samples.pop_front();
        }
        for mut event in history.events {
            event.sentence = shown(&event.sentence);
            self.events.insert(event.number, event);
        }
        while self.events.len() > EVENTS_KEPT {
            self.events.pop_first();
        }
    }

    /// The state in a word, and whether it is good.
    pub(super) fn state(&self) -> (&str, bool) {
        match (&self.silent, &self.status) {
            (Some(_), None) => ("asked", false),
            (Some(_), Some(_)) => ("silent", false),
            (None, Some(status)) if status.ready => ("ready", true),
            (None, Some(status)) if status.phase == "draining" => ("draining", false),
            (None, _) => ("NOT READY", false),
        }
    }

    /// What its gate does: `open`, or why a worker pauses.
    pub(super) fn gate(&self) -> String {
        let Some(status) = &self.status else {
            return String::new();
        };
        let paused: Vec<&Worker> = status.workers.iter().filter(|w| w.accept_paused).collect();
        match paused.first() {
            None => "open".to_owned(),
            Some(first) => format!(
                "{}/{} {}",
                paused.len(),
                status.workers.len(),
                first.accept_pause_reason
            ),
        }
    }

    /// The share of pushback of the worst worker, in percent.
    pub(super) fn pushback_percent(&self) -> u64 {
        let workers = self.status.iter().flat_map(|status| &status.workers);
        workers.map(|w| w.pushback_percent).max().unwrap_or(0)
    }

    /// The backends that its workers run on, each once.
    pub(super) fn backend(&self) -> String {
        let mut names: Vec<&str> = self
            .status
            .iter()
            .flat_map(|status| &status.workers)
            .map(|worker| worker.backend.as_str())
            .collect();
        names.sort_unstable();
        names.dedup();
        names.join("+")
    }
}

/// A text without what a terminal would take for a command, and not too long.
fn shown(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(TEXT_MAX)
        .collect()
}

fn bounded(mut status: Status) -> Status {
    for text in [
        &mut status.version,
        &mut status.reason,
        &mut status.phase,
        &mut status.settings.hash,
        &mut status.settings.source,
    ] {
        *text = shown(text);
    }
    for worker in &mut status.workers {
        for text in [
            &mut worker.backend,
            &mut worker.reason,
            &mut worker.accept_pause_reason,
        ] {
            *text = shown(text);
        }
    }
    for relay in &mut status.relays {
        relay.name = shown(&relay.name);
        relay.target = relay.target.as_deref().map(shown);
        relay.listen.iter_mut().for_each(|text| *text = shown(text));
    }
    status
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::process::history::{Columns, Kind};

    pub(in crate::top) fn answer(started_millis: u64, mark: u64, samples: &[Sample]) -> Answer {
        let mut columns = Columns::default();
        samples.iter().for_each(|sample| columns.push(sample));
        let mut answer = Answer::default();
        answer.status.ready = true;
        answer.status.phase = "serving".to_owned();
        answer.status.workers = vec![Worker {
            backend: "ring".to_owned(),
            ..Worker::default()
        }];
        answer.history = Document {
            started_millis,
            mark,
            samples: columns,
            events: vec![ShownEvent {
                number: mark,
                at_millis: 0,
                until_millis: 0,
                kind: Kind::Process,
                sentence: "ready: relays listen\u{1b}[2J".to_owned(),
                count: 1,
            }],
            ..Document::default()
        };
        answer
    }

    pub(in crate::top) fn sample(at_millis: u64) -> Sample {
        Sample {
            at_millis,
            ready: true,
            bytes_to_client: 1 << 20,
            connections_open: 12,
            batch_limit: 256,
            ..Sample::default()
        }
    }

    #[test]
    fn samples_are_kept_once_and_not_for_ever() {
        let now = Instant::now();
        let mut sidecar = Sidecar::new("a:1", now);
        let many: Vec<Sample> = (1..=SAMPLES_KEPT as u64).map(sample).collect();
        assert_eq!(sidecar.take(Ok(answer(1000, 5, &many)), now), 5);
        sidecar.take(Ok(answer(1000, 6, &many)), now);
        assert_eq!(sidecar.samples.len(), SAMPLES_KEPT);
        sidecar.take(Ok(answer(1000, 7, &[sample(5000)])), now);
        assert_eq!(sidecar.samples.len(), SAMPLES_KEPT);
        assert_eq!(sidecar.newest().unwrap().at_millis, 5000);
    }

    #[test]
    fn a_restart_has_other_events_and_the_same_picture() {
        let now = Instant::now();
        let mut sidecar = Sidecar::new("a:1", now);
        sidecar.take(Ok(answer(1000, 5, &[sample(1)])), now);
        sidecar.take(Err("refused".to_owned()), now);
        let later = now + Duration::from_secs(3);
        sidecar.take(Err("refused".to_owned()), later);
        assert_eq!(sidecar.silent_for(later), Some(Duration::from_secs(3)));
        assert_eq!((sidecar.state().0, sidecar.newest()), ("silent", None));
        sidecar.take(Ok(answer(9000, 1, &[sample(1)])), later);
        assert_eq!((sidecar.samples.len(), sidecar.events.len()), (2, 1));
        assert_eq!(sidecar.state(), ("ready", true));
    }

    #[test]
    fn nothing_that_is_shown_commands_a_terminal() {
        let now = Instant::now();
        let mut sidecar = Sidecar::new("a:1", now);
        let mut said = answer(1, 1, &[]);
        said.status.reason = "\u{1b}]0;title\u{7}".to_owned();
        sidecar.take(Ok(said), now);
        let reason = &sidecar.status.as_ref().unwrap().reason;
        let sentence = &sidecar.events[&1].sentence;
        assert!(!reason.contains(char::is_control) && !sentence.contains(char::is_control));
    }
}
