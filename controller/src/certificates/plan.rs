//! Decides what becomes of the Secret: kept until a moment, or written anew, and why.
//!
//! It owns the order of a CA's renewal. First the new CA joins the bundle, while the leaf stays; after the time that news take to
//! spread the leaf is signed by it; the old one leaves the bundle when whatever it signed is over. The key of a CA that was
//! replaced is not kept. Pure save for the random numbers of keys; it never looks at a clock, and never writes.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;

use super::contents::Contents;
use super::issue::{self, CannotMake};
use super::reading::{self, Bundle, Ca, Fault, Leaf, timestamp};
use super::terms::Terms;

/// The most CAs in a bundle: the one that signs, the one before, and room for two that a broken Secret cost.
const BUNDLE_MOST: usize = 4;

/// How far the clocks of those who look at certificates may differ.
const SKEW: Duration = Duration::from_secs(3600);

/// What becomes of the Secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    /// It is good, and need not be looked at before.
    Keep {
        /// When to look again.
        until: Timestamp,
    },
    /// This is to be written.
    Write {
        /// All of it.
        contents: Contents,
        /// Why: a sentence's part, as in "... because there is no Secret".
        reason: String,
    },
}

/// What is to be done next, before anything is made.
enum Step {
    Keep(i64),
    /// A new CA joins; the leaf stays where it is good, and is else made at once.
    NewCa(String),
    /// The CA that signs makes a new leaf.
    NewLeaf(String),
    /// Only the bundle is written anew.
    Bundle(String),
}

/// What the contents are at a moment.
struct State<'a> {
    now: i64,
    terms: &'a Terms,
    bundle: Bundle,
    signer: Result<usize, Fault>,
    leaf: Result<Leaf, Fault>,
    missing_names: Vec<String>,
}

/// What becomes of a Secret with `secret` in it (`None`: there is none) at `now`.
///
/// Of what is to be done one thing is done at a time: whoever has written calls it again.
///
/// # Errors
/// A key or a certificate cannot be made.
pub fn plan(secret: Option<&Contents>, now: Timestamp, terms: &Terms) -> Result<Plan, CannotMake> {
    let empty = Contents::default();
    let contents = secret.unwrap_or(&empty);
    let state = State::read(contents, now.as_second(), terms);
    let (contents, reason) = match state.step(secret.is_none()) {
        Step::Keep(until) => {
            let until = timestamp(until);
            return Ok(Plan::Keep { until });
        }
        Step::NewCa(reason) => (state.with_new_ca(contents, now)?, reason),
        Step::NewLeaf(reason) => (state.with_new_leaf(contents, now)?, reason),
        Step::Bundle(reason) => {
            let contents = contents.clone();
            let ca_crt = state.kept_bundle();
            (Contents { ca_crt, ..contents }, reason)
        }
    };
    Ok(Plan::Write { contents, reason })
}

/// What to plan with, where the Secret holds `secret` and this replica remembers `last`, the last that was good.
///
/// A Secret that was deleted or spoilt would else cost the trust of every sidecar. So its CAs stay in the bundle and its leaf
/// is shown while a new CA spreads; a CA's key that is gone stays gone, which is how one is replaced on purpose. `None`: with
/// what is there.
pub fn recovered(
    secret: Option<&Contents>,
    last: Option<&Contents>,
    now: Timestamp,
) -> Option<Contents> {
    let good = |contents: &Contents| {
        let cas = reading::bundle(&contents.ca_crt).cas;
        reading::leaf(contents, &cas, now.as_second()).is_ok()
    };
    let last = last.filter(|last| Some(*last) != secret && good(last))?;
    if secret.is_some_and(good) {
        return None;
    }
    let ca_key = secret.map(|secret| secret.ca_key.clone());
    Some(Contents {
        ca_key: ca_key.unwrap_or_default(),
        ..last.clone()
    })
}

impl<'a> State<'a> {
    fn read(contents: &Contents, now: i64, terms: &'a Terms) -> Self {
        let bundle = reading::bundle(&contents.ca_crt);
        let signer = match &bundle.fault {
            Some(fault) if bundle.cas.is_empty() => Err(fault.clone()),
            _ => reading::signer(contents, &bundle.cas, now),
        };
        Self {
            now,
            terms,
            signer,
            leaf: reading::leaf(contents, &bundle.cas, now),
            missing_names: reading::missing_names(contents, terms.names()),
            bundle,
        }
    }

