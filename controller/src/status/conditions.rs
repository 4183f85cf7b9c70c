//! A policy's status, from its verdict and its pods counted. Pure; it owns the conditions' reasons and sentences.
//!
//! `Accepted`: its settings are allowed. `Programmed`: every relay that obeys it runs them. `Ready`: no more of its pods are unready
//! than it allows. `Degraded`: something is wrong with one of them, and what.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use ringside_api::resources::{PodCounts, PolicyStatus, WorstPod};

use crate::fleet::Summary;
use crate::policies::Verdict;

/// One condition without its times.
struct Said {
    kind: &'static str,
    is_true: bool,
    reason: &'static str,
    message: String,
}

/// The status of a policy. A condition of `before` that says the same keeps its time. `since` turns the fleet's clock into a time
/// of day.
pub fn status(
    verdict: &Verdict,
    summary: &Summary,
    before: Option<&PolicyStatus>,
    now: Timestamp,
    since: impl Fn(std::time::Duration) -> Timestamp,
) -> PolicyStatus {
    let said = all(verdict, summary);
    // The first that a reader should act on.
    let reason = said
        .iter()
        .find(|said| said.is_true == (said.kind == "Degraded"))
        .map_or("Programmed", |said| said.reason);
    let conditions = said
        .iter()
        .map(|said| condition(said, verdict.generation, before, now))
        .collect();
    let worst = summary.worst.iter().map(|worst| WorstPod {
        name: worst.name.clone(),
        pushback_percent: worst.pushback_percent,
        since: worst.since.map(|at| Time(since(at))),
    });
    PolicyStatus {
        observed_generation: Some(verdict.generation),
        pods: Some(PodCounts {
            matched: summary.matched,
            programmed: summary.programmed,
            ready: summary.ready,
            summary: format!("{}/{}", summary.ready, summary.matched),
        }),
        backends: summary.backends.clone(),
        worst_pods: worst.collect(),
        reason: Some(reason.to_owned()),
        conditions,
    }
}

fn all(verdict: &Verdict, summary: &Summary) -> [Said; 4] {
    [
        accepted(verdict, summary),
        programmed(verdict, summary),
        ready(summary),
        degraded(summary),
    ]
}

