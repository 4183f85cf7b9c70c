//! What a relay's processes cost: CPU time and memory, read from the kernel.
//!
//! Owns the list of processes that make up one relay; must never signal or change them.

use std::fs;
use std::time::Duration;

use anyhow::{Context, anyhow};
use serde::Serialize;

use crate::system;

/// The processes that make up one relay.
#[derive(Debug, Clone, Default)]
pub(crate) struct Processes {
    pids: Vec<u32>,
}

/// CPU used by a relay up to a moment, or between two.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub(crate) struct Cpu {
    /// All of it, in nanoseconds.
    pub total_ns: u64,
    /// The part in user mode, in nanoseconds but known only to a clock tick (10 ms).
    pub user_ns: u64,
    /// The part in the kernel, as coarse.
    pub system_ns: u64,
}

impl Cpu {
    /// What was used since `earlier`.
    pub(crate) fn since(self, earlier: Self) -> Self {
        Self {
            total_ns: self.total_ns.saturating_sub(earlier.total_ns),
            user_ns: self.user_ns.saturating_sub(earlier.user_ns),
            system_ns: self.system_ns.saturating_sub(earlier.system_ns),
        }
    }
}

/// Memory of a relay, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Memory {
    /// Resident pages of all kinds (VmRSS).
    pub resident_bytes: u64,
    /// Resident pages that are the process's own (RssAnon): what connections cost in user memory.
    pub anonymous_bytes: u64,
}

impl Processes {
    /// Exactly these processes.
    pub(crate) fn of(pids: &[u32]) -> Self {
        Self {
            pids: pids.to_vec(),
        }
    }

    /// A process and all its descendants as they are now (a master and its workers).
    pub(crate) fn tree(root: u32) -> Self {
        let mut pids = vec![root];
        let mut next = 0;
        while let Some(&pid) = pids.get(next) {
            next += 1;
            let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else {
                continue;
            };
            for task in tasks.flatten() {
                let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
                pids.extend(
                    children
                        .split_whitespace()
                        .filter_map(|child| child.parse::<u32>().ok()),
                );
            }
        }
        Self { pids }
    }

    /// Their ids, a parent before its children.
    pub(crate) fn pids(&self) -> &[u32] {
        &self.pids
    }

    /// True when there is nothing to measure.
    pub(crate) fn is_empty(&self) -> bool {
        self.pids.is_empty()
    }

    /// CPU used so far. Fails when one of the processes has gone.
    pub(crate) fn cpu(&self) -> anyhow::Result<Cpu> {
        let tick = Duration::from_secs(1).as_nanos() as u64 / system::ticks_per_second();
        let mut sum = Cpu::default();
        for &pid in &self.pids {
            let total = system::process_cpu(pid).with_context(|| {
                format!("cannot read the CPU time of process {pid}: has it ended?")
            })?;
            sum.total_ns += total.as_nanos() as u64;
            let stat = read(pid, "stat")?;
            let (user, system) = ticks(&stat)
                .ok_or_else(|| anyhow!("cannot read user and system time in /proc/{pid}/stat"))?;
            sum.user_ns += user * tick;
            sum.system_ns += system * tick;
        }
        Ok(sum)
    }

    /// Memory now. Fails when one of the processes has gone.
    pub(crate) fn memory(&self) -> anyhow::Result<Memory> {
        let mut sum = Memory::default();
        for &pid in &self.pids {
            let status = read(pid, "status")?;
            let field = |name| {
                kibibytes(&status, name)
                    .ok_or_else(|| anyhow!("/proc/{pid}/status has no field {name} in kB"))
            };
            sum.resident_bytes += field("VmRSS:")? * 1024;
            sum.anonymous_bytes += field("RssAnon:")? * 1024;
        }
        Ok(sum)
    }
}

fn read(pid: u32, name: &str) -> anyhow::Result<String> {
    fs::read_to_string(format!("/proc/{pid}/{name}"))
        .with_context(|| format!("cannot read /proc/{pid}/{name}: has process {pid} ended?"))
}

/// utime and stime of a line of /proc/PID/stat. The command's name may hold spaces and brackets: count from its end.
fn ticks(stat: &str) -> Option<(u64, u64)> {
    let mut fields = stat
        .get(stat.rfind(')')? + 1..)?
        .split_whitespace()
        .skip(11);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

fn kibibytes(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_with_spaces_and_brackets_does_not_move_the_fields() {
        let stat = "7 (a b) c) S 1 7 7 0 -1 4194560 100 0 0 0 42 58 0 0 20 0 1 0 5 0 0";
        assert_eq!(ticks(stat), Some((42, 58)));
        assert_eq!(ticks("nonsense"), None);
    }

    #[test]
    fn this_process_has_used_cpu_and_memory() {
        let own = Processes::of(&[std::process::id()]);
        let before = own.cpu().unwrap();
        let mut sum = 0_u64;
        while own.cpu().unwrap().since(before).total_ns < 2_000_000 {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        let memory = own.memory().unwrap();
        assert!(memory.anonymous_bytes > 0 && memory.resident_bytes > memory.anonymous_bytes);
    }

    #[test]
    fn a_process_that_has_gone_is_an_error_that_says_so() {
        let error = Processes::of(&[u32::MAX]).cpu().unwrap_err().to_string();
        assert!(error.contains("has it ended"), "{error}");
    }
}
