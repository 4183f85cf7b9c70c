//! What holds for a flow whatever happens to it.

use proptest::prelude::*;

use super::plan::{Plan, cooperative_plans, plans};
use super::world::{End, HEADER_BYTES, World};
use crate::flow::{CloseReason, Side};

fn expected_bytes(plan: &Plan, to: Side) -> u64 {
    let header = if plan.header && to == Side::Upstream {
        u64::from(HEADER_BYTES)
    } else {
        0
    };
    header + u64::from(plan.bytes[to.other() as usize])
}

fn check(plan: &Plan, end: &End) {
    assert!(
        end.reason == CloseReason::Finished || end.causes.contains(&end.reason),
        "closed as {:?}, for which there was no cause but {:?}",
        end.reason,
        end.causes
    );
    match end.reason {
        CloseReason::Finished => {
            assert!(!end.reset, "a clean end resets");
            for side in Side::BOTH {
                let taken = end.sockets[side as usize].taken;
                assert_eq!(taken, expected_bytes(plan, side), "a clean end cuts short");
            }
        }
        // Without a reset only if nothing is cut short, which the world has checked.
        CloseReason::IdleTimeout | CloseReason::HalfCloseTimeout => {}
        reason => assert!(end.reset, "{reason:?} is passed on as a clean end"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_every_byte_arrives_once_or_the_flow_ends_for_a_reason(plan in plans()) {
        let end = World::new(plan.clone()).run();
        check(&plan, &end);
    }

    #[test]
    fn peers_that_cooperate_get_everything_however_slow(plan in cooperative_plans()) {
        let end = World::new(plan.clone()).run();
        check(&plan, &end);
        let failed_to_connect = [CloseReason::ConnectFailed, CloseReason::ConnectTimeout, CloseReason::ConnectRefused];
        if !failed_to_connect.contains(&end.reason) {
            prop_assert_eq!(end.reason, CloseReason::Finished);
        }
    }
}
