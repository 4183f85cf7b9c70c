use proptest::prelude::*;

use super::*;

fn at(millis: u64) -> Time {
    Time::ZERO.saturating_add(Duration::from_millis(millis))
}

fn granted(for_millis: u64) -> Option<LeaveAnswer> {
    Some(LeaveAnswer::Granted { for_millis })
}

fn denied() -> Option<LeaveAnswer> {
    Some(LeaveAnswer::Denied("5 of 10 are away".to_owned()))
}

#[test]
fn alone_it_leaves_at_once() {
    let mut leaving = Leaving::new(Rule::Own, false);
    assert_eq!(leaving.judge(true, at(0)), Stand::Away(By::Own));
    assert!(!leaving.asks(at(0)));
    assert_eq!(leaving.judge(false, at(1)), Stand::Stays);
    assert_eq!(leaving.counts().own, 1);
}

#[test]
fn a_grant_ends_unless_it_is_renewed() {
    let mut leaving = Leaving::new(Rule::Asked, false);
    assert_eq!(leaving.judge(true, at(0)), Stand::Wants(Why::Asks));
    assert!(leaving.asks(at(0)));
    leaving.asked(at(0));
    assert!(!leaving.asks(at(10)), "one question at a time");
    leaving.answered(false, granted(1000).as_ref(), at(0));
    assert_eq!(leaving.judge(true, at(400)), Stand::Away(By::Grant));
    assert!(!leaving.asks(at(499)));
    assert!(leaving.asks(at(500)), "half-way it asks again");
    leaving.asked(at(500));
    leaving.answered(false, granted(1000).as_ref(), at(500));
    assert_eq!(leaving.judge(true, at(1400)), Stand::Away(By::Grant));
    assert_eq!(leaving.judge(true, at(1500)), Stand::Wants(Why::Asks));
    assert_eq!(leaving.judge(true, at(2500)), Stand::Wants(Why::NoPermit));
    assert_eq!(
        (leaving.counts().granted, leaving.counts().unanswered),
        (1, 1)
    );
}

#[test]
fn with_a_permit_it_stays_away_when_a_grant_ends_unanswered() {
    let mut leaving = Leaving::new(Rule::Asked, true);
    leaving.judge(true, at(0));
    leaving.answered(true, granted(1000).as_ref(), at(0));
    leaving.asked(at(900));
    assert_eq!(leaving.judge(true, at(1000)), Stand::Away(By::Permit));
    leaving.answered(true, denied().as_ref(), at(1100));
    assert!(matches!(
        leaving.judge(true, at(1100)),
        Stand::Wants(Why::Denied(_))
    ));
}

#[test]
fn without_an_answer_the_permit_decides() {
    let mut holder = Leaving::new(Rule::Asked, true);
    assert_eq!(holder.judge(true, at(0)), Stand::Wants(Why::Asks));
    assert_eq!(holder.judge(true, at(999)), Stand::Wants(Why::Asks));
    assert_eq!(holder.judge(true, at(1000)), Stand::Away(By::Permit));
    // Withdrawn by an answer: back, though nothing was said of leaving.
    holder.answered(false, None, at(1200));
    assert_eq!(holder.judge(true, at(1200)), Stand::Wants(Why::NoPermit));
    let mut other = Leaving::new(Rule::Asked, false);
    other.judge(true, at(0));
    assert_eq!(other.judge(true, at(9000)), Stand::Wants(Why::NoPermit));
}

#[test]
fn a_denial_holds_until_its_controller_is_lost() {
    let mut leaving = Leaving::new(Rule::Asked, true);
    leaving.judge(true, at(0));
    leaving.answered(true, denied().as_ref(), at(10));
    let stays = |stand| matches!(stand, Stand::Wants(Why::Denied(_)));
    assert!(stays(leaving.judge(true, at(60_000))));
    leaving.lost(at(60_000));
    assert!(stays(leaving.judge(true, at(60_999))));
    assert_eq!(leaving.judge(true, at(61_000)), Stand::Away(By::Permit));
    assert_eq!(
        (leaving.counts().denied, leaving.counts().permitted),
        (1, 1)
    );
}

#[test]
fn a_denial_is_repeated_short_and_printable() {
    let mut leaving = Leaving::new(Rule::Asked, false);
    leaving.judge(true, at(0));
    let why = format!("no\n\u{1b}[2J{}", "x".repeat(10_000));
    leaving.answered(false, Some(&LeaveAnswer::Denied(why)), at(0));
    let Stand::Wants(Why::Denied(why)) = leaving.judge(true, at(0)) else {
        panic!("it was denied")
    };
    assert!(why.len() == 200 && why.starts_with("no[2J"), "{why}");
}

#[derive(Clone, Debug)]
enum Event {
    Pressed(bool),
    Asked,
    Lost,
    Answered(bool, Option<LeaveAnswer>),
}

fn events() -> impl Strategy<Value = Vec<(u64, Event)>> {
    let leave = prop_oneof![
        Just(None),
        (0..4000_u64).prop_map(granted),
        Just(denied()),
        Just(granted(u64::MAX)),
    ];
    let event = prop_oneof![
        3 => prop::bool::weighted(0.8).prop_map(Event::Pressed),
        1 => Just(Event::Asked),
        1 => Just(Event::Lost),
        3 => (any::<bool>(), leave).prop_map(|(permit, leave)| Event::Answered(permit, leave)),
    ];
    prop::collection::vec((0..1500_u64, event), 1..60)
}

proptest! {
    /// Whatever happens: away only under pressure, and only with a grant that runs or a permit.
    #[test]
    fn it_is_never_away_without_leave(permit: bool, events in events()) {
        let mut leaving = Leaving::new(Rule::Asked, permit);
        let (mut now, mut pressed, mut permit) = (0, false, permit);
        let (mut began, mut grant_until, mut said_no) = (0, 0_u64, false);
        for (passed, event) in events {
            now += passed;
            match event {
                Event::Pressed(is) => {
                    if is && !pressed {
                        (began, grant_until, said_no) = (now, 0, false);
                    }
                    pressed = is;
                }
                Event::Asked => {
                    leaving.asked(at(now));
                    said_no = false;
                }
                Event::Lost => {
                    leaving.lost(at(now));
                    said_no = false;
                }
                Event::Answered(held, leave) => {
                    // Only an answer that comes while it is known to be pressed counts.
                    leaving.judge(pressed, at(now));
                    leaving.answered(held, leave.as_ref(), at(now));
                    permit = held;
                    match leave {
                        Some(LeaveAnswer::Granted { for_millis }) if pressed => {
                            grant_until = now + for_millis.min(600_000);
                            said_no = false;
                        }
                        Some(LeaveAnswer::Denied(_)) if pressed => {
                            (grant_until, said_no) = (0, true);
                        }
                        _ => {}
                    }
                }
            }
            match leaving.judge(pressed, at(now)) {
                Stand::Stays => prop_assert!(!pressed),
                Stand::Away(by) => {
                    prop_assert!(pressed && !said_no);
                    match by {
                        By::Grant => prop_assert!(now < grant_until),
                        By::Permit => prop_assert!(permit && (grant_until > 0 || now >= began + 1000)),
                        By::Own => prop_assert!(false, "there is a controller"),
                    }
                }
                Stand::Wants(why) => {
                    prop_assert!(pressed && now >= grant_until);
                    prop_assert!(why != Why::NoPermit || !permit);
                }
            }
        }
    }
}
