//! What a process has used so far, as the kernel tells from outside: CPU time and resident memory. It judges nothing.

use std::fs;
use std::time::Instant;

/// Clock ticks of a second, by which the kernel counts CPU time for others.
const TICKS_PER_SECOND: f64 = 100.0;

/// What a process has used.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    at: Instant,
    cpu_seconds: f64,
    /// Resident memory.
    pub resident_mib: f64,
    /// At most, since its start.
    pub resident_most_mib: f64,
}

impl Usage {
    /// Of a process that runs.
    ///
    /// # Panics
    /// If there is none of this number.
    pub fn of(pid: u32) -> Self {
        let read = |name: &str| {
            let path = format!("/proc/{pid}/{name}");
            fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
        };
        let status = read("status");
        let mib = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<f64>().ok());
            kib.unwrap_or(f64::NAN) / 1024.0
        };
        // After the name, which may hold anything: the state is the third field, user's and system's time are the 14th and 15th.
        let stat = read("stat");
        let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        let ticks = after_name.split_whitespace().skip(11).take(2);
        let ticks: f64 = ticks.filter_map(|field| field.parse::<f64>().ok()).sum();
        Self {
            at: Instant::now(),
            cpu_seconds: ticks / TICKS_PER_SECOND,
            resident_mib: mib("VmRSS:"),
            resident_most_mib: mib("VmHWM:"),
        }
    }

    /// The CPU time since another look, in seconds.
    pub fn cpu_seconds_since(&self, before: &Self) -> f64 {
        self.cpu_seconds - before.cpu_seconds
    }

    /// The share of a core since another look.
    pub fn cpu_since(&self, before: &Self) -> f64 {
        self.cpu_seconds_since(before) / (self.at - before.at).as_secs_f64()
    }
}

/// Processes that this one has started, by their names (15 characters at most).
pub fn children() -> Vec<(String, u32)> {
    let own = std::process::id();
    let pids = fs::read_dir("/proc").into_iter().flatten();
    let pids = pids.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    pids.filter_map(|pid| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (head, rest) = stat.rsplit_once(')')?;
        let parent: u32 = rest.split_whitespace().nth(1)?.parse().ok()?;
        (parent == own).then(|| {
            (
                head.split_once('(').map_or("", |(_, name)| name).to_owned(),
                pid,
            )
        })
    })
    .collect()
}
