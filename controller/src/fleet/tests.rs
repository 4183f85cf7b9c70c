//! The fleet as a whole: calls, settings, permits.

use std::time::Duration;

use ringside_api::resources::RelayPolicy;
use ringside_api::sync::{Answer, Leave, LeaveAnswer, Mark, Offer, PodIdentity, Report, State};
use serde_json::{Value, json};

use super::{Fleet, ObservedPod, SILENT_AFTER, Turn};

const HOLD: Duration = Duration::from_secs(30);
const SESSION: u64 = 7;

fn at(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn identity(number: u64) -> PodIdentity {
    PodIdentity {
        namespace: "shop".to_owned(),
        name: format!("web-{number}"),
        uid: format!("uid-{number}"),
    }
}

fn observed(number: u64) -> ObservedPod {
    ObservedPod {
        identity: identity(number),
        labels: [("app".to_owned(), "web".to_owned())].into(),
        is_injected: true,
        is_ready: true,
        ..ObservedPod::default()
    }
}

fn policy(spec: &Value) -> RelayPolicy {
    serde_json::from_value(json!({
        "apiVersion": "ringside.dev/v1alpha1", "kind": "RelayPolicy",
        "metadata": {"name": "web", "namespace": "shop", "generation": 1}, "spec": spec,
    }))
    .unwrap()
}

fn fleet(pods: u64, percent: u32) -> Fleet {
    let mut fleet = Fleet::new(SESSION, HOLD);
    let spec = json!({"podSelector": {}, "readiness": {"maxUnreadyPercent": percent}});
    fleet.change_policies(Some("shop"), |policies| policies.set(&policy(&spec)));
    for number in 0..pods {
        fleet.observe(observed(number));
    }
    fleet
}

/// A sidecar that takes its answers and calls again.
#[derive(Clone, Debug, Default)]
struct Caller {
    number: u64,
    runs: String,
    permit: bool,
    seen: Mark,
    leave: Leave,
}

impl Caller {
    fn new(number: u64) -> Self {
        Self {
            number,
            ..Self::default()
        }
    }

    fn call(&self, fleet: &mut Fleet, now: Duration) -> u64 {
        let report = Report {
            pod: identity(self.number),
            runs: self.runs.clone(),
            permit: self.permit,
            seen: self.seen,
            state: State {
                ready: self.leave != Leave::Away,
                leave: self.leave,
                ..State::default()
            },
            ..Report::default()
        };
        let id = fleet.find(&report.pod).unwrap();
        fleet.begin_call(id, report, now).unwrap()
    }

    fn take(&mut self, answer: &Answer) {
        self.seen = answer.mark;
        self.permit = answer.permit;
        if let Offer::Run(assigned) = &answer.offer {
            self.runs.clone_from(&assigned.hash);
        }
    }

    /// Calls, and takes answers until one is held.
    fn talk(&mut self, fleet: &mut Fleet, now: Duration) -> (u64, Vec<Answer>) {
        let mut answers = Vec::new();
        loop {
            let call = self.call(fleet, now);
            let id = fleet.find(&identity(self.number)).unwrap();
            match fleet.turn(id, call, now) {
                Turn::Answer(answer) => {
                    self.take(&answer);
                    answers.push(*answer);
                    assert!(answers.len() < 5, "it answers again and again: {answers:?}");
                }
                Turn::Wait(_) => return (call, answers),
                Turn::Over => panic!("the call of a pod that is there is over"),
            }
        }
    }
}

#[test]
fn settings_come_with_the_first_answer_and_a_change_comes_at_once() {
    let mut fleet = fleet(1, 0);
    let mut caller = Caller::new(0);
    let (call, answers) = caller.talk(&mut fleet, at(0));
    assert_eq!(answers.len(), 1);
    let spec =
        json!({"podSelector": {}, "batch": {"max": 64}, "readiness": {"maxUnreadyPercent": 0}});
    fleet.change_policies(Some("shop"), |policies| policies.set(&policy(&spec)));
    let Turn::Answer(answer) = fleet.turn(0, call, at(10)) else {
        panic!("a change is held back");
    };
    let Offer::Run(assigned) = answer.offer else {
        panic!("no settings");
    };
    assert_eq!(
        (
            assigned.policy.as_str(),
            assigned.layers.policy.batch.unwrap().max
        ),
        ("web", Some(64))
    );
}

#[test]
fn with_nothing_to_say_a_call_is_held_for_its_time() {
    let mut fleet = fleet(1, 0);
    let mut caller = Caller::new(0);
    let (call, _) = caller.talk(&mut fleet, at(0));
    assert_eq!(fleet.turn(0, call, at(0)), Turn::Wait(HOLD));
    assert!(matches!(fleet.turn(0, call, HOLD), Turn::Answer(_)));
    assert_eq!(fleet.turn(0, call, HOLD), Turn::Over, "it was answered");
}

#[test]
fn a_new_call_ends_the_one_before() {
    let mut fleet = fleet(1, 0);
    let mut caller = Caller::new(0);
    let (first, _) = caller.talk(&mut fleet, at(0));
    let (second, _) = caller.talk(&mut fleet, at(5));
    assert_eq!(fleet.turn(0, first, at(6)), Turn::Over);
    assert!(matches!(fleet.turn(0, second, at(6)), Turn::Wait(_)));
}

#[test]
fn settings_that_were_refused_are_not_sent_again_and_again() {
    let mut fleet = fleet(1, 0);
    let caller = Caller::new(0);
    let call = caller.call(&mut fleet, at(0));
    let Turn::Answer(answer) = fleet.turn(0, call, at(0)) else {
        panic!("nothing was offered");
    };
    let Offer::Run(assigned) = answer.offer else {
        panic!("no settings");
    };
    let report = Report {
        pod: identity(0),
        seen: answer.mark,
        refused: Some(ringside_api::sync::RefusedOffer {
            hash: assigned.hash,
            why: "batch.max is 3".to_owned(),
        }),
        state: State {
            ready: true,
            ..State::default()
        },
        ..Report::default()
    };
    let call = fleet.begin_call(0, report, at(1)).unwrap();
    assert!(matches!(fleet.turn(0, call, at(1)), Turn::Wait(_)));
    let summary = fleet.summary(&("shop".to_owned(), "web".to_owned()), at(1));
    assert_eq!((summary.programmed, summary.refusing.count), (0, 1));
    assert_eq!(summary.refusal, "batch.max is 3");
}

#[test]
fn a_pod_that_was_never_heard_of_is_unknown_and_takes_a_place() {
    let mut fleet = fleet(2, 50);
    let mut caller = Caller::new(0);
    let (_, answers) = caller.talk(&mut fleet, at(0));
    assert!(answers.iter().all(|answer| !answer.permit));
    let summary = fleet.summary(&("shop".to_owned(), "web".to_owned()), at(0));
    assert_eq!(
        (summary.matched, summary.ready, summary.unknown.count),
        (2, 1, 1)
    );
    // The other one comes: there is a place now, and one of both gets it.
    Caller::new(1).talk(&mut fleet, at(1));
    assert!(
        fleet
            .groups
            .values()
            .any(|permits| (0..2).any(|pod| permits.is_given(pod)))
    );
}

#[test]
fn silence_makes_a_pod_unknown_again() {
    let mut fleet = fleet(1, 100);
    let mut caller = Caller::new(0);
    let (call, _) = caller.talk(&mut fleet, at(0));
    fleet.expire(HOLD);
    assert_eq!(
        fleet
            .summary(&("shop".to_owned(), "web".to_owned()), HOLD)
            .ready,
        1,
        "its call is open"
    );
    fleet.end_call(0, call, at(1_000));
    fleet.expire(at(1_000) + SILENT_AFTER);
    assert_eq!(
        fleet
            .summary(&("shop".to_owned(), "web".to_owned()), HOLD)
            .ready,
        1
    );
    fleet.expire(at(1_001) + SILENT_AFTER);
    assert_eq!(
        fleet
            .summary(&("shop".to_owned(), "web".to_owned()), HOLD)
            .unknown
            .count,
        1
    );
}

#[test]
fn one_leaves_and_the_next_is_denied_and_let_go_when_the_first_is_back() {
    let mut fleet = fleet(2, 50);
    let mut callers = [Caller::new(0), Caller::new(1)];
    for caller in &mut callers {
        caller.talk(&mut fleet, at(0));
    }
    callers[0].talk(&mut fleet, at(1));
    // Whoever holds the permit, the second gets it.
    callers[1].leave = Leave::Wants;
    let call = callers[1].call(&mut fleet, at(100));
    callers[0].talk(&mut fleet, at(101));
    let Turn::Answer(answer) = fleet.turn(1, call, at(102)) else {
        panic!("it is not answered");
    };
    assert!(
        matches!(answer.leave, Some(LeaveAnswer::Granted { .. })),
        "{answer:?}"
    );
    callers[1].take(&answer);
    callers[1].leave = Leave::Away;
    let (away, answers) = callers[1].talk(&mut fleet, at(103));
    assert!(answers.is_empty(), "the grant is answered again and again");
    // It is renewed in time.
    assert!(
        matches!(fleet.turn(1, away, at(6_200)), Turn::Answer(answer) if matches!(answer.leave, Some(LeaveAnswer::Granted { .. })))
    );
    callers[0].leave = Leave::Wants;
    let call = callers[0].call(&mut fleet, at(7_000));
    let Turn::Answer(denied) = fleet.turn(0, call, at(7_000)) else {
        panic!("it is kept waiting, although nobody can give a permit back");
    };
    assert!(
        matches!(&denied.leave, Some(LeaveAnswer::Denied(why)) if why.contains("maxUnreadyPercent")),
        "{denied:?}"
    );
    callers[0].take(&denied);
    let (waiting, answers) = callers[0].talk(&mut fleet, at(7_001));
    assert!(answers.is_empty(), "a denial is answered again and again");
    callers[1].leave = Leave::Stays;
    callers[1].talk(&mut fleet, at(8_000));
    assert!(
        matches!(fleet.turn(0, waiting, at(8_001)), Turn::Answer(answer) if matches!(answer.leave, Some(LeaveAnswer::Granted { .. })))
    );
}

#[test]
fn a_pod_that_ends_frees_what_it_held() {
    let mut fleet = fleet(3, 10);
    for number in 0..3 {
        Caller::new(number).talk(&mut fleet, at(0));
    }
    let holder = |fleet: &Fleet| {
        let permits = fleet.groups.values().next().unwrap();
        (0..3).find(|pod| permits.is_given(*pod))
    };
    let first = holder(&fleet).unwrap();
    fleet.forget(&identity(first).uid);
    assert_ne!(holder(&fleet).unwrap(), first);
    assert_eq!(fleet.turn(first, 1, at(1)), Turn::Over);
}

#[test]
fn a_new_leader_gives_no_permit_before_it_knows_who_holds_one() {
    let mut fleet = fleet(2, 50);
    let mut callers = [Caller::new(0), Caller::new(1)];
    for caller in &mut callers {
        caller.talk(&mut fleet, at(0));
    }
    callers[0].talk(&mut fleet, at(1));
    let holder = callers.iter().position(|caller| caller.permit).unwrap();
    fleet.lead(SESSION + 1, Duration::ZERO);
    let other = 1 - holder;
    callers[other].leave = Leave::Wants;
    let (call, answers) = callers[other].talk(&mut fleet, at(100));
    assert!(
        matches!(answers.last().unwrap().leave, Some(LeaveAnswer::Denied(_))),
        "{answers:?}"
    );
    // The holder says that it holds one, is asked for it, and gives it.
    callers[holder].talk(&mut fleet, at(200));
    assert!(!callers[holder].permit);
    let Turn::Answer(answer) = fleet.turn(other as u64, call, at(201)) else {
        panic!("it is not told");
    };
    assert!(
        matches!(answer.leave, Some(LeaveAnswer::Granted { .. })),
        "{answer:?}"
    );
}
