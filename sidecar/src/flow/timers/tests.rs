//! The wheel by example, against a sorted map, and its work counted in list operations.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const TICK: u64 = 4_000_000;
const DAY: u64 = 86_400_000_000_000;

fn at(nanos: u64) -> Time {
    Time::from_nanos(nanos)
}

fn expired(timers: &mut Timers, now: u64) -> Vec<u32> {
    let mut slots = Vec::new();
    timers.expire(at(now), &mut |slot| slots.push(slot));
    slots
}

#[test]
fn a_node_is_sixteen_bytes() {
    assert_eq!(size_of::<Node>(), 16);
}

#[test]
fn fires_at_its_tick_and_not_before() {
    let mut timers = Timers::new(DEFAULT_TICK, at(500));
    timers.schedule(3, at(500 + TICK + 1));
    assert!(expired(&mut timers, 500 + 2 * TICK - 1).is_empty());
    assert_eq!(timers.next_deadline(), Some(at(500 + 2 * TICK)));
    assert_eq!(expired(&mut timers, 500 + 2 * TICK), [3]);
    assert!(timers.is_empty());
    assert_eq!(timers.next_deadline(), None);
}

#[test]
fn the_past_is_due_at_once() {
    let mut timers = Timers::new(DEFAULT_TICK, at(0));
    expired(&mut timers, 1000 * TICK);
    timers.schedule(0, at(5));
    assert_eq!(expired(&mut timers, 1000 * TICK), [0]);
}

#[test]
fn a_deadline_beyond_the_horizon_is_kept() {
    let mut timers = Timers::new(DEFAULT_TICK, at(0));
    timers.schedule(1, at(200 * DAY));
    timers.schedule(2, Time::MAX);
    for day in 1..200 {
        assert!(expired(&mut timers, day * DAY).is_empty());
    }
    assert_eq!(expired(&mut timers, 200 * DAY), [1]);
    assert!(expired(&mut timers, u64::MAX - TICK).is_empty());
    assert_eq!(timers.len(), 1);
}

#[test]
fn an_idle_timer_that_moves_within_its_bucket_touches_only_its_own_node() {
    let mut timers = Timers::new(DEFAULT_TICK, at(0));
    for slot in 0..100 {
        timers.schedule(slot, at(DAY));
    }
    let before = timers.steps;
    for message in 0..1000 {
        timers.schedule(50, at(DAY + message * TICK));
    }
    assert_eq!(timers.steps - before, 1000);
}

#[test]
fn earlier_buckets_expire_first_also_where_the_top_level_wraps() {
    let top_bucket = TICK << (DIGIT_BITS * TOP as u32);
    let mut timers = Timers::new(DEFAULT_TICK, at(0));
    expired(&mut timers, 62 * top_bucket);
    for (slot, ahead) in [(0, 5), (1, 1), (2, 3)] {
        timers.schedule(slot, at((62 + ahead) * top_bucket));
    }
    assert_eq!(expired(&mut timers, 70 * top_bucket), [1, 2, 0]);
}

#[test]
fn a_jump_of_centuries_touches_each_timer_once() {
    let mut timers = Timers::new(DEFAULT_TICK, at(0));
    for slot in 0..1000 {
        timers.schedule(slot, at(u64::from(slot) * DAY / 10));
    }
    timers.schedule(1000, Time::MAX);
    let before = timers.steps;
    assert_eq!(expired(&mut timers, u64::MAX - 10 * TICK).len(), 1000);
    assert!(
        timers.steps - before <= 1000 + 4,
        "took {} steps",
        timers.steps - before
    );
}

#[test]
#[cfg_attr(
    miri,
    ignore = "a hundred thousand of anything take minutes under an interpreter"
)]
fn a_hundred_thousand_flows_cost_a_few_steps_per_event() {
    const FLOWS: u32 = 100_000;
    const HOUR: u64 = DAY / 24;
    let mut random = fastrand::Rng::with_seed(7);
    let mut timers = Timers::new(DEFAULT_TICK, at(0));
    for slot in 0..FLOWS {
        timers.schedule(slot, at(HOUR));
    }
    let mut events = u64::from(FLOWS);
    let mut now = 0;
    // Two hours of traffic: some flows fall silent and expire, the others move their timers again and again.
    while now < 2 * HOUR {
        now += random.u64(0..40 * TICK);
        for _ in 0..8 {
            let timeout = if random.u8(..) < 16 {
                random.u64(0..60 * 250 * TICK)
            } else {
                HOUR
            };
            timers.schedule(random.u32(..FLOWS), at(now + timeout));
            events += 1;
        }
        timers.expire(at(now), &mut |_| {});
    }
    // Each event links and unlinks once; each timer moves down four levels at most, by two links and two unlinks each.
    assert!(
        timers.steps <= 8 * events,
        "{} steps for {events} events",
        timers.steps
    );
}

