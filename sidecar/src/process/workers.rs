//! How many workers `auto` means. It owns the rule; it starts none.

use crate::check::{Machine, memory_limit};

/// What a relay without workers takes, roughly, in bytes.
pub(crate) const RELAY_BYTES: u64 = 8 << 20;

/// What a worker takes from its start on, in bytes: prewarmed requests and rings in the kernel (4.5 MiB measured), and its stack.
pub(crate) const WORKER_BYTES: u64 = 5 << 20;

/// The memory that a process with so many workers may need under load, with pools of so many bytes: twice what it takes by itself, as
/// sockets' buffers count too.
pub(crate) fn memory_wanted(workers: u64, pool_bytes: u64) -> u64 {
    let each = WORKER_BYTES.saturating_add(pool_bytes);
    workers
        .saturating_mul(each)
        .saturating_add(RELAY_BYTES)
        .saturating_mul(2)
}

/// As many workers as there are CPUs, or as many as fit into the memory, at least one. Without a CPU limit a pod on a large node
/// has all of its CPUs, and so many workers may take more than the pod's memory before the first connection.
fn fitting(cpus: usize, memory_limit: Option<u64>, pool_bytes: u64) -> usize {
    let Some(limit) = memory_limit else {
        return cpus;
    };
    let each = WORKER_BYTES.saturating_add(pool_bytes);
    let fit = (limit / 2).saturating_sub(RELAY_BYTES) / each;
    cpus.min(usize::try_from(fit).unwrap_or(usize::MAX)).max(1)
}

/// As many as the CPUs that this process may use: those of its affinity mask, or fewer where a cgroup's quota (version
/// 1 or 2) grants less, rounded down; and no more than fit into the memory that the cgroup grants; at least one.
pub(crate) fn granted(pool_bytes: u64) -> usize {
    let limit = memory_limit(&Machine::this());
    let (cpus, fit) = (cpus(), fitting(cpus(), limit, pool_bytes));
    if fit < cpus {
        tracing::info!(
            cpus,
            workers = fit,
            memory_limit = limit,
            "fewer workers than CPUs, as the memory limit has no room for more"
        );
    }
    fit
}

/// The same without word of it.
pub(crate) fn granted_by(memory_limit: Option<u64>, pool_bytes: u64) -> usize {
    fitting(cpus(), memory_limit, pool_bytes)
}

/// Tells where so many workers as somebody asked for may need more than there is.
pub(crate) fn tell_if_too_many(workers: usize, pool_bytes: u64) {
    let wanted = memory_wanted(workers as u64, pool_bytes);
    if let Some(limit) = memory_limit(&Machine::this())
        && limit < wanted
    {
        let mib = |bytes: u64| bytes >> 20;
        tracing::warn!(
            "{workers} workers may need {} MiB under load, and the memory limit is {} MiB: beyond it the kernel ends the process; \
             ask for fewer workers or `auto`, or grant more",
            mib(wanted),
            mib(limit)
        );
    }
}

fn cpus() -> usize {
    // The standard library reads mask and quotas.
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const POOL: u64 = 8 << 20;

    #[test]
    fn a_large_node_does_not_make_a_small_pod_large() {
        // The limit of an injected sidecar.
        let limit = Some(256 << 20);
        assert_eq!(fitting(64, limit, POOL), 9);
        assert_eq!(fitting(4, limit, POOL), 4);
        assert_eq!(fitting(64, None, POOL), 64);
        assert_eq!(fitting(64, Some(0), POOL), 1);
        assert_eq!(fitting(64, limit, 1 << 40), 1);
    }

    proptest! {
        #[test]
        fn what_is_granted_fits(cpus in 1..1000_usize, limit: u64, pool: u64) {
            let workers = fitting(cpus, Some(limit), pool);
            prop_assert!((1..=cpus).contains(&workers));
            prop_assert!(workers == 1 || memory_wanted(workers as u64, pool) <= limit);
        }
    }
}
