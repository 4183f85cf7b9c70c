//! One pod of the fleet: what the API server has of it, and what its sidecar last said.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ringside_api::sync::{Leave, LeaveAnswer, PodIdentity, Report, State};
use tokio::sync::Notify;

use super::permits::{Permits, Standing};
use crate::policies::Assignment;

/// How long a grant to leave lasts; a sidecar asks again well before.
const GRANT: Duration = Duration::from_secs(15);

/// A grant is renewed when so much of it is over.
const GRANT_RENEWED_AFTER: Duration = Duration::from_secs(6);

/// How long one that wants to leave is kept waiting for a permit that is being taken back, before it is denied: well below the time
/// after which it goes by its own permit.
const TAKING_BACK: Duration = Duration::from_millis(600);

/// The pods that share a limit: those that obey the same RelayPolicy, or those of a namespace that obey none.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Group {
    pub(super) namespace: String,
    /// Empty for none.
    pub(super) policy: String,
}

/// What the API server has of a pod, as far as it matters here.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ObservedPod {
    /// Who it is.
    pub identity: PodIdentity,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// The policy that it names by annotation.
    pub named_policy: Option<String>,
    /// Whether it has a relay.
    pub is_injected: bool,
    /// Whether its condition Ready is true.
    pub is_ready: bool,
    /// Whether it ends or has ended, and is no member of its Services for good.
    pub has_ended: bool,
}

/// What a sidecar last said, and what it was answered.
#[derive(Clone, Debug)]
pub struct Sidecar {
    /// Its last report.
    pub report: Report,
    /// Whether it has been silent for too long.
    pub is_unknown: bool,
    /// The call that is open.
    pub(super) call: Option<u64>,
    /// When the last call began, or ended where none is open.
    pub(super) called_at: Duration,
    /// Answers of this session.
    pub(super) answers: u64,
    /// The last answer that gave a permit and is not known to be overtaken.
    pub(super) permit_given_by: Option<u64>,
    pub(super) leave_answer: Option<LeaveAnswered>,
}

/// What was answered to a wish to leave.
#[derive(Clone, Debug)]
pub(super) struct LeaveAnswered {
    pub(super) answer: LeaveAnswer,
    /// The answer that said so.
    pub(super) number: u64,
    pub(super) at: Duration,
}

impl Sidecar {
    /// When to say so to one that wants to leave or is away: at once, unless it has taken the same answer already. A denial
    /// stands until it changes; a grant is renewed.
    pub(super) fn answer_leave_at(
        &self,
        answer: &LeaveAnswer,
        session: u64,
        now: Duration,
    ) -> Duration {
        let seen = self.report.seen;
        let has_taken = |answered: &&LeaveAnswered| {
            answered.answer == *answer && seen.session == session && seen.number >= answered.number
        };
        match (self.leave_answer.as_ref().filter(has_taken), answer) {
            (None, _) => now,
            (Some(answered), LeaveAnswer::Granted { .. }) => answered.at + GRANT_RENEWED_AFTER,
            (Some(_), LeaveAnswer::Denied(_)) => Duration::MAX,
        }
    }

    /// Whether it is known to take connections.
    pub fn is_ready(&self) -> bool {
        !self.is_unknown && self.report.state.ready
    }
}

#[derive(Debug)]
pub(super) struct Pod {
    pub(super) observed: ObservedPod,
    pub(super) group: Group,
    pub(super) losers: Vec<String>,
    pub(super) missing_policy: Option<String>,
    pub(super) assignment: Option<Arc<Assignment>>,
    pub(super) sidecar: Option<Sidecar>,
    pub(super) waiter: Arc<Notify>,
}

impl Pod {
    pub(super) fn new(observed: ObservedPod) -> Self {
        Self {
            observed,
            group: Group::default(),
            losers: Vec::new(),
            missing_policy: None,
            assignment: None,
            sidecar: None,
            waiter: Arc::new(Notify::new()),
        }
    }