#[derive(Clone, Debug)]
enum Step {
    Schedule(u32, u64),
    Cancel(u32),
    Advance(u64),
    SleepUntilNext,
}

fn span() -> impl Strategy<Value = u64> {
    prop_oneof![0..10u64, 0..100 * TICK, 0..DAY, 0..100 * DAY, any::<u64>()]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..40u32, span()).prop_map(|(slot, wait)| Step::Schedule(slot, wait)),
        1 => (0..40u32).prop_map(Step::Cancel),
        2 => span().prop_map(Step::Advance),
        2 => Just(Step::SleepUntilNext),
    ];
    prop::collection::vec(step, 0..200)
}

proptest! {
    #[test]
    fn agrees_with_a_sorted_map(start in prop_oneof![Just(0), 0..DAY], steps in steps()) {
        let mut timers = Timers::new(DEFAULT_TICK, at(start));
        let mut model: BTreeMap<u32, u64> = BTreeMap::new();
        let mut now = start;
        for step in steps {
            match step {
                Step::Schedule(slot, wait) => {
                    timers.schedule(slot, at(now.saturating_add(wait)));
                    model.insert(slot, now.saturating_add(wait));
                }
                Step::Cancel(slot) => {
                    timers.cancel(slot);
                    model.remove(&slot);
                }
                Step::Advance(wait) => now = now.saturating_add(wait),
                Step::SleepUntilNext => {
                    if let Some(next) = timers.next_deadline() {
                        now = now.max(next.as_nanos());
                    }
                }
            }
            for slot in expired(&mut timers, now) {
                let deadline = model.remove(&slot);
                prop_assert!(deadline.is_some_and(|deadline| deadline <= now), "slot {slot} early: {deadline:?}");
            }
            for (slot, deadline) in &model {
                prop_assert!(timers.is_scheduled(*slot));
                let in_time = deadline.checked_add(TICK).is_none_or(|latest| latest > now);
                prop_assert!(in_time, "slot {slot} late: {deadline} at {now}");
            }
            prop_assert_eq!(timers.len(), model.len());
            prop_assert_eq!(timers.is_empty(), model.is_empty());
            let earliest = model.values().min();
            prop_assert_eq!(timers.next_deadline().is_some(), earliest.is_some());
            if let (Some(next), Some(&earliest)) = (timers.next_deadline(), earliest) {
                prop_assert!(next.as_nanos() < earliest.saturating_add(TICK) || earliest >= u64::MAX - TICK);
            }
        }
    }

    #[test]
    fn sleeping_until_next_takes_few_wakes(passed in 0..300 * DAY, wait in span()) {
        let mut timers = Timers::new(DEFAULT_TICK, at(0));
        expired(&mut timers, passed);
        timers.schedule(0, at(passed.saturating_add(wait)));
        let mut wakes = 0;
        while let Some(next) = timers.next_deadline() {
            if next == Time::MAX {
                break;
            }
            expired(&mut timers, next.as_nanos());
            wakes += 1;
            // Within the horizon one wake per level; beyond it one more per 49 days.
            prop_assert!(wakes <= 5 + wait / (48 * DAY), "{wakes} wakes");
            if wakes > 1000 {
                break;
            }
        }
    }

    #[test]
    fn survives_any_input(tick: u64, start: u64, calls in prop::collection::vec((0..4u8, any::<u64>()), 0..60)) {
        let mut timers = Timers::new(Duration::from_nanos(tick), at(start));
        for (call, value) in calls {
            match call {
                0 => timers.schedule((value % 64) as u32, at(value)),
                1 => timers.cancel(value as u32),
                2 => timers.expire(at(value), &mut |_| {}),
                _ => {
                    let _ = timers.next_deadline();
                }
            }
        }
        timers.schedule(NONE, at(1));
        prop_assert!(!timers.is_scheduled(NONE));
    }
}
