//! Permits given and taken, and a world of sidecars, slow answers and a controller that is lost: the limit holds in all of it.

use proptest::prelude::*;
use ringside_api::sync::Leave;

use super::{Permits, PodId, Standing};

fn calm(may_hold: bool) -> Standing {
    Standing {
        is_ready: true,
        is_unknown: false,
        is_reachable: true,
        leave: Leave::Stays,
        may_hold,
    }
}

fn wants(may_hold: bool) -> Standing {
    Standing {
        leave: Leave::Wants,
        ..calm(may_hold)
    }
}

fn group(percent: u32, pods: PodId) -> Permits {
    let mut permits = Permits::default();
    permits.set_max_unready_percent(percent);
    for pod in 0..pods {
        permits.set(pod, calm(false));
    }
    permits
}

#[test]
fn as_many_are_named_in_advance_as_the_limit_allows() {
    for (percent, pods, named) in [
        (50, 4, 2),
        (50, 5, 3),
        (10, 5, 1),
        (0, 5, 0),
        (100, 3, 3),
        (50, 1, 1),
    ] {
        let mut permits = group(percent, pods);
        assert_eq!(permits.settle().len(), named, "{percent} % of {pods}");
        assert!(permits.settle().is_empty());
    }
}

#[test]
fn a_permit_moves_to_who_needs_it_only_when_its_holder_has_said_so() {
    let mut permits = group(50, 2);
    assert_eq!(permits.settle(), [0]);
    permits.set(0, calm(true));
    permits.set(1, wants(false));
    assert_eq!(permits.settle(), [0], "the holder is asked");
    assert!(!permits.is_given(0) && !permits.is_given(1) && permits.is_taking_back());
    // It has not acknowledged: nothing more happens.
    assert!(permits.settle().is_empty());
    permits.set(0, calm(false));
    assert_eq!(permits.settle(), [1]);
    assert!(permits.is_given(1));
}

#[test]
fn pods_that_are_not_ready_take_places() {
    let mut permits = group(50, 4);
    permits.set(3, Standing::default());
    permits.set(2, Standing::default());
    assert!(permits.settle().is_empty(), "the limit is used up");
    permits.set(0, wants(false));
    permits.settle();
    assert!(!permits.is_given(0));
    permits.set(3, calm(false));
    assert_eq!(permits.settle(), [0]);
}

#[test]
fn a_holder_out_of_reach_keeps_its_permit_until_its_pod_is_gone() {
    let mut permits = group(50, 2);
    permits.settle();
    let unreachable = Standing {
        is_reachable: false,
        ..calm(true)
    };
    permits.set(0, unreachable);
    permits.set(1, wants(false));
    assert!(permits.settle().is_empty());
    assert!(!permits.is_given(1));
    permits.remove(0);
    assert_eq!(permits.settle(), [1]);
}

fn away(may_hold: bool) -> Standing {
    Standing {
        is_ready: false,
        leave: Leave::Away,
        ..calm(may_hold)
    }
}

#[test]
fn where_the_limit_falls_only_what_is_too_much_comes_back() {
    let mut permits = group(40, 10);
    permits.settle();
    for pod in 0..4 {
        permits.set(pod, away(true));
    }
    permits.set_max_unready_percent(20);
    let told = permits.settle();
    assert_eq!(told.len(), 2, "{told:?}");
    // They say that they are without, and are not seen to be ready at once: nobody else has to come back for that.
    for &pod in &told {
        let returns = Standing {
            is_ready: false,
            ..wants(false)
        };
        permits.set(pod, returns);
        assert!(permits.settle().is_empty());
    }
    for &pod in &told {
        permits.set(pod, wants(false));
        assert!(permits.settle().is_empty());
    }
    assert_eq!(permits.taken(), 2);
}

#[test]
fn who_is_called_back_and_stays_unready_has_another_called_back_in_its_place() {
    let mut permits = group(50, 4);
    assert_eq!(permits.settle(), [0, 1]);
    permits.set(0, away(true));
    permits.set(1, away(true));
    // Another pod becomes unready by itself: one comes back.
    let unready = Standing {
        is_ready: false,
        ..calm(false)
    };
    permits.set(3, unready);
    assert_eq!(permits.settle(), [1]);
    // Its sidecar takes connections again; its application is not ready.
    permits.set(1, unready);
    assert!(permits.settle().is_empty(), "it has its time");
    assert_eq!(permits.returning().collect::<Vec<_>>(), [1]);
    permits.stays_unready(1);
    assert_eq!(permits.settle(), [0]);
    assert!(!permits.is_given(0) && permits.returning().eq([0]));
}