    /// Has the pod's call looked at again.
    pub(super) fn stir(&self) {
        self.waiter.notify_waiters();
    }

    /// Returns whether a summary would show a difference.
    pub(super) fn take_report(
        &mut self,
        report: Report,
        call: u64,
        session: u64,
        now: Duration,
    ) -> bool {
        let before = self.sidecar.take();
        let is_news = before
            .as_ref()
            .is_none_or(|before| before.is_unknown || !tells_the_same(&before.report, &report));
        let (answers, mut permit_given_by, leave_answer) = before
            .map_or((0, None, None), |before| {
                (before.answers, before.permit_given_by, before.leave_answer)
            });
        // Made after the answer that gave the permit, or after one that followed it.
        let has_seen = |number| report.seen.session == session && report.seen.number >= number;
        if !report.permit && permit_given_by.is_some_and(has_seen) {
            permit_given_by = None;
        }
        self.sidecar = Some(Sidecar {
            leave_answer: leave_answer.filter(|_| report.state.leave != Leave::Stays),
            report,
            is_unknown: false,
            call: Some(call),
            called_at: now,
            answers,
            permit_given_by,
        });
        is_news
    }

    /// Returns whether it was this call that was open.
    pub(super) fn end_call(&mut self, call: u64, now: Duration) -> bool {
        let Some(sidecar) = self
            .sidecar
            .as_mut()
            .filter(|sidecar| sidecar.call == Some(call))
        else {
            return false;
        };
        sidecar.call = None;
        sidecar.called_at = now;
        true
    }

    pub(super) fn is_silent(&self, now: Duration, limit: Duration) -> bool {
        self.sidecar.as_ref().is_some_and(|sidecar| {
            !sidecar.is_unknown
                && sidecar.call.is_none()
                && now.saturating_sub(sidecar.called_at) > limit
        })
    }

    pub(super) fn standing(&self) -> Standing {
        let Some(sidecar) = &self.sidecar else {
            return Standing {
                is_unknown: self.observed.is_ready,
                ..Standing::default()
            };
        };
        Standing {
            is_ready: sidecar.is_ready() && self.observed.is_ready,
            is_unknown: sidecar.is_unknown && self.observed.is_ready,
            is_reachable: !sidecar.is_unknown,
            leave: sidecar.report.state.leave,
            may_hold: sidecar.report.permit || sidecar.permit_given_by.is_some(),
        }
    }

    /// The answer to one that wants to leave or is away; `None` for others. `Err` until when it is worth waiting for a permit.
    pub(super) fn leave_answer(
        &self,
        permit: bool,
        permits: &Permits,
        now: Duration,
    ) -> Result<Option<LeaveAnswer>, Duration> {
        let Some(sidecar) = &self.sidecar else {
            return Ok(None);
        };
        if sidecar.report.state.leave == Leave::Stays {
            return Ok(None);
        }
        let (taken, limit, all) = (permits.taken(), permits.limit(), permits.len());
        if permit {
            return Ok(Some(LeaveAnswer::Granted {
                for_millis: GRANT.as_millis() as u64,
            }));
        }
        let until = sidecar.called_at + TAKING_BACK;
        if permits.is_taking_back() && now < until {
            return Err(until);
        }
        Ok(Some(LeaveAnswer::Denied(format!(
            "{taken} of the policy's {all} pods are not ready or may leave already, and readiness.maxUnreadyPercent allows {limit}"
        ))))
    }
}

/// Whether two reports differ only in what is counted nowhere, such as connections.
fn tells_the_same(a: &Report, b: &Report) -> bool {
    let told = |report: &Report| {
        let State {
            ready,
            leave,
            pushback_percent,
            pushed_back_for_millis,
            ..
        } = report.state;
        (ready, leave, pushback_percent, pushed_back_for_millis)
    };
    told(a) == told(b)
        && a.state.backend == b.state.backend
        && a.state.reason == b.state.reason
        && a.runs == b.runs
        && a.refused == b.refused
}
