//! What a soak goes through, all of it from one seed: phases, each with its faults and a calm point at its end. Pure; how
//! long things really take is the machine's affair.

use std::time::Duration;

use fastrand::Rng;
use ringside::backend::inject::Errno;
use serde_json::{Value, json};

use crate::relay::Kind;

/// How a relay is made to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// SIGTERM: a drain, with a limit.
    Terminate,
    /// `POST /drain`.
    DrainRequest,
    /// SIGKILL.
    Kill,
}

/// What is done to a running relay.
#[derive(Debug, Clone, PartialEq)]
pub enum Fault {
    /// The next submissions fail.
    Refuse(u64, Errno),
    /// All submissions fail for a time.
    Storm(Duration, Errno),
    /// It is stopped and goes on at once, so many times.
    Interrupt(u32),
    /// Signals that mean nothing to it, so many of each.
    Signals(u32),
    /// It is stopped for a time.
    Stop(Duration),
    /// Other settings, until the end of the phase.
    Settings(Value),
    /// A document that is none.
    InvalidSettings(&'static str),
    /// The application goes away, with its connections, for a time.
    TargetAway(Duration),
    /// The relay ends, and another one is started.
    Restart(Way),
}

impl Fault {
    /// Whether connections may end early by it. For all others every one has to be complete.
    pub fn may_end_connections(&self) -> bool {
        match self {
            // What outlasts `maxRetries` is a stall, and may shed; after EPERM that lasts and EBADR the ring is given up.
            Self::Refuse(count, errno) => *errno == Errno::EBADR || *count > 10,
            Self::Storm(_, errno) => *errno != Errno::EINTR,
            Self::TargetAway(_) | Self::Restart(_) => true,
            Self::Interrupt(_)
            | Self::Signals(_)
            | Self::Stop(_)
            | Self::Settings(_)
            | Self::InvalidSettings(_) => false,
        }
    }

    /// The reasons, as `connections_closed_total` counts them, that it explains.
    pub fn explains(&self) -> &'static [&'static str] {
        match self {
            Self::Refuse(_, errno) if *errno == Errno::EBADR => &["backend_lost"],
            Self::Refuse(..) | Self::Storm(..) => &["shed"],
            Self::TargetAway(_) => &["connect_refused", "upstream_error"],
            Self::Restart(_) => &["drain_limit"],
            _ => &[],
        }
    }

    /// A few words for the picture and the log.
    pub fn name(&self) -> String {
        match self {
            Self::Refuse(count, errno) => format!("{count} {errno}"),
            Self::Storm(time, errno) => format!("{errno} for {} ms", time.as_millis()),
            Self::Interrupt(count) => format!("stopped and continued {count} times"),
            Self::Signals(count) => format!("{count} signals of each kind"),
            Self::Stop(time) => format!("stopped for {} ms", time.as_millis()),
            Self::Settings(value) => format!("settings {value}"),
            Self::InvalidSettings(_) => "invalid settings".to_owned(),
            Self::TargetAway(time) => format!("target away for {} ms", time.as_millis()),
            Self::Restart(Way::Terminate) => "restart by SIGTERM".to_owned(),
            Self::Restart(Way::DrainRequest) => "restart by POST /drain".to_owned(),
            Self::Restart(Way::Kill) => "restart by SIGKILL".to_owned(),
        }
    }

    /// The group that the picture marks it as.
    pub fn group(&self) -> &'static str {
        match self {
            Self::Refuse(..) | Self::Storm(..) => "submissions refused",
            Self::Interrupt(_) | Self::Signals(_) | Self::Stop(_) => "signals",
            Self::Settings(_) | Self::InvalidSettings(_) => "settings",
            Self::TargetAway(_) => "target away",
            Self::Restart(_) => "restart",
        }
    }
}

/// A time of traffic, ended by a calm point.
#[derive(Debug, Clone, PartialEq)]
pub struct Phase {
    /// How long new connections are made.
    pub length: Duration,
    /// What goes wrong, and when, since the phase's begin; in order.
    pub faults: Vec<(Duration, Fault)>,
}

/// The longest phase.
const LONGEST: Duration = Duration::from_secs(18);

/// The shortest, and how much of each phase is for its calm point.
const SHORTEST: Duration = Duration::from_secs(3);

/// The phases of a soak of a given length. Each process has its first phase without a fault. The last one lives for the
/// second half, so that what grows slowly has time to show.
pub fn plan(seed: u64, total: Duration, kind: Kind) -> Vec<Phase> {
    let random = &mut Rng::with_seed(seed);
    let length = (total / 30).clamp(SHORTEST, LONGEST);
    // The last connections of a phase and its calm point take some seconds more.
    let count = (total.as_secs_f64() / (length.as_secs_f64() + 5.0)).round();
    let count = (count as usize).max(4);
    let last_restart = (count / 2).saturating_sub(1);
    let mut restart = random.usize(4..=6);
    let mut is_new = true;
    (0..count)
        .map(|number| {
            let faults = if is_new {
                Vec::new()
            } else {
                faults(random, length, kind)
            };
            let mut phase = Phase { length, faults };
            is_new = false;
            let is_early = number == restart && number + 4 <= last_restart;
            if is_early || number == last_restart {
                let ways = [Way::Terminate, Way::Terminate, Way::DrainRequest, Way::Kill];
                let way = ways[random.usize(0..ways.len())];
                // At the end, so that nothing else is asked of the process that follows.
                phase.faults.push((length * 9 / 10, Fault::Restart(way)));
                restart = number + random.usize(5..=8);
                is_new = true;
            }
            phase
        })
        .collect()
}

