//! What the kernel knows of this process: memory, CPU time, descriptors, threads. Read from /proc at each scrape; a
//! figure that cannot be read is left out.

use std::time::{SystemTime, UNIX_EPOCH};

use super::families::{Families, Kind};
use crate::backend::descriptors;

/// The kernel tells CPU time to user space in hundredths of a second, on every architecture that Rust runs on.
const TICKS_PER_SECOND: f64 = 100.0;

/// Adds the process's figures under the names that the clients of Prometheus agreed on.
pub(super) fn add(families: &mut Families, started: SystemTime, descriptor_limit: u32) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name: &str| field_of(&status, name);
    let mut level = |name: &'static str, help: &'static str, value: Option<f64>| {
        if let Some(value) = value {
            families.family(name, help, Kind::Gauge).add(&[], value);
        }
    };
    level(
        "process_resident_memory_bytes",
        "Memory of this process that is in RAM, in bytes.",
        field("VmRSS").map(|kib| kib * 1024.0),
    );
    level(
        "process_virtual_memory_bytes",
        "Address space of this process, in bytes.",
        field("VmSize").map(|kib| kib * 1024.0),
    );
    level(
        "process_threads",
        "Threads of this process.",
        field("Threads"),
    );
    level(
        "process_open_fds",
        "Descriptors that this process has open.",
        Some(f64::from(descriptors::count_open())),
    );
    level(
        "process_max_fds",
        "Descriptors that this process may have open.",
        Some(f64::from(descriptor_limit)),
    );
    level(
        "process_start_time_seconds",
        "When this process started, in seconds since 1970.",
        started
            .duration_since(UNIX_EPOCH)
            .ok()
            .map(|since| since.as_secs_f64()),
    );
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    if let Some(ticks) = cpu_ticks(&stat) {
        families
            .family(
                "process_cpu_seconds_total",
                "CPU time that this process used, in user space and the kernel, in seconds.",
                Kind::Counter,
            )
            .add(&[], ticks / TICKS_PER_SECOND);
    }
}

fn field_of(status: &str, name: &str) -> Option<f64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.split_whitespace().next()?.parse().ok()
}

fn cpu_ticks(stat: &str) -> Option<f64> {
    // The name in the second field may hold anything, brackets and spaces included.
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let kernel: f64 = fields.next()?.parse().ok()?;
    Some(user + kernel)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_found_among_others_and_missed_without_harm() {
        let status = "Name:\tVmRSS: 1\nVmRSSx:\t7 kB\nVmRSS:\t    5120 kB\nThreads:\t4\n";
        assert_eq!(field_of(status, "VmRSS"), Some(5120.0));
        assert_eq!(field_of(status, "Threads"), Some(4.0));
        assert_eq!(field_of("", "VmRSS"), None);
        let stat = "12 (a) b) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20";
        assert_eq!(cpu_ticks(stat), Some(300.0));
        assert_eq!(cpu_ticks("12 (a"), None);
    }

    #[test]
    fn this_process_has_them() {
        let mut families = Families::default();
        add(&mut families, SystemTime::now(), 1024);
        let names: Vec<String> = families
            .into_families()
            .iter()
            .map(|family| family.name().to_owned())
            .collect();
        assert_eq!(names.len(), 7, "{names:?}");
    }
}
