//! Each reason to pause by example, and what must hold for any load.

use proptest::prelude::*;

use super::super::backoff::Jitter;
use super::*;

fn at_millis(millis: u64) -> Time {
    Time::from_nanos(millis * 1_000_000)
}

fn reason(state: GateState) -> Option<PauseReason> {
    match state {
        GateState::Open => None,
        GateState::Paused { reason, .. } => Some(reason),
    }
}

/// A load with room everywhere.
fn light() -> Load {
    Load {
        other_workers: 0,
        connections_open: 10,
        descriptors_open: 40,
        descriptor_limit: 1024,
        operations_in_flight: 20,
        operations_budget: 1000,
        pool_used_bytes: 100,
        pool_limit_bytes: 1000,
        pushback: false,
    }
}

/// A reason, the load in which a given share of its limit is used, and the limits to judge it by.
type ShareCase<'a> = (PauseReason, &'a dyn Fn(u32) -> Load, GateLimits);

/// What the worker does for connections that were accepted.
fn accept(gate: &mut Gate, connections: u32, now: Time) {
    if let Some(rate) = gate.rate() {
        gate.set_paid_until(rate.spend(gate.paid_until, connections, now));
    }
}

#[test]
fn each_share_pauses_at_its_upper_mark_and_resumes_below_its_lower_one() {
    let limits = GateLimits {
        max_connections: 100,
        ..GateLimits::default()
    };
    let connections = |share| Load {
        connections_open: share,
        ..light()
    };
    let buffers = |share: u32| Load {
        pool_used_bytes: u64::from(share) * 10,
        ..light()
    };
    let operations = |share| Load {
        operations_in_flight: share * 10,
        ..light()
    };
    // 1024 less the reserve of 24 leaves 1000; 800 of them are the process's own, so connections share 200.
    let descriptors = |share| Load {
        connections_open: share,
        descriptors_open: 800 + 2 * share,
        descriptor_limit: 1024,
        ..light()
    };
    let cases: [ShareCase; 4] = [
        (PauseReason::Connections, &connections, limits),
        (PauseReason::Buffers, &buffers, limits),
        (PauseReason::Operations, &operations, limits),
        (
            PauseReason::Descriptors,
            &descriptors,
            GateLimits {
                max_connections: 4096,
                descriptor_reserve: 24,
                ..limits
            },
        ),
    ];
    for (expected, load, limits) in cases {
        let mut gate = Gate::new(limits);
        assert_eq!(
            gate.decide(&load(94), at_millis(0)),
            GateState::Open,
            "{expected:?}"
        );
        let paused = GateState::Paused {
            reason: expected,
            since: at_millis(100),
        };
        assert_eq!(gate.decide(&load(95), at_millis(100)), paused);
        assert_eq!(gate.decide(&load(80), at_millis(200)), paused);
        // Another worker's closes may open what the whole process shares; the rest only a change of its own load.
        let look_again = expected.is_process_wide().then(|| at_millis(220));
        assert_eq!(gate.next_change(at_millis(200)), look_again, "{expected:?}");
        assert_eq!(
            gate.decide(&load(79), at_millis(300)),
            GateState::Open,
            "{expected:?}"
        );
    }
}

#[test]
fn a_pause_lasts_its_shortest_time() {
    let mut gate = Gate::new(GateLimits::default());
    gate.decide(
        &Load {
            pushback: true,
            ..light()
        },
        at_millis(10),
    );
    assert_eq!(
        reason(gate.decide(&light(), at_millis(11))),
        Some(PauseReason::Pushback)
    );
    assert_eq!(gate.next_change(at_millis(11)), Some(at_millis(30)));
    assert_eq!(gate.decide(&light(), at_millis(30)), GateState::Open);
    assert_eq!(gate.next_change(at_millis(30)), None);
}

#[test]
fn the_rate_pauses_and_reopens_by_time_alone() {
    let mut gate = Gate::new(GateLimits {
        max_per_second: Some(1000),
        ..GateLimits::default()
    });
    let start = at_millis(1000);
    gate.decide(&light(), start);
    // A multishot accept delivered 150 where 100 were allowed: the debt lengthens the pause.
    accept(&mut gate, 150, start);
    assert_eq!(
        reason(gate.decide(&light(), start)),
        Some(PauseReason::Rate)
    );
    assert_eq!(gate.next_change(start), Some(at_millis(1100)));
    assert_eq!(
        reason(gate.decide(&light(), at_millis(1099))),
        Some(PauseReason::Rate)
    );
    assert_eq!(gate.decide(&light(), at_millis(1100)), GateState::Open);
}

