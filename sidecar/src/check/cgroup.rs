//! What the cgroup grants: CPU time and memory, of version 1 or 2.

use ringside_api::Settings;

use super::{Finding, Machine};
use crate::process::workers::{granted_by, memory_wanted};

/// How deep a cgroup's path is followed.
const DEPTH_MAX: usize = 32;

pub(super) fn cpu(machine: &Machine) -> Finding {
    const SUBJECT: &str = "cgroup CPU";
    let workers = auto(memory_limit(machine));
    let quota = smallest(machine, "cpu", |folder| {
        let (quota, period) = match machine.text(&format!("{folder}/cpu.max")) {
            Some(both) => {
                let (quota, period) = both.split_once(' ')?;
                (quota.parse::<u64>().ok()?, period.parse().ok()?)
            }
            // No limit is -1, which is no number here.
            None => (
                machine.number(&format!("{folder}/cpu.cfs_quota_us"))?,
                machine.number(&format!("{folder}/cpu.cfs_period_us"))?,
            ),
        };
        (quota * 1000).checked_div(period)
    });
    match quota {
        None => Finding::ok(
            SUBJECT,
            format!("no quota; `--workers auto` means {workers}"),
        ),
        Some(thousandths) => {
            let cpus = thousandths as f64 / 1000.0;
            let found = format!("{cpus:.2} CPUs are granted; `--workers auto` means {workers}");
            if thousandths >= 500 {
                return Finding::ok(SUBJECT, found);
            }
            Finding::note(
                SUBJECT,
                found,
                "grant at least half a CPU: under less, throttling adds tens of milliseconds to messages",
            )
        }
    }
}

/// What `--workers auto` means under such a limit.
fn auto(memory_limit: Option<u64>) -> usize {
    granted_by(memory_limit, Settings::default().buffers.pool.bytes())
}

/// The memory that the cgroup grants, in bytes; `None` where it sets no limit.
pub(crate) fn memory_limit(machine: &Machine) -> Option<u64> {
    smallest(machine, "memory", |folder| {
        machine
            .number(&format!("{folder}/memory.max"))
            .or_else(|| machine.number(&format!("{folder}/memory.limit_in_bytes")))
            // Version 1 tells "no limit" by a number near the largest.
            .filter(|limit| *limit < 1 << 60)
    })
}

pub(super) fn memory(machine: &Machine) -> Finding {
    const SUBJECT: &str = "cgroup memory";
    let limit = memory_limit(machine);
    let workers = auto(limit) as u64;
    let wanted = memory_wanted(workers, Settings::default().buffers.pool.bytes());
    match limit {
        None => Finding::ok(SUBJECT, "no limit"),
        Some(limit) => {
            let (limit_mib, wanted_mib) = (limit >> 20, wanted >> 20);
            if limit >= wanted {
                return Finding::ok(SUBJECT, format!("{limit_mib} MiB"));
            }
            Finding::note(
                SUBJECT,
                format!(
                    "{limit_mib} MiB, while {workers} workers may take about {wanted_mib} MiB with the kernel's share under load"
                ),
                format!(
                    "grant {wanted_mib} MiB, or lower buffers.pool or the number of workers: beyond the limit the kernel ends the process"
                ),
            )
        }
    }
}

/// The smallest value on the way from this process's cgroup up to the root.
fn smallest(
    machine: &Machine,
    controller: &str,
    value: impl Fn(&str) -> Option<u64>,
) -> Option<u64> {
    let cgroups = machine.text("proc/self/cgroup")?;
    let mut least = None;
    for line in cgroups.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else {
            continue;
        };
        let mount = match controllers {
            "" => "sys/fs/cgroup".to_owned(),
            _ if controllers.split(',').any(|name| name == controller) => {
                format!("sys/fs/cgroup/{controller}")
            }
            _ => continue,
        };
        let mut path = path.trim_end_matches('/');
        for _ in 0..DEPTH_MAX {
            // A container may see the path of the host and only its own folder: then the root is what counts.
            let found = value(&format!("{mount}{path}"));
            least = [least, found].into_iter().flatten().min();
            let Some((above, _)) = path.rsplit_once('/') else {
                break;
            };
            path = above;
        }
    }
    least
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::super::machine::tests::of;
    use super::*;

    #[test]
    fn the_tightest_of_a_path_counts_in_version_2() {
        let (_folder, machine) = of(&[
            ("proc/self/cgroup", "0::/pod/box\n"),
            ("sys/fs/cgroup/pod/cpu.max", "25000 100000\n"),
            ("sys/fs/cgroup/pod/box/cpu.max", "max 100000\n"),
            ("sys/fs/cgroup/pod/memory.max", "max\n"),
            ("sys/fs/cgroup/pod/box/memory.max", "16777216\n"),
        ]);
        let cpu = cpu(&machine);
        assert!(cpu.found.starts_with("0.25 CPUs"), "{cpu:?}");
        assert_eq!(cpu.level, Level::Note);
        let memory = memory(&machine);
        assert!(memory.found.starts_with("16 MiB"), "{memory:?}");
        assert_eq!(memory.level, Level::Note);
    }

    #[test]
    fn version_1_tells_no_limit_by_strange_numbers() {
        let (_folder, machine) = of(&[
            (
                "proc/self/cgroup",
                "4:memory:/box\n1:cpu,cpuacct:/box\n0::/\n",
            ),
            ("sys/fs/cgroup/cpu/box/cpu.cfs_quota_us", "-1\n"),
            ("sys/fs/cgroup/cpu/box/cpu.cfs_period_us", "100000\n"),
            (
                "sys/fs/cgroup/memory/memory.limit_in_bytes",
                "9223372036854771712\n",
            ),
        ]);
        assert!(cpu(&machine).found.starts_with("no quota"));
        assert_eq!(memory(&machine).found, "no limit");
        let (_folder, machine) = of(&[
            ("proc/self/cgroup", "1:cpu,cpuacct:/\n"),
            ("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "150000\n"),
            ("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n"),
        ]);
        assert!(cpu(&machine).found.starts_with("1.50 CPUs"));
    }

    #[test]
    fn nonsense_is_no_limit() {
        let (_folder, machine) = of(&[
            ("proc/self/cgroup", "nonsense\n0::/\n"),
            ("sys/fs/cgroup/cpu.max", "100 0\n"),
        ]);
        assert!(cpu(&machine).found.starts_with("no quota"));
    }
}
