use proptest::prelude::*;

use super::*;

const LIMITS: ReachLimits = ReachLimits {
    failures: 3,
    successes: 2,
};

fn verdicts(answers: &[Answer]) -> Vec<Verdict> {
    let mut reach = Reach::default();
    let told = answers.iter().map(|&answer| {
        reach.told(answer, LIMITS);
        reach.verdict()
    });
    told.collect()
}

#[test]
fn the_first_answer_decides_and_others_need_a_row() {
    use Answer::{Accepted, Refused};
    use Verdict::{Refusing, Taking};
    assert_eq!(verdicts(&[Refused]), [Refusing]);
    assert_eq!(
        verdicts(&[Accepted, Refused, Refused, Refused, Accepted, Accepted]),
        [Taking, Taking, Taking, Refusing, Refusing, Taking]
    );
    assert_eq!(
        verdicts(&[Accepted, Refused, Refused, Accepted, Refused, Refused]),
        [Taking; 6]
    );
}

#[test]
fn only_refusals_close_and_who_says_nothing_opens_nothing() {
    use Answer::{Accepted, Failed, Refused, TimedOut, Unreachable};
    use Verdict::{Refusing, Taking, Unknown};
    assert_eq!(verdicts(&[Failed, TimedOut]), [Unknown, Taking]);
    assert_eq!(verdicts(&[Unreachable; 9]), [Taking; 9]);
    // What says nothing breaks no row.
    assert_eq!(
        verdicts(&[TimedOut, Refused, Refused, Failed, Refused]),
        [Taking, Taking, Taking, Taking, Refusing]
    );
    assert_eq!(
        verdicts(&[Refused, Unreachable, Accepted]),
        [Refusing, Refusing, Taking]
    );
    // Of a Service without pods most checks hear nothing, since its node sends one refusal a second.
    assert_eq!(
        verdicts(&[Accepted, Refused, TimedOut, Refused, TimedOut, Refused]),
        [Taking, Taking, Taking, Taking, Taking, Refusing]
    );
    assert_eq!(
        verdicts(&[Refused, TimedOut, TimedOut, TimedOut]),
        [Refusing; 4]
    );
}

#[test]
fn a_target_refuses_where_all_of_its_addresses_do() {
    use Answer::{Accepted, Failed, Refused, TimedOut};
    assert_eq!(Answer::of_all(&[]), None);
    assert_eq!(Answer::of_all(&[Refused, Refused]), Some(Refused));
    assert_eq!(Answer::of_all(&[Refused, Accepted]), Some(Accepted));
    assert_eq!(Answer::of_all(&[Refused, TimedOut]), Some(TimedOut));
    assert_eq!(Answer::of_all(&[Failed, Refused]), Some(Failed));
    for answer in Answer::ALL {
        assert_eq!(Answer::ALL[answer.index()], answer);
        assert_eq!(Answer::of_all(&[answer]), Some(answer));
    }
}

proptest! {
    /// Judged anew from the whole history, without any state: the verdict is that of the last row that was long enough.
    #[test]
    fn the_verdict_follows_from_the_rows_of_answers(
        answers in prop::collection::vec((0..5_usize).prop_map(|index| Answer::ALL[index]), 0..60),
        failures in 0..5_u32,
        successes in 0..5_u32,
    ) {
        let limits = ReachLimits { failures, successes };
        let mut reach = Reach::default();
        let mut heard: Vec<bool> = Vec::new();
        let mut expected = Verdict::Unknown;
        for answer in answers {
            let before = reach.verdict();
            let changed = reach.told(answer, limits);
            let says_nothing = answer == Answer::TimedOut && expected != Verdict::Unknown;
            if answer != Answer::Failed && !says_nothing {
                heard.push(answer == Answer::Refused);
                let refused = answer == Answer::Refused;
                let row = heard.iter().rev().take_while(|&&other| other == refused).count();
                let (needed, says) = if refused { (failures, Verdict::Refusing) } else { (successes, Verdict::Taking) };
                if expected == Verdict::Unknown || row >= needed.max(1) as usize {
                    expected = says;
                }
            }
            prop_assert_eq!(reach.verdict(), expected);
            prop_assert_eq!(changed.is_some(), before != expected);
        }
    }
}