#[test]
fn refused_descriptors_pause_longer_at_each_repetition_and_forgive_after_quiet() {
    let mut limits = GateLimits::default();
    limits.descriptor_backoff.jitter = Jitter::None;
    let mut gate = Gate::new(limits);
    assert_eq!(gate.descriptors_refused(1, at_millis(100)), at_millis(110));
    assert_eq!(
        reason(gate.decide(&light(), at_millis(100))),
        Some(PauseReason::Descriptors)
    );
    assert_eq!(
        gate.next_change(at_millis(100)),
        Some(at_millis(120)),
        "the shortest pause outlasts this one"
    );
    assert_eq!(gate.decide(&light(), at_millis(120)), GateState::Open);
    assert_eq!(gate.descriptors_refused(1, at_millis(200)), at_millis(220));
    assert_eq!(
        gate.descriptors_refused(1, at_millis(6000)),
        at_millis(6010)
    );
}

#[test]
fn a_small_descriptor_limit_does_not_wedge() {
    let mut gate = Gate::new(GateLimits::default());
    // 64 less a reserve of 16 leaves 48, of which 40 are the process's own: room for four connections.
    let load = |open| Load {
        connections_open: open,
        descriptors_open: 40 + 2 * open,
        descriptor_limit: 64,
        ..light()
    };
    assert_eq!(gate.decide(&load(3), at_millis(0)), GateState::Open);
    assert_eq!(
        reason(gate.decide(&load(4), at_millis(100))),
        Some(PauseReason::Descriptors)
    );
    assert_eq!(gate.decide(&load(3), at_millis(200)), GateState::Open);
}

#[test]
fn the_foremost_reason_is_told_and_the_last_one_opens() {
    let mut gate = Gate::new(GateLimits::default());
    let load = Load {
        connections_open: 4096,
        pushback: true,
        ..light()
    };
    assert_eq!(
        reason(gate.decide(&load, at_millis(1))),
        Some(PauseReason::Connections)
    );
    // Of two reasons one is this worker's own, which it hears of by itself.
    assert_eq!(gate.next_change(at_millis(1)), None);
    assert!(PauseReason::Connections.is_process_wide());
    assert!(!PauseReason::Pushback.is_process_wide());
}

#[test]
fn a_limit_of_the_process_is_looked_at_again_however_short_a_pause_may_be() {
    for (shortest_millis, look_millis) in [(0, 20), (20, 20), (300, 300)] {
        let mut gate = Gate::new(GateLimits {
            shortest_pause: Duration::from_millis(shortest_millis),
            ..GateLimits::default()
        });
        let load = Load {
            connections_open: 4096,
            ..light()
        };
        gate.decide(&load, at_millis(1000));
        for now in [1000, 2000] {
            let look_again = Some(at_millis(now + look_millis));
            assert_eq!(gate.next_change(at_millis(now)), look_again);
        }
    }
}

#[test]
fn the_order_of_reasons_is_that_of_the_list() {
    for (index, reason) in PauseReason::ALL.into_iter().enumerate() {
        assert_eq!(reason as usize, index);
    }
}

fn loads() -> impl Strategy<Value = Load> {
    (
        0..110u32,
        0..1100u32,
        0..1100u32,
        0..1100u64,
        prop::bool::weighted(0.1),
    )
        .prop_map(
            |(
                connections_open,
                more_descriptors,
                operations_in_flight,
                pool_used_bytes,
                pushback,
            )| Load {
                other_workers: 0,
                connections_open,
                descriptors_open: 2 * connections_open + more_descriptors / 2,
                descriptor_limit: 1024,
                operations_in_flight,
                operations_budget: 1000,
                pool_used_bytes,
                pool_limit_bytes: 1000,
                pushback,
            },
        )
}

fn any_load() -> impl Strategy<Value = Load> {
    (any::<[u32; 5]>(), any::<[u64; 2]>(), any::<bool>()).prop_map(|(counts, bytes, pushback)| {
        Load {
            other_workers: 0,
            connections_open: counts[0],
            descriptors_open: counts[1],
            descriptor_limit: counts[2],
            operations_in_flight: counts[3],
            operations_budget: counts[4],
            pool_used_bytes: bytes[0],
            pool_limit_bytes: bytes[1],
            pushback,
        }
    })
}

