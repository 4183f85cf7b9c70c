//! What this kernel and container allow a relay, and what to do about what they do not.
//!
//! It owns findings and what they advise. It looks and tries, and changes nothing.

mod cgroup;
mod kernel;
mod limits;
mod machine;
mod reach;

use serde::Serialize;

pub(crate) use cgroup::memory_limit;
pub use machine::Machine;
pub use reach::Plan;

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Ok,
    /// It works, and could be better.
    Note,
    /// It does not work.
    Problem,
}

impl Level {
    /// The word for people.
    pub fn label(self) -> &'static str {
        match self {
            Level::Ok => "ok",
            Level::Note => "note",
            Level::Problem => "problem",
        }
    }
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at.
    pub subject: &'static str,
    /// How much it matters.
    pub level: Level,
    /// What was found.
    pub found: String,
    /// What to do about it, where there is something to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

impl Finding {
    fn ok(subject: &'static str, found: impl Into<String>) -> Self {
        Finding {
            subject,
            level: Level::Ok,
            found: found.into(),
            remedy: None,
        }
    }

    fn note(subject: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Finding {
            subject,
            level: Level::Note,
            found: found.into(),
            remedy: Some(remedy.into()),
        }
    }

    fn problem(subject: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Finding {
            level: Level::Problem,
            ..Finding::note(subject, found, remedy)
        }
    }
}

/// Everything that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The backend that `auto` takes here, if any works.
    pub backend: Option<&'static str>,
    /// Why it is this one.
    pub reason: String,
    /// What was found, most important first.
    pub findings: Vec<Finding>,
}

impl Report {
    /// Whether a relay would not work as it is meant to.
    pub fn has_problems(&self) -> bool {
        let mut findings = self.findings.iter();
        self.backend.is_none() || findings.any(|finding| finding.level == Level::Problem)
    }
}

/// Looks at everything, and tries what a relay of this plan would use.
pub fn check(machine: &Machine, plan: &Plan) -> Report {
    let (backend, reason, mut findings) = kernel::backends(plan.backend);
    findings.insert(0, kernel::version(machine));
    findings.push(kernel::sysctl(machine));
    findings.push(kernel::seccomp(machine));
    findings.push(limits::descriptors(machine));
    findings.push(limits::locked_memory(machine));
    findings.push(limits::backlog(machine));
    findings.push(limits::ports(machine));
    findings.push(limits::pipes(machine));
    findings.push(cgroup::cpu(machine));
    findings.push(cgroup::memory(machine));
    findings.push(limits::congestion_control(machine));
    findings.extend(reach::listeners(plan));
    findings.push(reach::controller(plan));
    Report {
        backend,
        reason,
        findings,
    }
}
