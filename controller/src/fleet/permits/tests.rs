//! Permits given and taken, and a world of sidecars, slow answers and a controller that is lost: the limit holds in all of it.

use proptest::prelude::*;
use ringside_api::sync::Leave;

use super::{Permits, PodId, Standing};

fn calm(may_hold: bool) -> Standing {
    Standing {
        is_ready: true,
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

/// A sidecar as it really is, beside what the controller believes.
#[derive(Clone, Copy, Debug, Default)]
struct Sidecar {
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
}

fn steps(pods: usize) -> impl Strategy<Value = Vec<Step>> {
    let one = 0..pods;
    let step = prop_oneof![
        3 => (one.clone(), any::<bool>()).prop_map(|(pod, pressed)| Step::Press(pod, pressed)),
        6 => one.clone().prop_map(Step::Report),
        6 => one.clone().prop_map(Step::Take),
        4 => one.clone().prop_map(Step::Decide),
        1 => one.prop_map(Step::Lose),
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
                    permits.set(pod as PodId, Standing {
                        is_ready: !sidecar.is_away,
                        is_reachable: true,
                        leave: match (sidecar.is_away, sidecar.is_pressed) {
                            (true, _) => Leave::Away,
                            (false, true) => Leave::Wants,
                            (false, false) => Leave::Stays,
                        },
                        may_hold,
                    });
                }
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