#[test]
fn a_permit_that_is_out_of_reach_is_waited_for_by_nobody() {
    let mut permits = group(50, 4);
    assert_eq!(permits.settle(), [0, 1]);
    permits.set(0, calm(true));
    permits.set(1, calm(true));
    permits.set(2, wants(false));
    assert_eq!(permits.settle(), [1]);
    // It has died before it could say that it knows: the other one's is asked for.
    let silent = Standing {
        is_ready: false,
        is_reachable: false,
        ..calm(true)
    };
    permits.set(1, silent);
    assert_eq!(permits.settle(), [0]);
    permits.set(0, calm(false));
    assert_eq!(permits.settle(), [2]);
}

#[test]
fn a_limit_of_nobody_calls_everybody_back() {
    let mut permits = group(50, 1);
    permits.settle();
    permits.set(0, away(true));
    permits.set_max_unready_percent(0);
    assert_eq!(permits.settle(), [0]);
    assert!(!permits.is_given(0));
}

#[test]
fn under_a_new_leader_those_stay_away_that_are() {
    let mut permits = Permits::default();
    permits.set_max_unready_percent(20);
    let silent = Standing {
        is_unknown: true,
        ..Standing::default()
    };
    for pod in 0..10 {
        permits.set(pod, silent);
    }
    permits.bring(0, away(true), true);
    permits.bring(1, calm(true), true);
    assert!(permits.settle().is_empty(), "unknown pods are no reason");
    permits.set(2, wants(false));
    assert_eq!(permits.settle(), [1], "the idle one is asked for it");
    permits.set(1, calm(false));
    assert!(permits.settle().is_empty(), "seven are still unknown");
    for pod in 3..10 {
        permits.set(pod, calm(false));
    }
    assert_eq!(permits.settle(), [2]);
    assert!(permits.is_given(0));
}

/// A sidecar as it really is, beside what the controller believes.
#[derive(Clone, Copy, Debug, Default)]
struct Sidecar {
    /// What the API server knows of it.
    is_seen_ready: bool,
    permit: bool,
    is_away: bool,
    is_pressed: bool,
    /// Answers that are on their way to it, oldest first: whether they give a permit.
    answers: [Option<bool>; 2],
}

#[derive(Clone, Debug)]
enum Step {
    Press(usize, bool),
    /// A report reaches the controller.
    Report(usize),
    /// The oldest answer reaches the sidecar.
    Take(usize),
    /// The sidecar decides by its permit, as when no answer comes.
    Decide(usize),
    /// The call is lost, and with it the answers that are on their way.
    Lose(usize),
    /// Another leads, who knows nothing.
    Succeed,
    /// The kubelet's last probe is known.
    Probe(usize),
}

fn steps(pods: usize) -> impl Strategy<Value = Vec<Step>> {
    let one = 0..pods;
    let step = prop_oneof![
        3 => (one.clone(), any::<bool>()).prop_map(|(pod, pressed)| Step::Press(pod, pressed)),
        6 => one.clone().prop_map(Step::Report),
        6 => one.clone().prop_map(Step::Take),
        4 => one.clone().prop_map(Step::Decide),
        1 => one.clone().prop_map(Step::Lose),
        1 => Just(Step::Succeed),
        3 => one.prop_map(Step::Probe),
    ];
    prop::collection::vec(step, 0..300)
}

