//! Is this process alive, and is it ready? Judged from what workers publish, at any moment and without asking them.
//!
//! Readiness follows pressure and the phase of the process. Liveness never follows load: it fails only when a loop has
//! stopped turning, because a restart helps nothing else.

use std::time::Duration;

use ringside_api::sync::Leave;

use crate::pressure::leave::{By, Stand, Why};
use crate::pressure::readiness::{Pressed, Verdict, overall};
use crate::time::Time;
use crate::worker::stats::WorkerStats;

/// A loop that has not turned for this long has stopped. It turns at least once a second, also under pushback.
pub const LOOP_STOPPED_AFTER: Duration = Duration::from_secs(10);

/// Where a process is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Names are looked up and listeners opened.
    Starting,
    /// It relays.
    Serving,
    /// It ends: no new connections after a notice, those that are open go on.
    Draining,
}

/// The part of a worker's figures that judgements rest on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WorkerView {
    /// When its loop last turned; the epoch before the first turn.
    pub last_turn: Time,
    /// Its verdict on itself.
    pub verdict: Verdict,
}

impl WorkerView {
    /// What a worker publishes now.
    pub fn of(stats: &WorkerStats) -> Self {
        let since = stats.sustained_since.get();
        WorkerView {
            last_turn: Time::from_nanos(stats.last_turn_nanos.get()),
            verdict: Verdict {
                share_percent: stats.pushback_percent.get().min(100) as u8,
                sustained_since: since.checked_sub(1).map(Time::from_nanos),
                ready: stats.unready.get() == 0,
            },
        }
    }
}

/// A yes, or a no with its sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judgement {
    /// The answer.
    pub ready: bool,
    /// Why it is no; `ready` where it is yes and nothing is to be said.
    pub reason: String,
    /// The kind of reason, one of a few words.
    pub cause: &'static str,
    /// Where it stands on leaving for pressure.
    pub leave: Leave,
}

impl Judgement {
    fn new(ready: bool, cause: &'static str, reason: String) -> Self {
        Judgement {
            ready,
            reason,
            cause,
            leave: Leave::Stays,
        }
    }
}

/// Whether pressure alone is a reason to be unready; then nobody is asked who would not leave.
pub fn wants_to_leave(phase: Phase, workers: &[WorkerView], listening: (usize, usize)) -> bool {
    let serves = phase == Phase::Serving && (listening.0 > 0 || listening.1 == 0);
    serves && !overall(workers.iter().map(|worker| worker.verdict)).ready
}

/// Whether new connections should come here. `listening` says how many relays listen and how many should; `stand`, where the
/// pod stands on leaving by [`wants_to_leave`].
pub fn readiness(
    phase: Phase,
    workers: &[WorkerView],
    listening: (usize, usize),
    stand: &Stand,
    now: Time,
) -> Judgement {
    let no = |cause, reason: &str| Judgement::new(false, cause, reason.to_owned());
    match phase {
        Phase::Starting => return no("starting", "starting"),
        Phase::Draining => return no("draining", "draining"),
        Phase::Serving => {}
    }
    if listening.0 == 0 && listening.1 > 0 {
        return no("not listening", "no relay can listen; /statusz says why");
    }
    let overall = overall(workers.iter().map(|worker| worker.verdict));
    let Some(pressed) = overall.pressed else {
        return Judgement::new(true, "ready", "ready".to_owned());
    };
    let pressed = told(&pressed, now);
    match stand {
        // Pressure is only reported.
        Stand::Stays => Judgement::new(true, "reported", format!("ready; {pressed}")),
        Stand::Wants(why) => Judgement {
            leave: Leave::Wants,
            ..Judgement::new(true, "stays", format!("ready; {pressed}; {}", stays(why)))
        },
        Stand::Away(by) => Judgement {
            leave: Leave::Away,
            ..Judgement::new(
                false,
                "away",
                match by {
                    By::Own => pressed,
                    By::Grant => format!("{pressed}; the controller lets it leave"),
                    By::Permit => format!(
                        "{pressed}; it leaves by its permit, as the controller does not answer"
                    ),
                },
            )
        },
    }
}

fn told(pressed: &Pressed, now: Time) -> String {
    let (worker, percent) = (pressed.worker, pressed.share_percent);
    let seconds = now.saturating_since(pressed.since).as_secs_f64();
    if percent == 0 {
        return format!(
            "worker {worker} recovers from sustained pushback that began {seconds:.1} s ago; it has to stay quiet for readiness.recoverAfter"
        );
    }
    format!(
        "worker {worker} under sustained pushback for {seconds:.1} s ({percent} % of submissions)"
    )
}

fn stays(why: &Why) -> String {
    match why {
        Why::Asks => "it would leave, and asks the controller".to_owned(),
        Why::Denied(why) => format!("it would leave, and the controller denies it: {why}"),
        Why::NoPermit => {
            "it would leave, but the controller does not answer and has given it no permit to go without".to_owned()
        }
    }
}

