//! An honest port: while a relay's target refuses connections, the relay does not listen, so that the kernel refuses in its
//! place, and whoever probes the relay's port sees what the target's would show.
//!
//! A thread of its own asks the targets, all together and again after a jittered interval, whatever workers do. It never
//! makes a connection that the application sees (`backend::handshake`), decides nothing (`reach`), and never touches a
//! connection. Readiness does not follow from it: `/readyz` speaks of the relay, and a sidecar that waited for the
//! application before it started would wait for ever where the application is started after it.

pub mod reach;

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ringside_api::settings::{TargetCheck, TargetCheckMode};
use socket2::SockAddr;

use crate::backend::handshake::{self, Answer};
use crate::worker::shared::Relay;
use crate::worker::team::Team;
use crate::worker::team::listening::Outcome;
use reach::{Reach, ReachLimits, Verdict};

/// The longest that a check waits for its answer, where the interval is longer.
const PATIENCE: Duration = Duration::from_secs(1);

/// What is known of one relay's target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// The verdict.
    pub reach: Reach,
    /// How checks were answered, in the order of [`Answer::ALL`].
    pub answers: [u64; Answer::ALL.len()],
    /// Connections that had ended with a refusal when it was last asked.
    pub connections_refused: u64,
}

impl Checked {
    /// What was heard of a target of one address: where the check heard nothing, what connections heard since the last one. Refusals
    /// that are limited to one a second reach whoever asks most.
    pub fn heard(&mut self, answer: Answer, connections_refused: u64) -> Answer {
        let before = std::mem::replace(&mut self.connections_refused, connections_refused);
        if answer == Answer::TimedOut && connections_refused > before {
            return Answer::Refused;
        }
        answer
    }

    /// Takes an answer; returns the new verdict where it changes.
    pub fn told(&mut self, answer: Answer, check: &TargetCheck) -> Option<Verdict> {
        self.answers[answer.index()] += 1;
        let limits = ReachLimits {
            failures: check.failures,
            successes: check.successes,
        };
        self.reach.told(answer, limits)
    }
}

/// Asks these targets once, before their relays listen: a port must not be open for even one probe before the
/// application behind it is. Waits for a second at most, and longer only for targets of many addresses.
pub fn first(targets: &[Vec<SockAddr>], check: &TargetCheck) -> Vec<Checked> {
    if check.mode == TargetCheckMode::Off {
        return vec![Checked::default(); targets.len()];
    }
    let answers = handshake::ask(targets, patience(check)).into_iter();
    let checked = answers.map(|answer| {
        let mut checked = Checked::default();
        if let Some(answer) = answer {
            checked.told(answer, check);
        }
        checked
    });
    checked.collect()
}

fn patience(check: &TargetCheck) -> Duration {
    Duration::from(check.interval).min(PATIENCE)
}

#[derive(Default)]
struct Waiting {
    is_due: bool,
    ended: bool,
}

struct Inner {
    team: Arc<Team>,
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

/// Checks the targets of a team's relays until it is dropped.
pub struct Checker(Arc<Inner>);

impl std::fmt::Debug for Checker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Checker").finish_non_exhaustive()
    }
}

impl Checker {
    /// Begins to check.
    ///
    /// # Errors
    /// Its thread cannot be started.
    pub fn start(team: Arc<Team>) -> io::Result<Self> {
        let inner = Arc::new(Inner {
            team,
            waiting: Mutex::default(),
            changed: Condvar::new(),
        });
        let of_thread = inner.clone();
        std::thread::Builder::new()
            .name("target-check".to_owned())
            .spawn(move || of_thread.run())?;
        Ok(Checker(inner))
    }

    /// Checks at once, because relays or settings changed.
    pub fn check_now(&self) {
        self.0.lock().is_due = true;
        self.0.changed.notify_all();
    }
}

impl Drop for Checker {
    fn drop(&mut self) {
        // Its thread ends after the answers that it waits for, and is not waited for.
        self.0.lock().ended = true;
        self.0.changed.notify_all();
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        let mut random = fastrand::Rng::new();
        let mut cannot_open = Vec::new();
        loop {
            let interval = Duration::from(self.team.settings().target_check.interval);
            let jittered = interval - interval.mul_f64(random.f64() / 4.0);
            let waiting = self.lock();
            let (mut waiting, _) = self
                .changed
                .wait_timeout_while(waiting, jittered, |w| !w.is_due && !w.ended)
                .unwrap_or_else(PoisonError::into_inner);
            if waiting.ended {
                return;
            }
            waiting.is_due = false;
            drop(waiting);
            self.check_all(&mut cannot_open);
        }
    }

    /// `cannot_open` are the relays of which the log told that they cannot listen again.
    fn check_all(&self, cannot_open: &mut Vec<String>) {
        let check = self.team.settings().target_check;
        let (relays, addresses): (Vec<Arc<Relay>>, Vec<Vec<SockAddr>>) =
            self.team.targets().into_iter().unzip();
        let answers = match check.mode {
            TargetCheckMode::Off => vec![None; relays.len()],
            TargetCheckMode::Close | TargetCheckMode::Report => {
                handshake::ask(&addresses, patience(&check))
            }
        };
        cannot_open.retain(|name| relays.iter().any(|relay| relay.name == *name));
        for ((relay, asked), answer) in relays.iter().zip(&addresses).zip(answers) {
            if let Some(outcome) = self.team.hear(relay, asked, answer) {
                tell(relay, outcome, cannot_open);
            }
        }
    }
}

/// One line for each change. What a relay leads to is no `target`, which is a field of every line.
fn tell(relay: &Relay, outcome: Outcome, cannot_open: &mut Vec<String>) {
    let (name, to) = (&relay.name, relay.target.load());
    let Outcome { changed, listens } = outcome;
    if !matches!(listens, Some(Err(_))) {
        cannot_open.retain(|known| known != name);
    }
    match (listens, changed) {
        (Some(Ok(false)), _) => tracing::warn!(
            relay = name,
            %to,
            "closed: the target refuses connections, and so does this port until the target takes them; open connections go on"
        ),
        (Some(Ok(true)), _) => {
            tracing::info!(relay = name, %to, "listening again");
        }
        (Some(Err(error)), _) => {
            if !cannot_open.contains(name) {
                cannot_open.push(name.clone());
                tracing::error!(relay = name, %error, "the relay cannot listen again: it is tried at each check");
            }
        }
        (None, Some(Verdict::Refusing)) => {
            tracing::warn!(relay = name, %to, "the target refuses connections");
        }
        (None, Some(_)) => {
            tracing::info!(relay = name, %to, "the target takes connections");
        }
        (None, None) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_that_were_refused_speak_for_a_check_that_heard_nothing() {
        use Answer::{Accepted, Refused, TimedOut};
        let mut checked = Checked::default();
        let heard = [
            (TimedOut, 0),
            (TimedOut, 2),
            (TimedOut, 2),
            (Accepted, 3),
            (TimedOut, 3),
        ]
        .map(|(answer, refused)| checked.heard(answer, refused));
        assert_eq!(heard, [TimedOut, Refused, TimedOut, Accepted, TimedOut]);
    }
}
