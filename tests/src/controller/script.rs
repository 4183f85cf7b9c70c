//! What a scripted controller does with a call. It owns the script and what was reported; it speaks to nobody.

use std::time::{Duration, Instant};

use ringside_api::sync::{
    Answer, Assigned, Leave, LeaveAnswer, Mark, Offer, Report, fingerprint_of_trust,
};
use serde_json::Value;

/// What marks the answers of a scripted controller.
pub const SESSION: u64 = 7;

/// How calls are treated.
#[derive(Clone, Debug, PartialEq)]
pub enum Manner {
    /// As a controller does: at once where there is news, else held.
    Answers,
    /// With this status, these headers and this body.
    Says(u16, Vec<(&'static str, String)>, String),
    /// With an answer's beginning, and then bytes without end.
    Endless,
    /// With an answer's beginning, a byte at a time.
    Slow,
    /// Never.
    Silent,
}

/// What a scripted controller does. A test changes it while it runs.
#[derive(Clone, Debug)]
pub struct Script {
    /// How calls are treated.
    pub manner: Manner,
    /// What is offered.
    pub offer: Offer,
    /// Whether the sidecar holds a permit.
    pub permit: bool,
    /// The certificates that it is to trust.
    pub ca: Option<String>,
    /// For who wants to leave or is away; `None` leaves them without an answer.
    pub leave: Option<LeaveAnswer>,
    /// Answers at once though there is nothing new, as no controller should.
    pub hurries: bool,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            manner: Manner::Answers,
            offer: Offer::Keep(String::new()),
            permit: false,
            ca: None,
            leave: Some(LeaveAnswer::Denied("the test says no".to_owned())),
            hurries: false,
        }
    }
}

impl Script {
    /// Offers `settings` as the RelayPolicy `policy`; returns their hash.
    pub fn offer(&mut self, policy: &str, settings: Value) -> String {
        let mut assigned = assigned(policy, settings);
        assigned.hash = assigned.layers.hash();
        let hash = assigned.hash.clone();
        self.offer = Offer::Run(Box::new(assigned));
        hash
    }

    /// The answer to `report`, unless it is to be held or never to come.
    pub(super) fn answer(&self, report: &Report) -> Option<Answer> {
        let asks = report.state.leave != Leave::Stays;
        if asks && self.leave.is_none() {
            return None;
        }
        let wanted = match &self.offer {
            Offer::Keep(_) => None,
            Offer::Run(assigned) => Some(assigned.hash.as_str()),
        };
        let refused = report.refused.as_ref().map(|refused| refused.hash.as_str());
        let is_offer_new =
            wanted.is_some_and(|wanted| wanted != report.runs && refused != Some(wanted));
        let trusts = self.ca.as_deref().map(fingerprint_of_trust);
        let is_trust_new = trusts.is_some_and(|trusts| trusts != report.trusts);
        let has_news = is_offer_new || is_trust_new || self.permit != report.permit;
        if !has_news && !report.at_once && !self.hurries {
            return None;
        }
        Some(Answer {
            mark: Mark {
                session: SESSION,
                number: report.seen.number + 1,
            },
            offer: self.offer.clone(),
            permit: self.permit,
            leave: self.leave.clone().filter(|_| asks),
            ca: self.ca.clone().filter(|_| is_trust_new),
            sidecars: 1,
        })
    }
}

/// What policies would assign, with a hash that is still to be made.
pub fn assigned(policy: &str, settings: Value) -> Assigned {
    let layers = serde_json::from_value(serde_json::json!({"policy": settings}));
    Assigned {
        hash: String::new(),
        policy: policy.to_owned(),
        layers: layers.expect("settings of a policy"),
    }
}

/// A call that came.
#[derive(Clone, Debug)]
pub struct Call {
    /// When.
    pub at: Instant,
    /// Its `Authorization`.
    pub authorization: String,
    /// Its body.
    pub report: Report,
}

impl Call {
    /// How long ago.
    pub fn age(&self) -> Duration {
        self.at.elapsed()
    }
}