fn faults(random: &mut Rng, length: Duration, kind: Kind) -> Vec<(Duration, Fault)> {
    let count = random.u32(1..=3);
    let faults = (0..count).map(|place| {
        // One after the other, with room for what they take.
        let share = length * 8 / 10 / count;
        let at = share * place + share.mul_f64(random.f64() * 0.3);
        (at, fault(random, share, kind))
    });
    faults.collect()
}

fn one_of<T: Clone>(random: &mut Rng, values: &[T]) -> T {
    values[random.usize(0..values.len())].clone()
}

/// A fault that is over within about two thirds of `room`.
fn fault(random: &mut Rng, room: Duration, kind: Kind) -> Fault {
    let short = |random: &mut Rng| room.mul_f64(0.1 + 0.4 * random.f64());
    // Only those that use io_uring can be refused a submission.
    let first = if kind == Kind::Epoll { 5 } else { 0 };
    match random.u32(first..11) {
        0 => {
            let errnos = [Errno::EAGAIN, Errno::EBUSY, Errno::ENOMEM, Errno::EPERM];
            Fault::Refuse(random.u64(1..=8), one_of(random, &errnos))
        }
        1 => Fault::Refuse(random.u64(50..500), Errno::EINTR),
        2 => Fault::Refuse(random.u64(20..100), Errno::EAGAIN),
        3 => {
            let errno = one_of(random, &[Errno::EAGAIN, Errno::EAGAIN, Errno::EINTR]);
            Fault::Storm(short(random).min(Duration::from_secs(3)), errno)
        }
        4 => Fault::Refuse(1, Errno::EBADR),
        5 => Fault::Interrupt(random.u32(20..100)),
        6 => Fault::Signals(random.u32(20..200)),
        7 => Fault::Stop(short(random).min(Duration::from_secs(1))),
        8 => Fault::Settings(settings(random)),
        9 => Fault::InvalidSettings(one_of(
            random,
            &[
                "relays: [",
                "relays: []\nsettings: {batch: {min: 0}}\n",
                "relays: [{name: web, listen: nowhere, target: \"127.0.0.1:1\"}]\n",
                "",
                "settings: {backof: {max: 1s}}\n",
            ],
        )),
        _ => Fault::TargetAway(short(random).min(Duration::from_secs(2))),
    }
}

fn settings(random: &mut Rng) -> Value {
    one_of(
        random,
        &[
            json!({"batch": {"mode": "Fixed", "max": 16}}),
            json!({"backoff": {"jitter": "Equal", "max": "5ms"}}),
            json!({"accept": {"maxPerSecond": 200}}),
            json!({"accept": {"maxConnections": 16}}),
            json!({"buffers": {"perDirection": "16Ki"}}),
            json!({"buffers": {"pipes": 2}}),
            json!({"buffers": {"pipes": 0}}),
            json!({"tcp": {"noDelay": false}, "accessLog": {"mode": "All"}}),
        ],
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn restarts(phases: &[Phase]) -> Vec<usize> {
        let is_restart = |phase: &Phase| {
            phase
                .faults
                .iter()
                .any(|(_, fault)| matches!(fault, Fault::Restart(_)))
        };
        (0..phases.len())
            .filter(|number| is_restart(&phases[*number]))
            .collect()
    }

    #[test]
    fn a_seed_gives_one_plan() {
        let total = Duration::from_secs(600);
        assert_eq!(plan(1, total, Kind::Ring), plan(1, total, Kind::Ring));
        assert_ne!(plan(1, total, Kind::Ring), plan(2, total, Kind::Ring));
    }

    #[test]
    fn any_length_is_filled_and_every_process_can_be_compared() {
        for (seed, seconds) in
            (0..200).zip([20, 30, 60, 300, 600, 3600, 36_000].into_iter().cycle())
        {
            let total = Duration::from_secs(seconds);
            let phases = plan(seed, total, Kind::Ring);
            let took: Duration = phases.iter().map(|phase| phase.length).sum();
            assert!(took <= total && took >= total / 3, "{took:?} of {total:?}");
            let restarts = restarts(&phases);
            assert_eq!(
                restarts.last(),
                Some(&(phases.len() / 2 - 1)),
                "{restarts:?}"
            );
            assert!(restarts.is_sorted_by(|a, b| b - a >= 4), "{restarts:?}");
            for phase in &phases {
                assert!(phase.faults.is_sorted_by_key(|(at, _)| *at), "{phase:?}");
                assert!(phase.faults.iter().all(|(at, _)| *at < phase.length));
            }
        }
    }

    #[test]
    fn every_kind_of_fault_comes_within_an_hour() {
        let hour = plan(5, Duration::from_secs(3600), Kind::Ring);
        let faults: Vec<Fault> = hour
            .into_iter()
            .flat_map(|phase| phase.faults)
            .map(|(_, fault)| fault)
            .collect();
        let kinds: std::collections::HashSet<_> =
            faults.iter().map(std::mem::discriminant).collect();
        assert_eq!(kinds.len(), 9, "{faults:?}");
        let epoll = plan(5, Duration::from_secs(3600), Kind::Epoll);
        let mut faults = epoll.iter().flat_map(|phase| &phase.faults);
        assert!(faults.all(|(_, fault)| fault.group() != "submissions refused"));
    }
}
