use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn source(text: &str) -> Source {
    Source::of(text.parse().unwrap())
}

#[test]
fn ipv6_counts_by_network_and_ipv4_by_address_however_it_came() {
    assert_eq!(source("2001:db8:1:2::1"), source("2001:db8:1:2:ffff::9"));
    assert_ne!(source("2001:db8:1:2::1"), source("2001:db8:1:3::1"));
    assert_ne!(source("10.0.0.1"), source("10.0.0.2"));
    assert_eq!(source("10.0.0.1"), source("::ffff:10.0.0.1"));
    assert_ne!(source("::1"), source("0.0.0.0"));
    assert_eq!(source("10.0.0.1").to_string(), "10.0.0.1");
    assert_eq!(source("2001:db8:1:2::1").to_string(), "2001:db8:1:2::/64");
}

#[test]
fn room_is_given_back_with_the_connections() {
    // An interpreter would take an hour for as many as there may be.
    const COUNT: u32 = if cfg!(miri) { 1_000 } else { 100_000 };
    let mut sources = Sources::default();
    let all: Vec<Source> = (0..COUNT).map(|n| Source::V4(n.to_be_bytes())).collect();
    for &source in &all {
        assert!(sources.admit(source, 1));
        assert!(!sources.admit(source, 1));
    }
    assert_eq!((sources.len(), sources.most()), (COUNT as usize, 1));
    for &source in &all {
        sources.release(source);
        assert!(sources.open.capacity() <= 2 * ROOM_KEPT.max(4 * sources.len()));
    }
    assert!(sources.is_empty());
}

#[test]
fn refusals_are_told_of_once_as_they_begin_and_once_when_they_are_over() {
    let at = |seconds| Time::ZERO.saturating_add(Duration::from_secs(seconds));
    let mut telling = Telling::default();
    assert_eq!(telling.look(0, at(1)), None);
    assert_eq!(telling.look(3, at(2)), Some(Told::Begun));
    assert_eq!(telling.look(9, at(9)), None);
    assert_eq!(telling.look(9, at(18)), None);
    assert_eq!(telling.look(9, at(19)), Some(Told::Ended { refused: 9 }));
    assert_eq!(telling.look(9, at(99)), None);
    assert_eq!(telling.look(10, at(100)), Some(Told::Begun));
    assert_eq!(telling.look(10, at(110)), Some(Told::Ended { refused: 1 }));
}

/// One thing that happens: a connection comes from a source, or the nth that is open ends, or the limit changes.
#[derive(Clone, Debug)]
enum Step {
    Comes(u8),
    Ends(usize),
    Limit(u32),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..6_u8).prop_map(Step::Comes),
        5 => any::<usize>().prop_map(Step::Ends),
        1 => (0..5_u32).prop_map(Step::Limit),
    ]
}

proptest! {
    #[test]
    fn counts_are_those_of_the_connections_that_are_open(steps in prop::collection::vec(step(), 0..400)) {
        let mut sources = Sources::default();
        let mut open: Vec<Source> = Vec::new();
        let mut limit = 0;
        for step in steps {
            match step {
                Step::Limit(new) => limit = new,
                Step::Comes(who) => {
                    let source = Source::V4([10, 0, 0, who]);
                    let has = open.iter().filter(|&&known| known == source).count() as u32;
                    let admitted = sources.admit(source, limit);
                    prop_assert_eq!(admitted, limit == 0 || has < limit);
                    if admitted {
                        open.push(source);
                    }
                }
                Step::Ends(_) if open.is_empty() => {
                    // What was never admitted changes nothing.
                    sources.release(Source::V4([1, 1, 1, 1]));
                }
                Step::Ends(which) => sources.release(open.swap_remove(which % open.len())),
            }
            let mut counts: BTreeMap<Source, u32> = BTreeMap::new();
            for &source in &open {
                *counts.entry(source).or_default() += 1;
            }
            prop_assert_eq!(sources.len(), counts.len());
            prop_assert_eq!(sources.most(), counts.values().copied().max().unwrap_or(0));
            for (source, count) in counts {
                prop_assert_eq!(sources.of(source), count);
            }
        }
    }
}
