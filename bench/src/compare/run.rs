//! One run: a relay started afresh, the work done through it, and what came of it.
//!
//! Owns the addresses of the applications and the choice between two attempts when others disturbed the first.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context, bail};

use crate::compare::Comparison;
use crate::compare::disturbance::Disturbance;
use crate::compare::loopback;
use crate::compare::network::OwnNetwork;
use crate::compare::subject::{Addresses, Subject};
use crate::compare::table::Sample;
use crate::compare::work::{Amounts, Work};
use crate::endpoint::Endpoint;
use crate::process::Processes;
use crate::report::Report;
use crate::workload::Aim;

/// What is there for the whole comparison.
pub(crate) struct Bench<'a> {
    /// What was asked for.
    pub options: &'a Comparison,
    /// Gives out ports.
    pub network: OwnNetwork,
    /// For configurations and output.
    pub folder: &'a Path,
    /// The application behind the relays, on the client's CPU.
    pub application: SocketAddr,
    /// The application that is called directly, on the CPU that a relay would have: both CPUs work in every run.
    pub called_directly: SocketAddr,
    /// The processes of both.
    pub applications: Processes,
}

impl Bench<'_> {
    /// Runs `work` through `subject`; once more if others took too much of the CPUs, and then the calmer one counts.
    pub(crate) fn run(&mut self, subject: Subject, work: Work) -> anyhow::Result<Sample> {
        let first = self.attempt(subject, work)?;
        let limit = f64::from(self.options.disturbed_above);
        let Some(disturbance) = first.others_percent.filter(|percent| *percent > limit) else {
            return Ok(first);
        };
        let second = self.attempt(subject, work)?;
        let calmer = second
            .others_percent
            .is_some_and(|percent| percent < disturbance);
        Ok(if calmer { second } else { first })
    }

    fn attempt(&mut self, subject: Subject, work: Work) -> anyhow::Result<Sample> {
        if subject == Subject::Direct {
            let aim = self.aim(self.called_directly, Processes::default());
            let (report, others_percent) = self.load(&aim, work)?;
            return Ok(Sample {
                figure: work.figure(&report),
                report: Some(report),
                others_percent: Some(others_percent),
            });
        }
        let at = Addresses {
            listen: loopback(self.network.port()),
            target: self.application,
            admin: loopback(self.network.port()),
        };
        let Comparison {
            programs,
            relay_cpu,
            load_cpu,
            ..
        } = self.options;
        let running = programs.start(subject, at, self.folder, *relay_cpu, *load_cpu)?;
        let figure = match work {
            Work::Ready => Some(running.ready.as_secs_f64() * 1e3),
            Work::Rss => {
                Some(running.processes.memory()?.resident_bytes as f64 / f64::from(1 << 20))
            }
            _ => None,
        };
        if figure.is_some() {
            return Ok(Sample {
                figure,
                report: None,
                others_percent: None,
            });
        }
        let aim = self.aim(at.listen, running.processes.clone());
        let (report, others_percent) = self
            .load(&aim, work)
            .with_context(|| format!("the relay's last words: {}", running.last_words()))?;
        Ok(Sample {
            figure: work.figure(&report),
            report: Some(report),
            others_percent: Some(others_percent),
        })
    }

    fn aim(&self, target: SocketAddr, relay: Processes) -> Aim {
        Aim {
            target: Endpoint::Tcp(target),
            relay,
            warm_up: self.options.warm_up,
        }
    }

    /// The report of a load that did not fail, and the percentage of the CPUs that others took meanwhile.
    fn load(&self, aim: &Aim, work: Work) -> anyhow::Result<(Report, f64)> {
        let Comparison {
            seconds,
            gigabytes,
            relay_cpu,
            load_cpu,
            ..
        } = self.options;
        let amounts = Amounts {
            duration: *seconds,
            bulk_bytes: (gigabytes * 1e9) as u64,
        };
        let own = [std::process::id()];
        let ours = Processes::of(&[&own[..], self.applications.pids(), aim.relay.pids()].concat());
        let disturbance = Disturbance::watch(&[*relay_cpu, *load_cpu], ours)?;
        let Some(report) = work.run(aim, amounts)? else {
            bail!("{work}: there is no load of that kind");
        };
        if report.errors > 0 {
            bail!(
                "{} of {:.0} units of work failed",
                report.errors,
                report.units
            );
        }
        Ok((report, disturbance.percent()?))
    }
}
