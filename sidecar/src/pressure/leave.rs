//! Whether a pod that is under sustained pressure may leave its Services.
//!
//! Owns where the pod stands: it stays, wants to leave, or is away; by whose word; and until when. Without a controller it leaves
//! by its own rule. With one it asks, and goes unasked only with a permit, which the controller alone gives and takes: so
//! the fleet's limit holds though the controller be gone. It must never be away without pressure.

use std::sync::Arc;
use std::time::Duration;

use ringside_api::sync::{LEAVE_PATIENCE_MILLIS, LeaveAnswer};

use crate::time::Time;

/// How long a pod that wants to leave waits for an answer before it goes by its permit.
pub const PATIENCE: Duration = Duration::from_millis(LEAVE_PATIENCE_MILLIS);

/// How soon a question that has no answer may be put again.
pub const ASK_AGAIN: Duration = Duration::from_millis(250);

/// The longest grant that is believed; it is renewed long before.
pub const GRANT_MAX: Duration = Duration::from_secs(600);

/// The most characters of a denial's reason that are repeated.
const WHY_CHARS_MAX: usize = 200;

/// Who says whether a pod may leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// The pod, which has no controller.
    Own,
    /// The controller.
    Asked,
}

/// By whose word a pod is away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// Its own rule.
    Own,
    /// The controller's grant.
    Grant,
    /// The permit, as no answer came.
    Permit,
}

/// Why a pod that wants to leave is still there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// It waits for the answer.
    Asks,
    /// The controller said no, for this reason.
    Denied(Arc<str>),
    /// No answer came, and it has no permit.
    NoPermit,
}

/// Where a pod stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stand {
    /// There is no reason to leave.
    Stays,
    /// It wants to leave, and is there.
    Wants(Why),
    /// It has left.
    Away(By),
}

/// How wishes to leave came out, each counted once for an episode of pressure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeaveCounts {
    /// Left by its own rule.
    pub own: u64,
    /// Left by a grant.
    pub granted: u64,
    /// Left by the permit.
    pub permitted: u64,
    /// Stayed by a denial.
    pub denied: u64,
    /// Stayed because no answer came and there was no permit.
    pub unanswered: u64,
}

/// Where one pod stands on leaving. Ask [`judge`](Leaving::judge) at any moment; tell it each question, answer and failure.
#[derive(Clone, Debug)]
pub struct Leaving {
    rule: Rule,
    permit: bool,
    episode: Option<Episode>,
    counts: LeaveCounts,
}

/// What happened since pressure began.
#[derive(Clone, Debug)]
struct Episode {
    /// Since when there is a question without an answer.
    unanswered_since: Option<Time>,
    /// When it was last put.
    asked_at: Option<Time>,
    grant: Option<Grant>,
    denied: Option<Arc<str>>,
    /// Away by the permit.
    gone: bool,
    counted: LeaveCounts,
}

#[derive(Clone, Copy, Debug)]
struct Grant {
    until: Time,
    renew_at: Time,
}

impl Leaving {
    /// A pod without pressure, and whether it holds a permit from before.
    #[must_use]
    pub fn new(rule: Rule, permit: bool) -> Self {
        Leaving {
            rule,
            permit,
            episode: None,
            counts: LeaveCounts::default(),
        }
    }

    /// Where the pod stands at `now`, given whether it is `pressed` so much that it should leave.
    pub fn judge(&mut self, pressed: bool, now: Time) -> Stand {
        if !pressed {
            self.episode = None;
            return Stand::Stays;
        }
        let episode = self.episode.get_or_insert_with(|| Episode::begin(now));
        let stand = match self.rule {
            Rule::Own => Stand::Away(By::Own),
            Rule::Asked => episode.stand(self.permit, now),
        };
        let (whole, once) = (&mut self.counts, &mut episode.counted);
        let (total, counted) = match &stand {
            Stand::Away(By::Own) => (&mut whole.own, &mut once.own),
            Stand::Away(By::Grant) => (&mut whole.granted, &mut once.granted),
            Stand::Away(By::Permit) => (&mut whole.permitted, &mut once.permitted),
            Stand::Wants(Why::Denied(_)) => (&mut whole.denied, &mut once.denied),
            Stand::Wants(Why::NoPermit) => (&mut whole.unanswered, &mut once.unanswered),
            Stand::Wants(Why::Asks) | Stand::Stays => return stand,
        };
        if *counted == 0 {
            (*counted, *total) = (1, *total + 1);
        }
        stand
    }

