//! What a process has used so far, as the kernel tells from outside: CPU time and resident memory.

use std::fs;
use std::time::Instant;

use ringside_tests::processes::Process;

/// What a process has used.
pub(crate) struct Usage {
    at: Instant,
    cpu_seconds: f64,
    pub(crate) resident_mib: f64,
    /// At most, since its start.
    pub(crate) resident_most_mib: f64,
}

impl Usage {
    /// Of a process that runs.
    pub(crate) fn of(process: &Process) -> Self {
        let path = format!("/proc/{}/status", process.pid());
        let status = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        let mib = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<f64>().ok());
            kib.unwrap_or(f64::NAN) / 1024.0
        };
        Self {
            at: Instant::now(),
            cpu_seconds: process.cpu().as_secs_f64(),
            resident_mib: mib("VmRSS:"),
            resident_most_mib: mib("VmHWM:"),
        }
    }

    /// The share of a core since another look.
    pub(crate) fn cpu_since(&self, before: &Self) -> f64 {
        (self.cpu_seconds - before.cpu_seconds) / (self.at - before.at).as_secs_f64()
    }
}
