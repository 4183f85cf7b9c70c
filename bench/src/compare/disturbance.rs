//! How much of the two CPUs went to others while a run was measured.
//!
//! On a shared machine this is the first thing to look at when a figure surprises. Owns two readings; must never judge.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};

use crate::process::Processes;
use crate::system;

/// The state of the CPUs, and of the processes of the comparison, at the start of a run.
#[derive(Debug)]
pub(crate) struct Disturbance {
    cpus: Vec<usize>,
    ours: Processes,
    begin: Instant,
    idle: Duration,
    used: Duration,
}

impl Disturbance {
    /// Begins to watch `cpus`. What `ours` use there is no disturbance.
    pub(crate) fn watch(cpus: &[usize], ours: Processes) -> anyhow::Result<Self> {
        let mut cpus = cpus.to_vec();
        cpus.dedup();
        Ok(Self {
            begin: Instant::now(),
            idle: idle(&cpus)?,
            used: used(&ours)?,
            cpus,
            ours,
        })
    }

    /// The share of the CPUs' time since then that was neither idle nor ours, in percent: other processes, interrupts,
    /// and what a hypervisor took.
    pub(crate) fn percent(&self) -> anyhow::Result<f64> {
        let there = self.begin.elapsed().as_secs_f64() * self.cpus.len() as f64;
        let idle = idle(&self.cpus)?.saturating_sub(self.idle).as_secs_f64();
        let used = used(&self.ours)?.saturating_sub(self.used).as_secs_f64();
        Ok((100.0 * (there - idle - used) / there.max(1e-9)).clamp(0.0, 100.0))
    }
}

fn used(ours: &Processes) -> anyhow::Result<Duration> {
    Ok(Duration::from_nanos(ours.cpu()?.total_ns))
}

fn idle(cpus: &[usize]) -> anyhow::Result<Duration> {
    let stat = fs::read_to_string("/proc/stat").context("cannot read /proc/stat")?;
    let mut ticks = 0;
    for cpu in cpus {
        ticks += idle_ticks(&stat, *cpu)
            .ok_or_else(|| anyhow!("/proc/stat says nothing of CPU {cpu}"))?;
    }
    Ok(Duration::from_secs_f64(
        ticks as f64 / system::ticks_per_second() as f64,
    ))
}

/// Ticks that a CPU had nothing to run, whether or not something waited for a disk.
fn idle_ticks(stat: &str, cpu: usize) -> Option<u64> {
    let name = format!("cpu{cpu} ");
    let line = stat.lines().find_map(|line| line.strip_prefix(&name))?;
    let mut fields = line.split_whitespace().skip(3).map(str::parse::<u64>);
    Some(fields.next()?.ok()? + fields.next()?.ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_and_waiting_for_a_disk_are_both_idle() {
        let stat = "cpu  9 9 9 9 9\ncpu1 1 2 3 40 5 6 7 8\ncpu11 1 1 1 1 1\n";
        assert_eq!(idle_ticks(stat, 1), Some(45));
        assert_eq!(idle_ticks(stat, 2), None);
    }

    #[test]
    fn a_cpu_that_is_not_there_is_an_error_that_names_it() {
        let error = Disturbance::watch(&[99_999], Processes::default())
            .unwrap_err()
            .to_string();
        assert!(error.contains("CPU 99999"), "{error}");
    }
}