    fn step(&self, is_new: bool) -> Step {
        if is_new {
            return Step::NewCa(Fault::NoSecret.to_string());
        }
        let signer = match &self.signer {
            Ok(signer) => *signer,
            Err(fault) => return Step::NewCa(fault.to_string()),
        };
        let leaf = match &self.leaf {
            Ok(leaf) => leaf,
            Err(fault) => return Step::NewLeaf(fault.to_string()),
        };
        let ca = &self.bundle.cas[signer];
        let mut next = ca.span.due();
        if leaf.issuer == signer {
            if !self.missing_names.is_empty() {
                return Step::NewLeaf(Fault::Names(self.missing_names.clone()).to_string());
            }
            // Before the CA is renewed: so the leaf has its time when it has to wait for the new CA to spread.
            if self.now >= leaf.span.due() {
                return Step::NewLeaf("two thirds of the leaf's life are over".to_owned());
            }
            next = next.min(leaf.span.due());
        }
        if self.now >= ca.span.due() {
            return Step::NewCa("two thirds of the CA's life are over".to_owned());
        }
        if leaf.issuer != signer {
            let spread = ca.span.made().saturating_add(whole(self.terms.spread()));
            if self.now >= spread {
                return Step::NewLeaf("whoever verifies knows the new CA by now".to_owned());
            }
            next = next.min(spread).min(leaf.span.ends);
        }
        if let Some(fault) = &self.bundle.fault {
            return Step::Bundle(fault.to_string());
        }
        let leaving = |index: &usize| *index != signer && !self.stays(*index);
        if (0..self.bundle.cas.len()).any(|index| leaving(&index)) {
            return Step::Bundle("what the CA before signed is over".to_owned());
        }
        if self.kept().len() < self.bundle.cas.len() {
            return Step::Bundle("ca.crt holds more CAs than can be in use".to_owned());
        }
        if signer != 0 {
            return Step::Bundle("the CA that signs is not the first in ca.crt".to_owned());
        }
        let others = (1..self.bundle.cas.len()).map(|index| self.leaves_at(index));
        Step::Keep(others.fold(next, i64::min))
    }

    /// When a CA that does not sign any more leaves the bundle.
    fn leaves_at(&self, index: usize) -> i64 {
        let ends = self.bundle.cas[index].span.ends;
        // It is not known to have signed after the CA that signs was made.
        let Ok(signer) = self.signer else { return ends };
        let joined = self.bundle.cas[signer].span.made();
        let over = whole(self.terms.leaf_life()).saturating_add(whole(SKEW));
        ends.min(joined.saturating_add(over))
    }

    fn stays(&self, index: usize) -> bool {
        let ca = &self.bundle.cas[index];
        let issued = self.leaf.as_ref().is_ok_and(|leaf| leaf.issuer == index);
        self.now < ca.span.ends && (issued || self.now < self.leaves_at(index))
    }

    /// The CAs that belong into the bundle, the one that signs first, then the leaf's.
    fn kept(&self) -> Vec<&Ca> {
        let signer = self.signer.as_ref().ok();
        let issuer = self.leaf.as_ref().ok().map(|leaf| &leaf.issuer);
        let first: Vec<usize> = signer.into_iter().chain(issuer).copied().collect();
        let mut kept: Vec<usize> = Vec::new();
        for index in first.into_iter().chain(0..self.bundle.cas.len()) {
            let belongs = Some(&index) == signer || self.stays(index);
            // One that is nobody's: without a CA that signs only the leaf's is known to be ours.
            let ours = signer.is_some() || Some(&index) == issuer;
            if belongs && ours && !kept.contains(&index) && kept.len() < BUNDLE_MOST {
                kept.push(index);
            }
        }
        kept.into_iter()
            .map(|index| &self.bundle.cas[index])
            .collect()
    }

    fn kept_bundle(&self) -> String {
        self.kept().into_iter().map(|ca| ca.pem.as_str()).collect()
    }

    fn with_new_ca(&self, contents: &Contents, now: Timestamp) -> Result<Contents, CannotMake> {
        let made = issue::ca(now, self.terms)?;
        let others = self.kept().into_iter().take(BUNDLE_MOST - 1);
        let others: String = others.map(|ca| ca.pem.as_str()).collect();
        let next = Contents {
            ca_crt: format!("{}{others}", made.certificate),
            ca_key: made.key,
            ..contents.clone()
        };
        if self.leaf.is_ok() {
            return Ok(next);
        }
        Self::read(&next, self.now, self.terms).with_new_leaf(&next, now)
    }

    fn with_new_leaf(&self, contents: &Contents, now: Timestamp) -> Result<Contents, CannotMake> {
        let signer = self.signer.as_ref().ok().copied().unwrap_or_default();
        let Some(ca) = self.bundle.cas.get(signer) else {
            return Err(CannotMake::from(rcgen::Error::CouldNotParseCertificate));
        };
        let key = &contents.ca_key;
        let made = issue::leaf(&ca.pem, key, ca.span.ends, now, self.terms)?;
        Ok(Contents {
            ca_crt: self.kept_bundle(),
            ca_key: contents.ca_key.clone(),
            tls_crt: made.certificate,
            tls_key: made.key,
        })
    }
}

fn whole(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