/// Whether every loop still turns.
pub fn liveness(workers: impl IntoIterator<Item = WorkerView>, now: Time) -> Judgement {
    for (index, worker) in workers.into_iter().enumerate() {
        let still = now.saturating_since(worker.last_turn);
        if still > LOOP_STOPPED_AFTER {
            let reason = format!(
                "the loop of worker {index} has not turned for {:.0} s",
                still.as_secs_f64()
            );
            return Judgement::new(false, "stopped", reason);
        }
    }
    Judgement::new(true, "alive", "alive".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pressure::leave::{Leaving, Rule};

    fn at(seconds: f64) -> Time {
        Time::ZERO.saturating_add(Duration::from_secs_f64(seconds))
    }

    fn pressed(percent: u8, since: f64, ready: bool) -> WorkerView {
        WorkerView {
            verdict: Verdict {
                share_percent: percent,
                sustained_since: Some(at(since)),
                ready,
            },
            ..calm()
        }
    }

    fn calm() -> WorkerView {
        WorkerView {
            verdict: Verdict {
                ready: true,
                ..Verdict::default()
            },
            ..WorkerView::default()
        }
    }

    /// Judges a process without a controller.
    fn readiness(
        phase: Phase,
        workers: &[WorkerView],
        listening: (usize, usize),
        now: Time,
    ) -> Judgement {
        let wants = wants_to_leave(phase, workers, listening);
        let stand = Leaving::new(Rule::Own, false).judge(wants, now);
        super::readiness(phase, workers, listening, &stand, now)
    }

    #[test]
    fn one_pressed_worker_is_enough_and_is_named() {
        let judged = readiness(
            Phase::Serving,
            &[calm(), pressed(61, 1.8, false)],
            (1, 1),
            at(5.0),
        );
        assert!(!judged.ready);
        assert_eq!(
            judged.reason,
            "worker 1 under sustained pushback for 3.2 s (61 % of submissions)"
        );
    }

    #[test]
    fn where_pushback_is_only_reported_it_is_told_and_changes_nothing() {
        let judged = readiness(Phase::Serving, &[pressed(61, 0.0, true)], (1, 1), at(2.0));
        assert!(judged.ready);
        assert!(judged.reason.starts_with("ready; worker 0"), "{judged:?}");
    }

    #[test]
    fn a_process_that_starts_ends_or_listens_nowhere_is_unready() {
        let judge = |phase, listening| readiness(phase, &[calm()], listening, at(1.0));
        assert_eq!(judge(Phase::Starting, (0, 1)).reason, "starting");
        assert_eq!(judge(Phase::Draining, (1, 1)).reason, "draining");
        assert!(!judge(Phase::Serving, (0, 1)).ready);
        assert!(judge(Phase::Serving, (1, 2)).ready);
        assert_eq!(judge(Phase::Serving, (1, 1)).reason, "ready");
    }

    #[test]
    fn one_that_may_not_leave_stays_and_says_why() {
        let workers = [pressed(61, 0.0, false)];
        let judge = |stand| super::readiness(Phase::Serving, &workers, (1, 1), &stand, at(2.0));
        let denied = judge(Stand::Wants(Why::Denied("3 of 6 are away".into())));
        assert!(denied.ready && denied.leave == Leave::Wants);
        assert!(
            denied
                .reason
                .ends_with("the controller denies it: 3 of 6 are away"),
            "{denied:?}"
        );
        let away = judge(Stand::Away(By::Permit));
        assert!(!away.ready && away.leave == Leave::Away);
        // Who ends, or serves nobody, has nothing to ask.
        for (phase, listening) in [
            (Phase::Starting, (0, 1)),
            (Phase::Draining, (1, 1)),
            (Phase::Serving, (0, 1)),
        ] {
            assert!(!wants_to_leave(phase, &workers, listening));
        }
        assert!(wants_to_leave(Phase::Serving, &workers, (1, 1)));
    }

    #[test]
    fn liveness_follows_the_loop_and_never_the_load() {
        let turned = |last_turn| WorkerView {
            last_turn,
            ..pressed(100, 0.0, false)
        };
        assert!(liveness([turned(at(50.0))], at(60.0)).ready);
        let stopped = liveness([turned(at(60.0)), turned(at(40.0))], at(60.0));
        assert_eq!(
            stopped.reason,
            "the loop of worker 1 has not turned for 20 s"
        );
        assert!(!stopped.ready);
    }

    #[test]
    fn what_a_worker_publishes_is_read_back() {
        let stats = WorkerStats::default();
        assert_eq!(WorkerView::of(&stats), calm());
        stats.sustained_since.set(1 + at(3.0).as_nanos());
        stats.pushback_percent.set(70);
        stats.unready.set(1);
        assert_eq!(
            WorkerView::of(&stats).verdict,
            pressed(70, 3.0, false).verdict
        );
    }
}