    /// Whether the controller is to be asked now: a question waits, or a grant has to be renewed.
    #[must_use]
    pub fn asks(&self, now: Time) -> bool {
        let Some(episode) = &self.episode else {
            return false;
        };
        let rested = |asked: Time| now.saturating_since(asked) >= ASK_AGAIN;
        let due = |grant: &Grant| grant.renew_at <= now;
        self.rule == Rule::Asked
            && episode.asked_at.is_none_or(rested)
            && (episode.unanswered_since.is_some() || episode.grant.as_ref().is_some_and(due))
    }

    /// The question was put at `now`.
    pub fn asked(&mut self, now: Time) {
        if let Some(episode) = &mut self.episode {
            episode.asked_at = Some(now);
            episode.unanswered_since.get_or_insert(now);
        }
    }

    /// The controller was lost at `now`: what it said last no longer speaks for it.
    pub fn lost(&mut self, now: Time) {
        if let Some(episode) = &mut self.episode {
            episode.unanswered_since.get_or_insert(now);
        }
    }

    /// The controller answered: whether the pod holds a permit from now on, and whether it may leave. A grant counts from `from`.
    pub fn answered(&mut self, permit: bool, leave: Option<&LeaveAnswer>, from: Time) {
        self.permit = permit;
        let Some(episode) = &mut self.episode else {
            return;
        };
        episode.gone &= permit;
        match leave {
            Some(LeaveAnswer::Granted { for_millis }) => {
                let length = Duration::from_millis(*for_millis).min(GRANT_MAX);
                episode.grant = Some(Grant {
                    until: from.saturating_add(length),
                    renew_at: from.saturating_add(length / 2),
                });
                episode.denied = None;
            }
            Some(LeaveAnswer::Denied(why)) => {
                let shown = why.chars().filter(|shown| !shown.is_control());
                let shown: String = shown.take(WHY_CHARS_MAX).collect();
                episode.denied = Some(shown.into());
                episode.grant = None;
            }
            None => return,
        }
        episode.gone = false;
        episode.unanswered_since = None;
    }

    /// Whether it may leave when no answer comes.
    #[must_use]
    pub fn permit(&self) -> bool {
        self.permit
    }

    /// How wishes to leave came out so far.
    #[must_use]
    pub fn counts(&self) -> LeaveCounts {
        self.counts
    }
}

impl Episode {
    fn begin(now: Time) -> Self {
        Episode {
            unanswered_since: Some(now),
            asked_at: None,
            grant: None,
            denied: None,
            gone: false,
            counted: LeaveCounts::default(),
        }
    }

    fn stand(&mut self, permit: bool, now: Time) -> Stand {
        if let Some(grant) = self.grant {
            if now < grant.until {
                return Stand::Away(By::Grant);
            }
            // Over, and not renewed. It may have been asked for: then the permit decides at once whether the pod comes back.
            self.grant = None;
            self.gone = permit;
            self.unanswered_since.get_or_insert(now);
        }
        let unanswered = self
            .unanswered_since
            .is_some_and(|since| now.saturating_since(since) >= PATIENCE);
        self.gone |= permit && unanswered;
        if self.gone {
            return Stand::Away(By::Permit);
        }
        Stand::Wants(match &self.denied {
            _ if unanswered => Why::NoPermit,
            Some(why) => Why::Denied(why.clone()),
            None => Why::Asks,
        })
    }
}

#[cfg(test)]
mod tests;