proptest! {
    #[test]
    fn limits_hold_and_pauses_last(turns in prop::collection::vec((0..30u64, loads(), 0..40u32, any::<u64>()), 1..300)) {
        let limits = GateLimits { max_connections: 100, max_per_second: Some(2000), ..GateLimits::default() };
        let mut gate = Gate::new(limits);
        let (mut now, mut flips, mut before) = (1000, 0, GateState::Open);
        for (gap, load, arrivals, random) in turns {
            now += gap;
            let state = gate.decide(&load, at_millis(now));
            if load.pushback || load.connections_open >= 95 {
                prop_assert_ne!(state, GateState::Open);
            }
            if state == GateState::Open {
                accept(&mut gate, arrivals, at_millis(now));
                if random % 50 == 0 {
                    gate.descriptors_refused(random, at_millis(now));
                }
            }
            flips += u64::from((state == GateState::Open) != (before == GateState::Open));
            before = state;
        }
        // No flapping: every pause lasts 20 ms, whatever the load does.
        prop_assert!(flips <= 2 * ((now - 1000) / 20) + 2, "{flips} flips in {} ms", now - 1000);
    }

    #[test]
    fn a_load_between_the_marks_never_flips(shares in prop::collection::vec(800..950u32, 1..200), paused: bool) {
        let load = |share| Load { operations_in_flight: share, ..light() };
        let mut gate = Gate::new(GateLimits::default());
        gate.decide(&load(if paused { 1000 } else { 0 }), at_millis(0));
        for (turn, share) in shares.into_iter().enumerate() {
            let state = gate.decide(&load(share), at_millis(100 * (turn as u64 + 1)));
            prop_assert_eq!(state != GateState::Open, paused);
        }
    }

    #[test]
    fn it_opens_when_it_says(load in loads(), accepted in 0..5000u32, random: u64, refused: bool) {
        let mut gate = Gate::new(GateLimits { max_connections: 100, ..GateLimits::default() });
        let now = at_millis(1000);
        accept(&mut gate, accepted, now);
        if refused {
            gate.descriptors_refused(random, now);
        }
        gate.decide(&load, now);
        if let Some(next) = gate.next_change(now) {
            let state = gate.decide(&load, next);
            // Shut on only by what needs others to close connections, and looked at again.
            let waits = matches!(state, GateState::Paused { reason, .. } if reason < PauseReason::Buffers);
            prop_assert!(state == GateState::Open || waits && gate.next_change(next) > Some(next), "{state:?}");
            if state == GateState::Open && next > at_millis(1020) {
                // Not a moment too early either: just before, it was still shut.
                let mut earlier = Gate::new(GateLimits { max_connections: 100, ..GateLimits::default() });
                accept(&mut earlier, accepted, now);
                if refused {
                    earlier.descriptors_refused(random, now);
                }
                earlier.decide(&load, now);
                let just_before = next.saturating_sub(Duration::from_nanos(1));
                prop_assert_ne!(earlier.decide(&load, just_before), GateState::Open);
            }
        }
    }

    #[test]
    fn without_connections_nothing_waits_for_them_to_close(load in any_load(), busy in any_load()) {
        let mut gate = Gate::new(GateLimits::default());
        gate.decide(&busy, at_millis(0));
        let idle = Load { connections_open: 0, pushback: false, ..load };
        prop_assert_eq!(gate.decide(&idle, at_millis(20)), GateState::Open);
    }

    #[test]
    fn survives_any_input(
        limits: (u32, Option<u32>, u8, u8, u32, Duration, Duration),
        turns in prop::collection::vec((any::<u64>(), any_load(), any::<u32>(), any::<u64>()), 0..60),
    ) {
        let mut gate = Gate::new(GateLimits::default());
        for (index, (now, load, accepted, random)) in turns.into_iter().enumerate() {
            let now = Time::from_nanos(now);
            if index == 5 {
                gate.set_limits(GateLimits {
                    max_connections: limits.0,
                    max_per_second: limits.1,
                    pause_above_percent: limits.2,
                    resume_below_percent: limits.3,
                    descriptor_reserve: limits.4,
                    descriptor_backoff: BackoffLimits { max: limits.5, ..BackoffLimits::default() },
                    shortest_pause: limits.6,
                });
            }
            gate.decide(&load, now);
            accept(&mut gate, accepted, now);
            prop_assert!(gate.next_change(now).is_none_or(|next| next >= now));
            if random % 3 == 0 {
                gate.descriptors_refused(random, now);
            }
        }
    }
}

#[test]
fn what_other_workers_may_accept_at_the_same_moment_has_room() {
    for (workers, limit) in [(2, 16), (4, 16), (8, 100), (2, 4_096)] {
        let limits = GateLimits {
            max_connections: limit,
            max_per_second: None,
            ..GateLimits::default()
        };
        let opens = |connections_open| {
            let load = Load {
                connections_open,
                other_workers: workers - 1,
                ..Load::default()
            };
            let state = Gate::new(limits).decide(&load, Time::ZERO);
            state == GateState::Open
        };
        // The most that are open while every worker still accepts one more.
        let most = (0..=limit).filter(|&open| opens(open)).max().unwrap();
        assert!(
            most + workers <= limit,
            "{workers} workers: {most} of {limit}"
        );
    }
}