/// Each condition's name, and whether it is true of what is known at this moment; for metrics.
pub fn holding(verdict: &Verdict, summary: &Summary) -> [(&'static str, bool); 4] {
    all(verdict, summary).map(|said| (said.kind, said.is_true))
}

/// Conditions that depend on what sidecars say.
const OF_PODS: [&str; 3] = ["Programmed", "Ready", "Degraded"];

/// Lets a status say of pods what it said `before`, as far as it did: for the time in which they have not had a chance to call. Whether they
/// run settings that are new since then is not known before they have.
pub fn keep_pods(status: &mut PolicyStatus, before: &PolicyStatus) {
    if before.pods.is_none() {
        return;
    }
    let is_same = before.observed_generation == status.observed_generation;
    for condition in &mut status.conditions {
        let kind = condition.type_.as_str();
        let keeps = OF_PODS.contains(&kind) && (is_same || kind != "Programmed");
        let known = before.conditions.iter().find(|known| known.type_ == kind);
        if let Some(known) = known.filter(|_| keeps) {
            let generation = condition.observed_generation;
            *condition = known.clone();
            condition.observed_generation = generation;
        }
    }
    if is_same {
        status.reason.clone_from(&before.reason);
    }
    status.pods.clone_from(&before.pods);
    status.backends.clone_from(&before.backends);
    status.worst_pods.clone_from(&before.worst_pods);
}

fn condition(
    said: &Said,
    generation: i64,
    before: Option<&PolicyStatus>,
    now: Timestamp,
) -> Condition {
    let status = if said.is_true { "True" } else { "False" };
    let before = before.and_then(|before| {
        before
            .conditions
            .iter()
            .find(|known| known.type_ == said.kind)
    });
    let unchanged = before.filter(|known| known.status == status);
    Condition {
        type_: said.kind.to_owned(),
        status: status.to_owned(),
        reason: said.reason.to_owned(),
        message: said.message.clone(),
        observed_generation: Some(generation),
        last_transition_time: unchanged
            .map_or(Time(now), |known| known.last_transition_time.clone()),
    }
}

fn accepted(verdict: &Verdict, summary: &Summary) -> Said {
    let (is_true, reason, message) = match &verdict.problem {
        Some(problem) => (
            false,
            "Invalid",
            format!("{problem}; what runs stays as it is"),
        ),
        None if summary.lost > 0 => (
            true,
            "Overlaps",
            format!(
                "{} of the pods that it selects obey {} instead: an annotation, or else the oldest policy, decides",
                summary.lost, summary.lost_to
            ),
        ),
        None => (true, "Accepted", "its settings are allowed".to_owned()),
    };
    Said {
        kind: "Accepted",
        is_true,
        reason,
        message,
    }
}

fn programmed(verdict: &Verdict, summary: &Summary) -> Said {
    let Summary {
        matched,
        programmed,
        refusing,
        unknown,
        ..
    } = summary;
    let (is_true, reason, message) = if verdict.problem.is_some() {
        (
            false,
            "Invalid",
            "its settings are not accepted, and no relay runs them".to_owned(),
        )
    } else if *matched == 0 {
        (true, "NoPods", "no pod with a relay obeys it".to_owned())
    } else if refusing.count > 0 {
        (
            false,
            "Refused",
            format!("{refusing} refused its settings: {}", summary.refusal),
        )
    } else if unknown.count > 0 {
        (
            false,
            "Unknown",
            format!("{unknown} did not call; {programmed} of {matched} relays run its settings"),
        )
    } else if programmed < matched {
        (
            false,
            "Pending",
            format!("{programmed} of {matched} relays run its settings"),
        )
    } else {
        (
            true,
            "Programmed",
            format!("all {matched} relays run its settings"),
        )
    };
    Said {
        kind: "Programmed",
        is_true,
        reason,
        message,
    }
}

/// Whether enough of a policy's pods take connections, and the sentence for it.
pub fn readiness(summary: &Summary) -> (bool, String) {
    let said = ready(summary);
    (said.is_true, said.message)
}

fn ready(summary: &Summary) -> Said {
    let Summary {
        matched,
        ready,
        may_be_unready,
        ..
    } = *summary;
    let unready = matched - ready;
    let (is_true, reason, message) = if matched == 0 {
        (true, "NoPods", "no pod with a relay obeys it".to_owned())
    } else if ready == 0 {
        (
            false,
            "NonePodReady",
            format!("none of its {matched} pods takes connections"),
        )
    } else if unready > may_be_unready {
        (
            false,
            "TooFewReady",
            format!(
                "{unready} of {matched} pods do not take connections; readiness.maxUnreadyPercent means {may_be_unready}"
            ),
        )
    } else {
        (
            true,
            "Ready",
            format!("{ready} of {matched} pods take connections"),
        )
    };
    Said {
        kind: "Ready",
        is_true,
        reason,
        message,
    }
}

fn degraded(summary: &Summary) -> Said {
    let Summary {
        away,
        held,
        refusing,
        unknown,
        worst,
        ..
    } = summary;
    let (is_true, reason, message) = if held.count > 0 {
        (
            true,
            "LeaveLimitReached",
            format!("{held} would leave for pushback, and readiness.maxUnreadyPercent keeps them"),
        )
    } else if away.count > 0 {
        (
            true,
            "PodsLeft",
            format!("{away} left for sustained pushback"),
        )
    } else if let Some(first) = worst.first() {
        (
            true,
            "Pushback",
            format!(
                "{} under sustained pushback, {} % of submissions",
                first.name, first.pushback_percent
            ),
        )
    } else if refusing.count > 0 {
        (
            true,
            "SettingsRefused",
            format!("{refusing} refused its settings: {}", summary.refusal),
        )
    } else if unknown.count > 0 {
        (true, "PodsUnknown", format!("{unknown} did not call"))
    } else {
        (
            false,
            "Healthy",
            "nothing is wrong with its pods".to_owned(),
        )
    };
    Said {
        kind: "Degraded",
        is_true,
        reason,
        message,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::fleet::{Named, Worst};

    fn named(names: &[&str]) -> Named {
        Named {
            count: names.len() as u32,
            names: names.iter().map(|name| (*name).to_owned()).collect(),
        }
    }

    fn healthy() -> Summary {
        Summary {
            matched: 4,
            programmed: 4,
            ready: 4,
            may_be_unready: 2,
            ..Summary::default()
        }
    }

    fn verdict() -> Verdict {
        Verdict {
            uid: String::new(),
            generation: 5,
            problem: None,
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn told(verdict: &Verdict, summary: &Summary) -> PolicyStatus {
        status(verdict, summary, None, at(100), |time| {
            at(time.as_secs() as i64)
        })
    }

    /// Status and reason of each condition, in order.
    fn brief(status: &PolicyStatus) -> Vec<(&str, &str)> {
        status
            .conditions
            .iter()
            .map(|condition| (condition.status.as_str(), condition.reason.as_str()))
            .collect()
    }

    #[test]
    fn all_is_well() {
        let status = told(&verdict(), &healthy());
        assert_eq!(
            brief(&status),
            [
                ("True", "Accepted"),
                ("True", "Programmed"),
                ("True", "Ready"),
                ("False", "Healthy")
            ]
        );
        assert_eq!(status.pods.as_ref().unwrap().summary, "4/4");
        let holding = holding(&verdict(), &healthy());
        assert_eq!(
            holding,
            [
                ("Accepted", true),
                ("Programmed", true),
                ("Ready", true),
                ("Degraded", false)
            ]
        );
        assert!(
            status
                .conditions
                .iter()
                .all(|known| known.observed_generation == Some(5))
        );
    }

    #[test]
    fn pushback_is_told_with_the_pods_names_and_since_when() {
        let summary = Summary {
            ready: 3,
            away: named(&["web-1"]),
            worst: vec![Worst {
                name: "web-1".to_owned(),
                pushback_percent: 61,
                since: Some(Duration::from_secs(40)),
            }],
            ..healthy()
        };
        let status = told(&verdict(), &summary);
        assert_eq!(
            brief(&status)[2..],
            [("True", "Ready"), ("True", "PodsLeft")]
        );
        assert_eq!(status.worst_pods[0].since, Some(Time(at(40))));
        assert_eq!(status.reason.as_deref(), Some("PodsLeft"));
        assert!(status.conditions[3].message.contains("web-1 left"));
    }

    #[test]
    fn more_unready_pods_than_allowed_are_not_ready() {
        let status = told(
            &verdict(),
            &Summary {
                ready: 1,
                ..healthy()
            },
        );
        assert_eq!(brief(&status)[2], ("False", "TooFewReady"));
        let status = told(
            &verdict(),
            &Summary {
                ready: 0,
                ..healthy()
            },
        );
        assert_eq!(brief(&status)[2], ("False", "NonePodReady"));
    }

    #[test]
    fn what_is_not_accepted_or_refused_says_why() {
        let invalid = Verdict {
            problem: Some("batch.min is 9".to_owned()),
            ..verdict()
        };
        let status = told(&invalid, &healthy());
        assert_eq!(
            brief(&status)[..2],
            [("False", "Invalid"), ("False", "Invalid")]
        );
        assert!(status.conditions[0].message.contains("batch.min is 9"));
        let refused = Summary {
            programmed: 3,
            refusing: named(&["web-2"]),
            refusal: "beside its file".to_owned(),
            ..healthy()
        };
        let status = told(&verdict(), &refused);
        assert_eq!(brief(&status)[1], ("False", "Refused"));
        assert!(status.conditions[1].message.contains("beside its file"));
    }

    #[test]
    fn a_condition_that_stays_keeps_its_time() {
        let before = told(&verdict(), &healthy());
        let summary = Summary {
            ready: 0,
            ..healthy()
        };
        let after = status(&verdict(), &summary, Some(&before), at(200), |_| at(0));
        let times: Vec<_> = after
            .conditions
            .iter()
            .map(|known| known.last_transition_time.0)
            .collect();
        assert_eq!(times, [at(100), at(100), at(200), at(100)]);
    }
}
