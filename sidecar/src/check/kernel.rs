//! The kernel and what it lets be used: which backends work, tried for real.

use std::time::Instant;

use ringside_api::BackendChoice;

use super::{Finding, Machine};
use crate::backend::Backend;
use crate::backend::epoll::Epoll;
use crate::backend::ring::Ring;
use crate::backend::tokio_uring::TokioUring;

/// The kernel from which the ring can work.
const RING_SINCE: (u32, u32) = (6, 1);

/// Features that make it better, and the kernel that has them.
const FEATURES: [((u32, u32), &str); 2] = [
    ((6, 10), "receive bundles"),
    ((6, 12), "incremental buffers"),
];

/// What a trial ring is made with: little, because it goes again at once.
const TRIAL_POOL_BYTES: usize = 1 << 20;
const TRIAL_OPERATIONS: u32 = 256;

/// What makes a ring possible.
const ALLOW: &str = "allow io_uring_setup, io_uring_enter and io_uring_register in the seccomp profile, on Linux 6.1 or later; see the lines below";

/// Tries the backends, best first, of which one is `asked` for.
pub(super) fn backends(asked: BackendChoice) -> (Option<&'static str>, String, Vec<Finding>) {
    let ring = Ring::new(Instant::now(), TRIAL_POOL_BYTES, TRIAL_OPERATIONS)
        .map(drop)
        .map_err(|error| error.to_string());
    let epoll = Epoll::new(Instant::now(), TRIAL_POOL_BYTES)
        .map(drop)
        .map_err(|errno| errno.to_string());
    let (backend, reason, mut findings) = judge(asked, ring, epoll);
    findings.push(by_name(asked));
    (backend, reason, findings)
}

/// The backend that is never chosen by itself.
fn by_name(asked: BackendChoice) -> Finding {
    match TokioUring::new(Instant::now(), TRIAL_POOL_BYTES, TRIAL_OPERATIONS) {
        Err(error) if !TokioUring::IS_BUILT => Finding::note(
            TokioUring::NAME,
            format!("{error}; `--backend tokio-uring` takes what `auto` does"),
            "leave it: `--backend ring` is io_uring too, and faster",
        ),
        Err(error) if asked == BackendChoice::TokioUring => Finding::problem(
            TokioUring::NAME,
            format!("{error}; it is asked for, and the relay would not start"),
            "ask for `--backend auto`, which takes another one",
        ),
        Ok(_) => Finding::ok(
            TokioUring::NAME,
            "works; taken only with `--backend tokio-uring`",
        ),
        Err(error) => Finding::note(
            TokioUring::NAME,
            format!("{error}; `--backend tokio-uring` would not start"),
            "leave it: `--backend auto` takes another one",
        ),
    }
}

fn judge(
    asked: BackendChoice,
    ring: Result<(), String>,
    epoll: Result<(), String>,
) -> (Option<&'static str>, String, Vec<Finding>) {
    let (backend, reason) = match (&ring, &epoll) {
        (Ok(()), _) => (Some(Ring::NAME), "io_uring works here".to_owned()),
        (Err(error), Ok(())) => (Some(Epoll::NAME), format!("no ring: {error}")),
        (Err(ring), Err(epoll)) => (None, format!("no ring: {ring}; no epoll: {epoll}")),
    };
    let ring = match ring {
        Ok(()) => Finding::ok("io_uring", "a ring was set up, tried and closed"),
        Err(error) if asked == BackendChoice::Ring => Finding::problem(
            "io_uring",
            format!("{error}; `--backend ring` is asked for, and the relay would not start"),
            ALLOW,
        ),
        Err(error) => Finding::note(
            "io_uring",
            format!("{error}; the relay falls back to epoll"),
            ALLOW,
        ),
    };
    let epoll = match epoll {
        Ok(()) => Finding::ok("epoll", "works"),
        Err(error) if backend.is_some() => Finding::note(
            "epoll",
            format!("cannot be set up: {error}; there is nothing to fall back to"),
            "look at the limit of descriptors and the seccomp profile",
        ),
        Err(error) => Finding::problem(
            "epoll",
            format!("cannot be set up: {error}; no backend works"),
            "look at the limit of descriptors and the seccomp profile",
        ),
    };
    (backend, reason, vec![ring, epoll])
}

