//! Years of renewals, seen by verifiers and replicas that are behind; and Secrets that were spoilt.

use proptest::prelude::*;

use super::*;

const DAY: u64 = 86_400;

fn terms() -> Terms {
    let more = ["10.0.0.7".to_owned()];
    Terms::for_service("ringside-controller", "ringside", &more).unwrap()
}

fn at(second: u64) -> Timestamp {
    // Some day in 2026.
    timestamp(1_790_000_000 + i64::try_from(second).unwrap())
}

fn written(secret: Option<&Contents>, now: Timestamp, terms: &Terms) -> (Contents, String) {
    match plan(secret, now, terms).unwrap() {
        Plan::Write { contents, reason } => (contents, reason),
        kept @ Plan::Keep { .. } => panic!("{kept:?}"),
    }
}

/// Plans until there is nothing to do; what stands then, and until when.
fn settled(mut secret: Option<Contents>, now: Timestamp, terms: &Terms) -> (Contents, Timestamp) {
    for _ in 0..6 {
        match plan(secret.as_ref(), now, terms).unwrap() {
            Plan::Write { contents, .. } => secret = Some(contents),
            Plan::Keep { until } => return (secret.expect("nothing is not kept"), until),
        }
    }
    panic!("there is always something to do");
}

/// What a verifier says that trusts one's bundle and is shown another's leaf.
fn accepts(
    trusts: &Contents,
    shown: &Contents,
    now: Timestamp,
    terms: &Terms,
) -> Result<(), Fault> {
    let seen = Contents {
        ca_crt: trusts.ca_crt.clone(),
        ..shown.clone()
    };
    reading::verify(&seen, terms.names(), now).map(|_| ())
}

fn cas(contents: &Contents) -> usize {
    reading::bundle(&contents.ca_crt).cas.len()
}

#[test]
fn a_ca_is_renewed_with_overlap() {
    let terms = terms();
    let (first, until) = settled(None, at(0), &terms);
    assert_eq!(cas(&first), 1);
    assert_eq!(until, at(20 * DAY), "two thirds of a leaf's 30 days");
    let (second, reason) = written(Some(&first), until, &terms);
    assert!(reason.contains("leaf's life"), "{reason}");
    assert_eq!(second.ca_crt, first.ca_crt);
    assert_ne!(second.tls_crt, first.tls_crt);

    // Two thirds of the CA's year.
    let mut secret = second;
    let mut now = until;
    while cas(&secret) == 1 {
        (secret, now) = {
            let (next, until) = settled(Some(secret), now, &terms);
            if cas(&next) == 1 {
                (next, until)
            } else {
                (next, now)
            }
        };
    }
    let joined = now;
    let third_of_a_year = 365 * DAY / 3;
    assert_eq!(joined, at(2 * third_of_a_year));
    let Plan::Keep { until } = plan(Some(&secret), joined, &terms).unwrap() else {
        panic!("the leaf stays while the new CA spreads");
    };
    assert_eq!(until, timestamp(joined.as_second() + 86_400));
    let (switched, reason) = written(Some(&secret), until, &terms);
    assert!(reason.contains("knows the new CA"), "{reason}");
    assert_eq!((cas(&switched), &switched.ca_key), (2, &secret.ca_key));

    // The one before leaves when the last leaf that it signed is over.
    let (mut secret, mut now) = settled(Some(switched), until, &terms);
    while cas(&secret) == 2 {
        (secret, now) = {
            let (next, until) = settled(Some(secret), now, &terms);
            if cas(&next) == 2 {
                (next, until)
            } else {
                (next, now)
            }
        };
    }
    assert_eq!(now, timestamp(joined.as_second() + 30 * 86_400 + 3_600));
}

