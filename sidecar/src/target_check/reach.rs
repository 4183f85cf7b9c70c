//! Whether a target takes connections, judged from the answers to checks.
//!
//! Owns the hysteresis, told one answer at a time. It must never close or open anything, and it never looks at a clock:
//! how often there are answers is the checker's concern.
//!
//! Only a refusal says that nobody listens at the target. A check that finds no way there speaks of the network, and one that
//! times out of an application that is busy, or of refusals that did not come through: a kernel sends one a second to each
//! client (`net.ipv4.icmp_ratelimit`), such as for a Service without pods. So it neither closes nor opens: to close for it
//! would make an outage of an overload, and to take it for an answer kept a port open in front of nobody.

use crate::backend::handshake::Answer;

/// What is believed of a target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// It was not asked yet.
    #[default]
    Unknown,
    /// It takes connections, or may.
    Taking,
    /// Nobody listens there.
    Refusing,
}

/// How many answers in a row change the verdict. 0 is taken as 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReachLimits {
    /// Refusals that make a target that took connections a refusing one; 2 by default.
    pub failures: u32,
    /// Other answers that make a refusing target one that takes connections; 1 by default.
    pub successes: u32,
}

/// The verdict on one target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reach {
    verdict: Verdict,
    /// Answers in a row that speak against the verdict.
    against: u32,
}

impl Reach {
    /// Takes an answer; returns the new verdict where it changes. The first one decides at once: a port must not be open
    /// for even one probe before the application behind it is.
    pub fn told(&mut self, answer: Answer, limits: ReachLimits) -> Option<Verdict> {
        let says = match answer {
            Answer::Failed => return None,
            Answer::TimedOut if self.verdict != Verdict::Unknown => return None,
            Answer::Refused => Verdict::Refusing,
            Answer::Accepted | Answer::TimedOut | Answer::Unreachable => Verdict::Taking,
        };
        if says == self.verdict {
            self.against = 0;
            return None;
        }
        self.against += 1;
        let needed = match self.verdict {
            Verdict::Unknown => 1,
            Verdict::Taking => limits.failures,
            Verdict::Refusing => limits.successes,
        };
        if self.against < needed {
            return None;
        }
        *self = Reach {
            verdict: says,
            against: 0,
        };
        Some(says)
    }

    /// The relay leads elsewhere now: what was heard does not count, and the verdict stays until there is another.
    pub fn forget_answers(&mut self) {
        self.against = 0;
    }

    /// What is believed.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        self.verdict
    }
}

#[cfg(test)]
mod tests;
