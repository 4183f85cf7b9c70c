//! How many workers `auto` means.

/// As many as the CPUs that this process may use: those of its affinity mask, or fewer where a cgroup's quota (version
/// 1 or 2) grants less, rounded down, at least one.
pub(crate) fn granted() -> usize {
    // The standard library reads all three.
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}