#[test]
fn what_is_broken_is_mended_and_the_reason_told() {
    let terms = terms();
    let now = at(100);
    let (good, _) = settled(None, at(0), &terms);
    let (other, _) = settled(None, at(0), &terms);
    let broken = |change: &dyn Fn(&mut Contents)| {
        let mut contents = good.clone();
        change(&mut contents);
        contents
    };
    type Change<'a> = &'a dyn Fn(&mut Contents);
    let cases: [(&str, Change<'_>, bool); 12] = [
        ("ca.key is missing", &|c| c.ca_key.clear(), true),
        ("ca.crt is missing", &|c| c.ca_crt.clear(), false),
        ("tls.crt is missing", &|c| c.tls_crt.clear(), false),
        ("tls.key is missing", &|c| c.tls_key.clear(), false),
        (
            "ca.crt holds no certificate",
            &|c| c.ca_crt = "garbage".to_owned(),
            false,
        ),
        (
            "ca.key holds no private key",
            &|c| c.ca_key = "garbage".to_owned(),
            true,
        ),
        (
            "tls.crt holds no certificate",
            &|c| c.tls_crt = "\u{0}".to_owned(),
            false,
        ),
        (
            "tls.key holds no private key",
            &|c| c.tls_key.truncate(60),
            false,
        ),
        (
            "the key in ca.key does not fit ca.crt",
            &|c| c.ca_key.clone_from(&other.ca_key),
            true,
        ),
        (
            "the key in tls.key does not fit tls.crt",
            &|c| c.tls_key.clone_from(&other.tls_key),
            false,
        ),
        (
            "signed by none",
            &|c| {
                c.tls_crt.clone_from(&other.tls_crt);
                c.tls_key.clone_from(&other.tls_key);
            },
            false,
        ),
        (
            "the key in ca.key does not fit ca.crt",
            &|c| c.ca_crt.clone_from(&other.ca_crt),
            false,
        ),
    ];
    for (why, change, leaf_stays) in cases {
        let spoilt = broken(change);
        let (mended, reason) = written(Some(&spoilt), now, &terms);
        assert!(reason.contains(why), "{why}: {reason}");
        assert_eq!(mended.tls_crt == good.tls_crt, leaf_stays, "{why}");
        let (mended, _) = settled(Some(mended), now, &terms);
        assert_eq!(accepts(&mended, &mended, now, &terms), Ok(()), "{why}");
        // What is not ours is trusted by nobody.
        assert_eq!(cas(&mended), if leaf_stays { 2 } else { 1 }, "{why}");
    }
    // Not a CA: a leaf in its place, with the key that fits.
    let swapped = broken(&|c| {
        c.ca_crt.clone_from(&good.tls_crt);
        c.ca_key.clone_from(&good.tls_key);
    });
    let (_, reason) = written(Some(&swapped), now, &terms);
    assert!(reason.contains("none of a CA"), "{reason}");
}

#[test]
fn time_that_nobody_was_there_is_made_up_for() {
    let terms = terms();
    let (good, _) = settled(None, at(0), &terms);
    for (days, why) in [
        (29, "two thirds of the leaf"),
        (40, "tls.crt ended"),
        (300, "tls.crt ended"),
        (400, "ca.crt ended"),
    ] {
        let now = at(days * DAY);
        let (_, reason) = written(Some(&good), now, &terms);
        assert!(reason.contains(why), "{days}: {reason}");
        let (mended, _) = settled(Some(good.clone()), now, &terms);
        assert_eq!(accepts(&mended, &mended, now, &terms), Ok(()));
        if days < 365 {
            assert_eq!(accepts(&good, &mended, now, &terms), Ok(()), "{days}");
        }
    }
    // A clock that was set back by a year and more.
    let earlier = timestamp(at(0).as_second() - 86_400);
    let (_, reason) = written(Some(&good), earlier, &terms);
    assert!(reason.contains("clock that is ahead"), "{reason}");
}

#[test]
fn other_names_make_another_leaf_once_the_ca_may_sign() {
    let terms = terms();
    let (good, _) = settled(None, at(0), &terms);
    let more = ["10.0.0.7", "ringside.example"].map(str::to_owned);
    let wider = Terms::for_service("ringside-controller", "ringside", &more).unwrap();
    let (next, reason) = written(Some(&good), at(1), &wider);
    assert!(reason.contains("is not for ringside.example"), "{reason}");
    assert_eq!(accepts(&good, &next, at(1), &wider), Ok(()));
    // A key that is lost makes a new CA, and no verifier knows it yet.
    let lost = Contents {
        ca_key: String::new(),
        ..good
    };
    let (spreading, _) = written(Some(&lost), at(1), &wider);
    let (still, until) = settled(Some(spreading.clone()), at(2), &wider);
    assert_eq!((still, until), (spreading, at(1 + DAY)));
}

#[test]
fn a_secret_that_is_gone_costs_nobody_trust() {
    let terms = terms();
    let now = at(100);
    let (good, _) = settled(None, at(0), &terms);
    let garbage = Contents {
        tls_key: "garbage".to_owned(),
        ..good.clone()
    };
    let empty = Contents::default();
    for spoilt in [None, Some(&empty), Some(&garbage)] {
        let from = recovered(spoilt, Some(&good), now).unwrap();
        let (next, _) = settled(Some(from), now, &terms);
        assert_eq!(next.tls_crt, good.tls_crt);
        assert_eq!(accepts(&good, &next, now, &terms), Ok(()));
        // The CA's key was the reason, or is still there.
        let is_there = spoilt.is_some_and(|spoilt| !spoilt.ca_key.is_empty());
        assert_eq!(cas(&next), if is_there { 1 } else { 2 });
    }
    let (other, _) = settled(None, at(0), &terms);
    for (secret, last) in [
        (Some(&good), None),
        (Some(&other), Some(&good)),
        (Some(&good), Some(&good)),
        (None, None),
    ] {
        assert_eq!(recovered(secret, last, now), None);
    }
    // What is over is not worth it.
    assert_eq!(recovered(None, Some(&good), at(31 * DAY)), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    /// At every moment until a third CA is renewed, up to three years, every verifier that read the bundle some minutes ago accepts the leaf of every replica that
    /// reloaded some minutes ago, with its clock five minutes ahead or behind.
    #[test]
    fn nobody_is_ever_refused(
        leaf_days in 1u64..40,
        ca_by_leaf in 4u64..14,
        spread_percent in 20u64..=100,
        late_seed in any::<u64>(),
    ) {
        const BEHIND: i64 = 20 * 60;
        const CLOCK: i64 = 5 * 60;
        let leaf = leaf_days * DAY;
        let spread = (leaf / 6 * spread_percent / 100).max(3_600);
        let lives = [leaf * ca_by_leaf, leaf, spread].map(Duration::from_secs);
        let terms = terms().living(lives[0], lives[1], lives[2]).unwrap();
        let mut late = late_seed;
        let mut history: Vec<(i64, Contents)> = Vec::new();
        let mut now = at(0).as_second();
        let mut renewed = 0;
        while renewed < 3 {
            // A leader does what is to be done up to half an hour late: it was being elected, or its clock is behind.
            late = late.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            now += i64::try_from((late >> 33) % 1_800).unwrap();
            let before = history.last().map(|(_, contents)| contents.clone());
            let first = before.is_none();
            let (contents, until) = settled(before.clone(), timestamp(now), &terms);
            if Some(&contents) != before.as_ref() {
                renewed += usize::from(before.is_some_and(|before| before.ca_key != contents.ca_key));
                history.push((now, contents));
            }
            prop_assert!(until.as_second() > now, "{until} is over at {}", timestamp(now));
            let moments = [now, now + BEHIND / 2, now + BEHIND - 1, now + BEHIND, until.as_second() + 1_800];
            for moment in moments.into_iter().filter(|_| !first) {
                // What somebody may have read who is behind: all that stood since, and the one before.
                let since = history.partition_point(|(time, _)| *time <= moment - BEHIND);
                let known = &history[since.saturating_sub(1)..];
                for (_, trusts) in known {
                    for (_, shown) in known {
                        for clock in [-CLOCK, 0, CLOCK] {
                            let there = timestamp(moment + clock);
                            prop_assert_eq!(accepts(trusts, shown, there, &terms), Ok(()));
                        }
                    }
                }
            }
            history.drain(..history.len().saturating_sub(6));
            now = until.as_second();
        }
        // Three times two thirds of a CA's life.
        let least = 2 * i64::try_from(leaf * ca_by_leaf).unwrap();
        prop_assert!(now - at(0).as_second() >= least - 3, "CAs were renewed too early");
    }

    #[test]
    fn no_text_is_taken_for_more_than_it_is(crt in ".{0,200}", key in ".{0,200}", cut in 0usize..2_000) {
        let terms = terms();
        let now = at(10);
        let (good, _) = settled(None, at(0), &terms);
        let cut = |text: &str| text.chars().take(cut).collect::<String>();
        for spoilt in [
            Contents { ca_crt: crt.clone(), ca_key: key.clone(), tls_crt: crt.clone(), tls_key: key },
            Contents { ca_crt: format!("{}{crt}", good.ca_crt), ..good.clone() },
            Contents { ca_crt: cut(&good.ca_crt), ca_key: cut(&good.ca_key), tls_crt: cut(&good.tls_crt), tls_key: cut(&good.tls_key) },
        ] {
            let (mended, _) = settled(Some(spoilt), now, &terms);
            prop_assert_eq!(accepts(&mended, &mended, now, &terms), Ok(()));
        }
    }
}
