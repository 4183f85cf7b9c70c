//! What a sidecar and the controller say to each other: calls that are held until there is news, in which state goes up and settings come down.
//!
//! It owns the words and their meaning on the wire, JSON over HTTP/1.1 and TLS, and after the first call in frames over the same
//! connection ([`frames`]). Fields that a reader does not know are passed over, so
//! that either side may be newer. It never speaks itself.

pub mod frames;

use serde::{Deserialize, Serialize};

use crate::settings::{Layers, fingerprint};

/// Where the controller answers a `POST` of a [`Report`].
pub const PATH: &str = "/v1/sync";

/// The audience of the service account token that a sidecar shows.
pub const AUDIENCE: &str = "ringside.dev";

/// The most bytes of a report; a controller refuses more.
pub const REPORT_BYTES_MOST: usize = 16 << 10;

/// How long a controller holds a call at most when it has nothing to say, in milliseconds.
pub const HOLD_MILLIS: u64 = 30_000;

/// How long a sidecar that wants to leave waits for the answer before it goes by its permit alone, in milliseconds.
pub const LEAVE_PATIENCE_MILLIS: u64 = 1_000;

/// The fingerprint of a bundle of certificates in PEM, 16 hex digits: the same whatever their order, line lengths and what stands
/// between them; empty for one without a certificate.
pub fn fingerprint_of_trust(pem: &str) -> String {
    let blocks = pem.split("-----BEGIN CERTIFICATE-----").skip(1);
    let bodies = blocks.filter_map(|block| block.split_once("-----END CERTIFICATE-----"));
    let mut certificates: Vec<String> = bodies
        .map(|(body, _)| body.split_whitespace().collect::<String>() + "\n")
        .collect();
    certificates.sort_unstable();
    certificates.dedup();
    if certificates.is_empty() {
        return String::new();
    }
    fingerprint(certificates.into_iter())
}

/// Which pod speaks. The token says so too, and is believed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PodIdentity {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID: a pod that follows under the same name is another.
    pub uid: String,
}

/// What a sidecar says in a call.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Report {
    /// Who speaks.
    pub pod: PodIdentity,
    /// The sidecar's version.
    pub version: String,
    /// The hash of the offer that it runs ([`Layers::hash`]); empty where it runs none.
    pub runs: String,
    /// The last offer that it refused, and why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<RefusedOffer>,
    /// Whether it holds a permit: it may leave when no answer comes.
    pub permit: bool,
    /// The fingerprint of the certificates that it trusts the controller by; empty where it has none.
    pub trusts: String,
    /// How it is.
    pub state: State,
    /// The mark of the last answer that it has taken; that of no answer at first.
    pub seen: Mark,
    /// Whether to answer at once, though there is nothing new.
    pub at_once: bool,
}

/// Names an answer, so that a controller knows which of its answers a report is made after: a permit counts as held from the
/// answer that gives it until a report made after one that takes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Mark {
    /// The leadership that the answer was given under: a random number, never 0.
    pub session: u64,
    /// Which of its answers to this pod, counted from 1.
    pub number: u64,
}

/// An offer that a sidecar does not run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RefusedOffer {
    /// Its hash.
    pub hash: String,
    /// Why: a sentence that names field, value and what is allowed.
    pub why: String,
}

/// How a sidecar is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct State {
    /// Whether its probe says ready.
    pub ready: bool,
    /// Why, as `/readyz` says it.
    pub reason: String,
    /// Whether it ends.
    pub draining: bool,
    /// Where it stands on leaving.
    pub leave: Leave,
    /// The share of submissions that the kernel pushed back, in percent, of its worst worker.
    pub pushback_percent: u32,
    /// For how long that worker has been under sustained pushback, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pushed_back_for_millis: Option<u64>,
    /// The backend in use.
    pub backend: String,
    /// Why that one.
    pub backend_reason: String,
    /// Connections open.
    pub connections: u64,
}

/// Where a sidecar stands on leaving its Services for pressure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Leave {
    /// There is no reason to.
    #[default]
    Stays,
    /// It wants to, and is still there.
    Wants,
    /// It is away for pressure.
    Away,
}

/// What the controller answers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Answer {
    /// Its name, which the next report repeats as `seen`.
    pub mark: Mark,
    /// What to run.
    pub offer: Offer,
    /// Whether the sidecar holds a permit from now on: it may leave when no answer comes within [`LEAVE_PATIENCE_MILLIS`].
    pub permit: bool,
    /// For one that wants to leave or is away: whether it may. `None` for others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leave: Option<LeaveAnswer>,
    /// The certificates to trust the controller by from now on, in PEM, where they differ from what the sidecar trusts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
    /// How many sidecars the controller has: where all lose it at once, they come back one after the other. 0 where it does not say.
    pub sidecars: u32,
}

/// What to run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Offer {
    /// What runs already, because the policy that applies is not accepted; why.
    Keep(String),
    /// These settings.
    Run(Box<Assigned>),
}

impl Default for Offer {
    fn default() -> Self {
        Self::Keep(String::new())
    }
}

/// Settings that policies assign to a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Assigned {
    /// The hash of `layers`, as the controller computes it.
    pub hash: String,
    /// The RelayPolicy that applies; empty where none does.
    pub policy: String,
    /// The settings.
    pub layers: Layers,
}

/// May it leave?
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum LeaveAnswer {
    /// Yes, for so many milliseconds; asked again before they are over.
    #[serde(rename_all = "camelCase")]
    Granted {
        /// How long.
        for_millis: u64,
    },
    /// No, and why: a sentence.
    Denied(String),
}

/// The body of a refusal.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Refusal {
    /// What is wrong: a sentence.
    pub why: String,
    /// With status 421, from a replica that does not lead: where the leader answers, `IP:port`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leader: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trust_is_told_apart_by_its_certificates_alone() {
        let of = |body: &str| {
            format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n")
        };
        let both = fingerprint_of_trust(&(of("AAAABBBB") + &of("CCCC")));
        assert_eq!(both.len(), 16);
        assert_eq!(
            both,
            fingerprint_of_trust(&format!("# new\n{}\r\n{}", of("CCCC"), of("AAAA\r\nBBBB")))
        );
        assert_ne!(both, fingerprint_of_trust(&of("CCCC")));
        assert_eq!(fingerprint_of_trust("no certificate"), "");
    }
}
