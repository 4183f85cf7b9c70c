//! Storms by example, and what must hold for any course of pushback.

use proptest::prelude::*;

use super::*;

fn at_millis(millis: u64) -> Time {
    Time::from_nanos(millis * 1_000_000)
}

/// One worker on a clock of milliseconds; remembers when its readiness flipped.
struct Worker {
    readiness: Readiness,
    now: u64,
    ready: bool,
    flips: Vec<u64>,
}

impl Worker {
    fn new(limits: ReadinessLimits) -> Self {
        Worker {
            readiness: Readiness::new(limits),
            now: 0,
            ready: true,
            flips: Vec::new(),
        }
    }

    fn judge(&mut self) -> Verdict {
        let verdict = self.readiness.verdict(at_millis(self.now));
        if verdict.ready != self.ready {
            self.ready = verdict.ready;
            self.flips.push(self.now);
        }
        verdict
    }

    /// Ten submissions a millisecond, all taken.
    fn busy(&mut self, millis: u64) {
        for _ in 0..millis {
            self.now += 1;
            self.readiness.record(10, 0, at_millis(self.now));
            self.judge();
        }
    }

    /// A refused submission every 40 ms, and backoff between.
    fn storm(&mut self, millis: u64) {
        for step in 0..millis {
            if step % 40 == 0 {
                self.readiness.backoff_ended(at_millis(self.now));
                self.readiness.record(1, 1, at_millis(self.now));
                self.readiness.backoff_began(at_millis(self.now));
            }
            self.now += 1;
            self.judge();
        }
        self.readiness.backoff_ended(at_millis(self.now));
    }

    fn idle(&mut self, millis: u64) {
        for _ in 0..millis {
            self.now += 1;
            self.judge();
        }
    }
}

#[test]
fn leaves_two_seconds_into_a_storm_and_returns_ten_after_it() {
    let mut worker = Worker::new(ReadinessLimits::default());
    worker.busy(5_050);
    worker.storm(4_000);
    worker.busy(15_000);
    let [left, returned] = worker.flips[..] else {
        panic!("flips at {:?}", worker.flips)
    };
    assert!(
        (7_000..=7_200).contains(&left),
        "left at {left}, the storm began at 5050"
    );
    assert!(
        (19_050..=20_100).contains(&returned),
        "returned at {returned}, the storm ended at 9050"
    );
}

#[test]
fn a_storm_shorter_than_its_patience_is_borne() {
    let mut worker = Worker::new(ReadinessLimits::default());
    for _ in 0..10 {
        worker.busy(2_000);
        worker.storm(900);
    }
    assert!(worker.flips.is_empty());
}

#[test]
fn one_long_wait_in_backoff_is_pushback_and_not_idleness() {
    let mut worker = Worker::new(ReadinessLimits::default());
    worker.readiness.record(1, 1, at_millis(0));
    worker.readiness.backoff_began(at_millis(0));
    worker.idle(4_000);
    assert_eq!(worker.flips.len(), 1);
    assert_eq!(worker.judge().share_percent, 100);
    worker.readiness.backoff_ended(at_millis(worker.now));
    worker.idle(12_000);
    assert!(worker.ready);
}

#[test]
fn without_traffic_a_worker_is_ready_and_asks_for_nothing() {
    let mut worker = Worker::new(ReadinessLimits::default());
    worker.idle(5_000);
    assert_eq!(
        worker.judge(),
        Verdict {
            share_percent: 0,
            sustained_since: None,
            ready: true
        }
    );
    assert_eq!(worker.readiness.next_change(at_millis(5_000)), None);
}

#[test]
fn one_refused_submission_of_an_idle_worker_is_forgotten() {
    let mut worker = Worker::new(ReadinessLimits::default());
    worker.readiness.record(1, 1, at_millis(0));
    worker.idle(5_000);
    assert!(worker.flips.is_empty());
}

#[test]
fn quiet_is_below_half_of_the_mark() {
    for (refused, returns) in [(30, false), (20, true)] {
        let mut worker = Worker::new(ReadinessLimits::default());
        worker.storm(3_000);
        for _ in 0..2_000 {
            worker.now += 10;
            worker.readiness.record(100, refused, at_millis(worker.now));
            worker.judge();
        }
        assert_eq!(worker.ready, returns, "{refused} % refused after the storm");
    }
}

#[test]
fn report_tells_and_stays() {
    let mut worker = Worker::new(ReadinessLimits {
        mode: ReadinessMode::Report,
        ..ReadinessLimits::default()
    });
    worker.storm(3_000);
    let verdict = worker.judge();
    assert!(verdict.ready && verdict.sustained_since.is_some());
    let overall = overall([
        Verdict {
            ready: true,
            ..Verdict::default()
        },
        verdict,
    ]);
    assert!(overall.ready);
    assert_eq!(overall.pressed.map(|pressed| pressed.worker), Some(1));
}

