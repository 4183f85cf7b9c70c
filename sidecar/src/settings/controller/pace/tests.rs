//! Waits of one sidecar, and of ten thousand at once.

use proptest::prelude::*;

use super::*;

fn gone() -> Failure {
    Failure::Unreachable(String::new())
}

fn to_leader() -> Failure {
    Failure::Redirected {
        why: String::new(),
        leader: Some(([10, 0, 0, 1], 1).into()),
    }
}

#[test]
fn waits_grow_from_a_fifth_of_a_second_to_ten_seconds() {
    let mut pace = Pace::new();
    let waits: Vec<_> = (0..12)
        .map(|_| pace.after_failure(&gone(), false, u64::MAX).as_millis())
        .collect();
    assert_eq!(waits[..4], [200, 400, 800, 1600]);
    assert_eq!(waits[6..], [10_000; 6]);
    pace.after_answer(HELD_LEAST, false, 0);
    let waits: Vec<_> = (0..9)
        .map(|_| pace.after_failure(&gone(), true, u64::MAX).as_millis())
        .collect();
    assert_eq!(waits[..5], [200, 400, 800, 1600, 2000]);
    assert_eq!(waits[7..], [2000, 10_000]);
    pace.after_answer(HELD_LEAST, false, 0);
    assert_eq!(
        pace.after_failure(&gone(), false, u64::MAX).as_millis(),
        200
    );
}

#[test]
fn one_word_of_a_leader_is_followed_at_once_and_a_ring_of_them_is_not() {
    let mut pace = Pace::new();
    assert_eq!(pace.after_failure(&to_leader(), false, 9), Duration::ZERO);
    assert!(pace.after_failure(&to_leader(), false, u64::MAX) >= Duration::from_millis(200));
    pace.after_answer(Duration::ZERO, true, 0);
    assert_eq!(pace.after_failure(&to_leader(), false, 9), Duration::ZERO);
}

#[test]
fn empty_answers_that_come_too_soon_are_not_asked_for_in_a_storm() {
    let mut pace = Pace::new();
    let soon = Duration::from_millis(1);
    assert_eq!(pace.after_answer(soon, true, u64::MAX), Duration::ZERO);
    let total: Duration = (0..20)
        .map(|_| pace.after_answer(soon, false, u64::MAX))
        .sum();
    assert!(total > Duration::from_secs(60), "{total:?}");
    assert_eq!(
        pace.after_answer(HELD_LEAST, false, u64::MAX),
        Duration::ZERO
    );
}

/// What a fleet does that loses its controller at 0.
struct Return {
    /// The most attempts that began in any second.
    peak: u32,
    /// When the last was back, since the controller was.
    took: Duration,
}

/// A fleet whose controller is gone for so long, and then answers everybody. `first` is what they meet at 0.
fn lose(sidecars: u32, gone_for: Duration, first: &Failure, seed: u64) -> Return {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut seconds = vec![0; 600];
    let mut last = Duration::ZERO;
    for _ in 0..sidecars {
        let mut pace = Pace::new();
        pace.told_sidecars(sidecars);
        pace.after_answer(HELD_LEAST, false, 0);
        let mut now = pace.after_failure(first, false, random.u64(..));
        loop {
            seconds[now.as_secs() as usize] += 1;
            if now >= gone_for {
                break;
            }
            now += pace.after_failure(&gone(), false, random.u64(..));
        }
        last = last.max(now - gone_for);
    }
    Return {
        peak: seconds.into_iter().max().unwrap_or(0),
        took: last,
    }
}

#[test]
fn a_handful_is_back_soon() {
    for seed in 0..50 {
        let back = lose(50, Duration::from_secs(1), &gone(), seed);
        assert!(back.took <= Duration::from_secs(2), "{:?}", back.took);
        let back = lose(50, Duration::ZERO, &gone(), seed);
        assert!(back.took <= WAIT_FIRST, "{:?}", back.took);
    }
}

/// Twenty seconds after the first time, when each is held and none has been answered.
#[test]
fn a_controller_that_is_lost_twice_in_a_row_is_not_stormed() {
    let mut random = fastrand::Rng::with_seed(11);
    let mut seconds = [0; 60];
    let second_loss = Duration::from_secs(20);
    for _ in 0..10_000 {
        let mut pace = Pace::new();
        pace.told_sidecars(10_000);
        let back = pace.after_failure(&gone(), false, random.u64(..));
        pace.after_hold(second_loss - back);
        let again = second_loss + pace.after_failure(&gone(), false, random.u64(..));
        for at in [back, again] {
            seconds[at.as_secs() as usize] += 1;
        }
    }
    let peak = seconds.into_iter().max().unwrap_or(0);
    assert!(peak <= 720, "{peak} in a second");
}

/// Handshakes that are given up because there are too many are tried again: sooner, they would be too many for ever.
#[test]
fn a_fleet_under_pressure_does_not_keep_a_controller_from_coming_back() {
    let mut random = fastrand::Rng::with_seed(7);
    let mut seconds = [0; 120];
    for _ in 0..10_000 {
        let mut pace = Pace::new();
        pace.told_sidecars(10_000);
        let mut now = Duration::ZERO;
        loop {
            now += pace.after_failure(&gone(), true, random.u64(..));
            match seconds.get_mut(now.as_secs() as usize) {
                Some(attempts) => *attempts += 1,
                None => break,
            }
        }
    }
    let soon: u32 = seconds[..20].iter().sum();
    assert!(soon > 40_000, "they try often at first: {soon}");
    for (second, attempts) in seconds.iter().enumerate().skip(45) {
        assert!(*attempts <= 720, "{attempts} in second {second}");
    }
}

proptest! {
    #[test]
    fn a_wait_that_was_asked_for_is_kept_and_spread(seconds in 0..300_u64, random: u64) {
        let wait = Some(Duration::from_secs(seconds));
        let failure = Failure::Busy { why: String::new(), wait };
        let waits = Pace::new().after_failure(&failure, true, random);
        prop_assert!(waits >= Duration::from_secs(seconds));
        prop_assert!(waits <= Duration::from_secs(seconds + seconds / 2 + 1));
    }

    /// Whatever is said of the fleet's size, and however often it fails.
    #[test]
    fn a_wait_for_a_controller_that_is_gone_has_bounds(
        sidecars: u32, steps in prop::collection::vec((any::<bool>(), any::<u64>()), 1..40)
    ) {
        let mut pace = Pace::new();
        pace.told_sidecars(sidecars);
        for (tries, (pressed, random)) in (0..).zip(steps) {
            let waits = pace.after_failure(&gone(), pressed, random);
            prop_assert!(waits >= WAIT_LEAST);
            prop_assert!(waits <= Duration::from_secs(20));
            prop_assert!(!pressed || tries >= PRESSED_TRIES || waits <= Duration::from_secs(5));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Ten thousand, whose controller is away for any time or has another leader: no storm, and all back within half a minute.
    #[test]
    fn ten_thousand_come_back_without_a_storm(millis in 0..90_000_u64, redirected: bool, seed: u64) {
        let first = if redirected { to_leader() } else { gone() };
        let back = lose(10_000, Duration::from_millis(millis), &first, seed);
        prop_assert!(back.peak <= 720, "{} in a second", back.peak);
        prop_assert!(back.took <= Duration::from_secs(20), "{:?}", back.took);
    }
}