pub(super) fn version(machine: &Machine) -> Finding {
    let Some(release) = machine.text("proc/sys/kernel/osrelease") else {
        return Finding::note(
            "kernel",
            "its version cannot be read",
            "mount /proc, so that more can be said",
        );
    };
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map(str::parse::<u32>);
    let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next()) else {
        return Finding::note(
            "kernel",
            format!("{release} is no version that is understood"),
            "see the trial of io_uring below",
        );
    };
    let version = (major, minor);
    if version < RING_SINCE {
        return Finding::note(
            "kernel",
            format!("{release} is older than 6.1, which the ring needs; the relay runs on epoll"),
            "use Linux 6.1 or later; 6.12 or later is best",
        );
    }
    let missing: Vec<&str> = FEATURES
        .iter()
        .filter(|(since, _)| version < *since)
        .map(|(_, feature)| *feature)
        .collect();
    if missing.is_empty() {
        return Finding::ok("kernel", format!("{release} has all that the ring uses"));
    }
    Finding::note(
        "kernel",
        format!("{release} lacks {}", missing.join(" and ")),
        "Linux 6.12 or later costs less CPU for many connections",
    )
}

pub(super) fn sysctl(machine: &Machine) -> Finding {
    const SUBJECT: &str = "sysctl kernel.io_uring_disabled";
    const REMEDY: &str =
        "set it to 0 on the node (sysctl -w kernel.io_uring_disabled=0), or accept epoll";
    match machine.number("proc/sys/kernel/io_uring_disabled") {
        None => Finding::ok(SUBJECT, "is not there (before 6.6): nothing is disabled"),
        Some(0) => Finding::ok(SUBJECT, "0: nothing is disabled"),
        Some(1) => Finding::note(
            SUBJECT,
            "1: only for processes with CAP_SYS_ADMIN or of the group kernel.io_uring_group",
            REMEDY,
        ),
        Some(other) => Finding::note(SUBJECT, format!("{other}: for everybody"), REMEDY),
    }
}

pub(super) fn seccomp(machine: &Machine) -> Finding {
    let status = machine.text("proc/self/status").unwrap_or_default();
    let mode = status
        .lines()
        .find_map(|line| line.strip_prefix("Seccomp:"))
        .map(str::trim);
    match mode {
        Some("0") => Finding::ok("seccomp", "no filter"),
        // Whether it allows the calls, the trial has shown.
        Some("2") => Finding::ok(
            "seccomp",
            "a filter is in place; whether it allows io_uring is what the trial above says",
        ),
        Some("1") => Finding::problem(
            "seccomp",
            "strict mode: hardly any system call is allowed",
            "run without strict mode",
        ),
        _ => Finding::ok("seccomp", "this kernel does not tell"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::super::machine::tests::of;
    use super::*;

    fn kernel(release: &str) -> Finding {
        let (_folder, machine) = of(&[("proc/sys/kernel/osrelease", release)]);
        version(&machine)
    }

    #[test]
    fn a_version_is_judged_by_what_it_has() {
        assert_eq!(kernel("6.18.44-fc\n").level, Level::Ok);
        assert_eq!(kernel("7.0.0-rc1\n").level, Level::Ok);
        let middle = kernel("6.10.3");
        assert!(
            middle.found.contains("lacks incremental buffers"),
            "{middle:?}"
        );
        let old = kernel("5.15.0-91-generic");
        assert!(old.found.contains("epoll"), "{old:?}");
        assert_eq!(old.level, Level::Note);
        assert_eq!(kernel("unknown").level, Level::Note);
    }

    #[test]
    fn only_no_backend_at_all_or_not_the_one_that_is_asked_for_is_a_problem() {
        let eperm = || Err("io_uring_setup: not permitted".to_owned());
        let (backend, reason, findings) = judge(BackendChoice::Auto, eperm(), Ok(()));
        assert_eq!(backend, Some("epoll"));
        assert!(reason.contains("not permitted"), "{reason}");
        assert!(findings.iter().all(|f| f.level != Level::Problem));
        let (backend, _, findings) = judge(BackendChoice::Auto, eperm(), eperm());
        assert_eq!(backend, None);
        assert!(findings.iter().any(|f| f.level == Level::Problem));
        assert_eq!(judge(BackendChoice::Auto, Ok(()), Ok(())).0, Some("ring"));
        // The relay falls back unless it is asked for by name.
        let (_, _, findings) = judge(BackendChoice::Ring, eperm(), Ok(()));
        assert!(findings.iter().any(|f| f.level == Level::Problem));
    }

    #[test]
    fn what_is_disabled_gets_a_remedy() {
        for (text, level) in [("0", Level::Ok), ("1", Level::Note), ("2", Level::Note)] {
            let (_folder, machine) = of(&[("proc/sys/kernel/io_uring_disabled", text)]);
            let found = sysctl(&machine);
            assert_eq!((found.level, found.remedy.is_some()), (level, text != "0"));
        }
        let (_folder, machine) = of(&[("proc/self/status", "Name:\tx\nSeccomp:\t1\n")]);
        assert_eq!(seccomp(&machine).level, Level::Problem);
    }
}