#[test]
fn one_worker_makes_the_process_unready_and_is_named() {
    let verdict = |share_percent, ready: bool| Verdict {
        share_percent,
        sustained_since: (!ready).then_some(at_millis(7)),
        ready,
    };
    assert_eq!(
        overall([verdict(90, true), verdict(10, true)]),
        Overall {
            ready: true,
            pressed: None
        }
    );
    let judged = overall([verdict(90, true), verdict(60, false), verdict(80, false)]);
    assert!(!judged.ready);
    assert_eq!(
        judged.pressed,
        Some(Pressed {
            worker: 2,
            share_percent: 80,
            since: at_millis(7)
        })
    );
}

#[test]
fn waking_only_when_told_flips_at_the_same_time() {
    let mut readiness = Readiness::new(ReadinessLimits::default());
    readiness.record(1, 1, at_millis(0));
    readiness.backoff_began(at_millis(0));
    let (mut now, mut wakes) = (at_millis(0), 0);
    while readiness.verdict(now).ready {
        now = readiness
            .next_change(now)
            .expect("a worker in backoff has something to wait for");
        wakes += 1;
        assert!(wakes < 60, "still ready after {wakes} wakes");
    }
    assert!(now <= at_millis(2_000), "left at {now:?}");
    readiness.backoff_ended(now);
    let ended = now;
    while let Some(next) = readiness.next_change(now) {
        now = next;
        readiness.verdict(now);
        wakes += 1;
    }
    assert!(readiness.verdict(now).ready);
    assert!(now.saturating_since(ended) <= Duration::from_secs(11));
    assert!(wakes < 60, "{wakes} wakes");
}

#[derive(Clone, Debug)]
enum Event {
    Record(u32, u32),
    Began,
    Ended,
}

fn events() -> impl Strategy<Value = Event> {
    prop_oneof![
        3 => (0..20u32, 0..20u32).prop_map(|(attempts, pushed_back)| Event::Record(attempts, pushed_back)),
        1 => Just(Event::Began),
        1 => Just(Event::Ended),
    ]
}

fn tell(readiness: &mut Readiness, event: &Event, now: Time) {
    match *event {
        Event::Record(attempts, pushed_back) => readiness.record(attempts, pushed_back, now),
        Event::Began => readiness.backoff_began(now),
        Event::Ended => readiness.backoff_ended(now),
    }
}

proptest! {
    #[test]
    fn no_flapping(course in prop::collection::vec((0..700u64, events()), 1..400)) {
        let mut worker = Worker::new(ReadinessLimits::default());
        for (gap, event) in &course {
            worker.now += gap;
            tell(&mut worker.readiness, event, at_millis(worker.now));
            worker.judge();
        }
        // Each time away lasts at least the 10 s of quiet that end it.
        let away = worker.flips.len() as u64;
        prop_assert!(away <= 2 * (worker.now / 10_000) + 1, "{away} flips in {} ms", worker.now);
    }

    #[test]
    fn clean_submissions_never_flip(course in prop::collection::vec((0..700u64, 0..1000u32), 1..200)) {
        let mut worker = Worker::new(ReadinessLimits { unready_after: Duration::ZERO, ..ReadinessLimits::default() });
        for (gap, attempts) in course {
            worker.now += gap;
            worker.readiness.record(attempts, 0, at_millis(worker.now));
            prop_assert_eq!(worker.judge(), Verdict { share_percent: 0, sustained_since: None, ready: true });
        }
    }

    #[test]
    fn a_steady_share_is_judged_by_the_mark(percent in 1..101u8, refused in 0..101u32) {
        let mut worker = Worker::new(ReadinessLimits { pushback_percent: percent, ..ReadinessLimits::default() });
        for _ in 0..400 {
            worker.now += 10;
            worker.readiness.record(100, refused, at_millis(worker.now));
            worker.judge();
        }
        prop_assert_eq!(worker.ready, refused < u32::from(percent));
        prop_assert_eq!(u32::from(worker.judge().share_percent), refused);
    }

    #[test]
    fn survives_any_input(
        limits: (u8, Duration, Duration, bool),
        course in prop::collection::vec((any::<u64>(), events(), any::<u32>(), any::<u32>()), 0..80),
    ) {
        let mut readiness = Readiness::new(ReadinessLimits::default());
        for (index, (now, event, attempts, pushed_back)) in course.iter().enumerate() {
            let now = Time::from_nanos(*now);
            if index == 7 {
                readiness.set_limits(ReadinessLimits {
                    mode: if limits.3 { ReadinessMode::Leave } else { ReadinessMode::Report },
                    pushback_percent: limits.0,
                    unready_after: limits.1,
                    recover_after: limits.2,
                });
            }
            tell(&mut readiness, event, now);
            readiness.record(*attempts, *pushed_back, now);
            let verdict = readiness.verdict(now);
            prop_assert!(verdict.share_percent <= 100);
            prop_assert!(readiness.next_change(now).is_none_or(|next| next >= now));
        }
    }
}
