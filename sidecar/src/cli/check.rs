//! `ringside check`: says what this kernel and container allow.

use std::fmt::Write as _;
use std::io::Write as _;

use std::sync::Arc;

use anyhow::Context;
use ringside::check::{Machine, Plan, Report, check};
use ringside::process::AdminListener;
use ringside_api::Config;

use super::{FAILED, Failure};

/// Say what this kernel and container allow, and what to do about it
///
/// Tries io_uring and epoll for real, and looks at limits and sysctls that a relay meets under load. It changes nothing.
/// Each line is ok, note (works, could be better) or problem. With the flags by which `relay` is told what to be, or in their environment, it also
/// tries the backend and the ports that such a relay would have, and whether its controller can be reached.
#[derive(Debug, clap::Args)]
#[command(after_help = "Exit codes: 0 no problem, 1 at least one, 2 usage.")]
pub(crate) struct Arguments {
    /// Write JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    plan: super::plan::PlanFlags,

    #[command(flatten)]
    controller: super::controller::Flags,
}

impl Arguments {
    fn plan(self) -> Result<Plan, Failure> {
        let overrides = self.plan.overrides();
        let planned = self.plan.load()?;
        let config = planned.map_or_else(
            || Arc::new(Config::of_relays(Vec::new())),
            |planned| planned.config,
        );
        let config = overrides.over(&config);
        let relays = config.relays.iter();
        Ok(Plan {
            backend: config.backend,
            admin: (overrides.admin != Some(AdminListener::Off)).then_some(config.admin),
            relays: relays
                .map(|relay| (relay.name.clone(), relay.listen.0))
                .collect(),
            controller: self.controller.check()?,
        })
    }
}

/// Looks, writes, and fails where there is a problem.
pub(super) fn run(arguments: Arguments) -> Result<(), Failure> {
    let as_json = arguments.json;
    let report = check(&Machine::this(), &arguments.plan()?);
    let text = if as_json {
        serde_json::to_string_pretty(&report).context("the report cannot be written")? + "\n"
    } else {
        as_text(&report)
    };
    // Whoever reads may have seen enough.
    let _ = std::io::stdout().write_all(text.as_bytes());
    if report.has_problems() {
        return Err(Failure::Code(FAILED));
    }
    Ok(())
}

fn as_text(report: &Report) -> String {
    let mut text = String::new();
    let widest = report.findings.iter().map(|f| f.subject.len()).max();
    let width = widest.unwrap_or(0);
    for finding in &report.findings {
        let (level, subject) = (finding.level.label(), finding.subject);
        let _ = writeln!(text, "{level:<8} {subject:<width$}  {}", finding.found);
        if let Some(remedy) = &finding.remedy {
            let _ = writeln!(text, "{:<8} {:<width$}  try: {remedy}", "", "");
        }
    }
    let _ = match report.backend {
        Some(backend) => writeln!(
            text,
            "\n`--backend auto` takes {backend} here: {}",
            report.reason
        ),
        None => writeln!(text, "\nno backend works here: {}", report.reason),
    };
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringside::check::{Finding, Level};

    #[test]
    fn a_remedy_stands_under_what_it_is_for() {
        let finding = |subject, level, remedy: Option<&str>| Finding {
            subject,
            level,
            found: "found".to_owned(),
            remedy: remedy.map(str::to_owned),
        };
        let report = Report {
            backend: Some("epoll"),
            reason: "no ring".to_owned(),
            findings: vec![
                finding("kernel", Level::Ok, None),
                finding("io_uring", Level::Note, Some("allow it")),
            ],
        };
        let expected = "ok       kernel    found\nnote     io_uring  found\n                   try: allow it\n\n`--backend auto` takes epoll here: no ring\n";
        assert_eq!(as_text(&report), expected);
    }
}