proptest! {
    /// With a limit that does not change, no more sidecars are ever away than it allows, whatever is lost or late.
    #[test]
    fn never_more_than_the_limit_are_away((pods, steps) in (1..12_usize).prop_flat_map(|pods| (Just(pods), steps(pods))), percent in 0..=100_u32) {
        let mut permits = Permits::default();
        permits.set_max_unready_percent(percent);
        let mut sidecars = vec![Sidecar::default(); pods];
        for pod in 0..pods {
            permits.set(pod as PodId, Standing::default());
        }
        for step in steps {
            match step {
                Step::Press(pod, pressed) => sidecars[pod].is_pressed = pressed,
                Step::Report(pod) => {
                    let sidecar = sidecars[pod];
                    // What an answer on its way gives may be held by the time the next report is made.
                    let may_hold = sidecar.permit || sidecar.answers.iter().flatten().any(|gives| *gives);
                    let is_first = !permits.members[&(pod as PodId)].standing.is_reachable && !permits.members[&(pod as PodId)].holds();
                    let standing = Standing {
                        is_ready: !sidecar.is_away && sidecar.is_seen_ready,
                        is_unknown: false,
                        is_reachable: true,
                        leave: match (sidecar.is_away, sidecar.is_pressed) {
                            (true, _) => Leave::Away,
                            (false, true) => Leave::Wants,
                            (false, false) => Leave::Stays,
                        },
                        may_hold,
                    };
                    if is_first && sidecar.permit {
                        permits.bring(pod as PodId, standing, true);
                    } else {
                        permits.set(pod as PodId, standing);
                    }
                }
                Step::Succeed => {
                    for (pod, sidecar) in sidecars.iter_mut().enumerate() {
                        // Their connections led to the other one.
                        sidecar.answers = Default::default();
                        let is_unknown = sidecar.is_seen_ready;
                        permits.bring(pod as PodId, Standing { is_unknown, ..Standing::default() }, false);
                    }
                }
                Step::Probe(pod) => sidecars[pod].is_seen_ready = !sidecars[pod].is_away,
                Step::Take(pod) => {
                    let sidecar = &mut sidecars[pod];
                    if let Some(gives) = sidecar.answers[0].take() {
                        sidecar.answers.swap(0, 1);
                        sidecar.permit = gives;
                        sidecar.is_away &= gives;
                    }
                }
                Step::Decide(pod) => {
                    let sidecar = &mut sidecars[pod];
                    sidecar.is_away = sidecar.is_pressed && sidecar.permit;
                }
                Step::Lose(pod) => {
                    let answers = std::mem::take(&mut sidecars[pod].answers);
                    let member = permits.members[&(pod as PodId)];
                    let may_hold = member.standing.may_hold || answers.iter().flatten().any(|gives| *gives);
                    permits.set(pod as PodId, Standing { is_reachable: false, may_hold, ..member.standing });
                }
            }
            for pod in permits.settle() {
                // An answer that finds two on their way replaces the newer one: the sidecar has dropped that call.
                let given = permits.is_given(pod);
                let sidecar = &mut sidecars[pod as usize];
                let place = usize::from(sidecar.answers[0].is_some());
                sidecar.answers[place] = Some(given);
                let member = permits.members[&pod];
                let may_hold = member.standing.may_hold || given;
                permits.set(pod, Standing { may_hold, ..member.standing });
            }
            let away = sidecars.iter().filter(|sidecar| sidecar.is_away).count();
            prop_assert!(away <= permits.limit(), "{away} are away of {}", permits.limit());
            prop_assert_eq!(permits.counted, permits.members.values().filter(|member| member.counts()).count());
        }
    }

    /// Where all answer, everybody who wants to leave is away up to the limit, and permits are not lost.
    #[test]
    fn what_the_limit_allows_is_used(pods in 1..30_u64, percent in 0..=100_u32, pressed in 0..30_u64) {
        let mut permits = group(percent, pods);
        let mut held = vec![false; pods as usize];
        for round in 0..4 {
            for pod in 0..pods {
                let wants_to = round > 0 && pod >= pods.saturating_sub(pressed);
                let held = held[pod as usize];
                permits.set(pod, if wants_to { wants(held) } else { calm(held) });
            }
            for pod in permits.settle() {
                held[pod as usize] = permits.is_given(pod);
            }
        }
        let wanting = (0..pods).filter(|&pod| pod >= pods.saturating_sub(pressed));
        let served = wanting.filter(|&pod| held[pod as usize]).count();
        prop_assert_eq!(served, permits.limit().min(pressed.min(pods) as usize));
        prop_assert_eq!(held.iter().filter(|held| **held).count(), permits.limit());
    }
}
