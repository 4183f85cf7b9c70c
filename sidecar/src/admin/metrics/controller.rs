//! What is said of the controller, only where there is one; and of leaves, always.

use ringside_api::sync::Leave;

use super::families::{Families, Kind};
use crate::process::State;
use crate::settings::controller::Outcome;

/// Adds its families.
pub(super) fn add(families: &mut Families, state: &State) {
    let (leaves, permit) = {
        let leaving = state.leaving();
        (leaving.counts(), leaving.permit())
    };
    families
        .family(
            "ringside_leaves_total",
            "Wishes to leave the Service for pressure, by outcome: left by its own rule (own), by the controller's grant (granted), by its permit (permitted); stayed as the controller denied it (denied), or as no answer came and it has no permit (unanswered).",
            Kind::Counter,
        )
        .add(&[("outcome", "own")], leaves.own as f64)
        .add(&[("outcome", "granted")], leaves.granted as f64)
        .add(&[("outcome", "permitted")], leaves.permitted as f64)
        .add(&[("outcome", "denied")], leaves.denied as f64)
        .add(&[("outcome", "unanswered")], leaves.unanswered as f64);
    leave_state(families, state.readiness().leave);
    let Some(view) = &state.view else {
        return;
    };
    let seen = view.seen();
    families
        .family(
            "ringside_controller_connected",
            "Whether there is a connection to the controller (1) or not (0); traffic does not depend on it.",
            Kind::Gauge,
        )
        .add(&[], f64::from(u8::from(seen.connected.is_some())));
    let calls = families.family(
        "ringside_sync_calls_total",
        "Calls to the controller, and attempts to make one, by how they came out; superseded is one given up for newer state.",
        Kind::Counter,
    );
    for outcome in Outcome::ALL {
        calls.add(&[("outcome", outcome.label())], view.calls(outcome) as f64);
    }
    families
        .family(
            "ringside_leave_permit",
            "Whether the controller has given a permit to leave for pressure when no answer of it comes (1) or not (0).",
            Kind::Gauge,
        )
        .add(&[], f64::from(u8::from(permit)));
}

fn leave_state(families: &mut Families, now: Leave) {
    let family = families.family(
        "ringside_leave_state",
        "Where the pod stands on leaving the Service for pressure: 1 for the state that holds. It has no reason to leave (stays), would leave and is still there (wants), has left (away).",
        Kind::Gauge,
    );
    for (leave, state) in [
        (Leave::Stays, "stays"),
        (Leave::Wants, "wants"),
        (Leave::Away, "away"),
    ] {
        family.add(&[("state", state)], f64::from(u8::from(leave == now)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_leave_state_holds_at_a_time() {
        for (now, at) in [(Leave::Stays, 0), (Leave::Wants, 1), (Leave::Away, 2)] {
            let mut families = Families::default();
            leave_state(&mut families, now);
            let written = families.into_families();
            let values: Vec<f64> = written[0]
                .get_metric()
                .iter()
                .map(|metric| metric.get_gauge().get_value())
                .collect();
            let mut wanted = [0.0; 3];
            wanted[at] = 1.0;
            assert_eq!(values, wanted, "{now:?}");
        }
    }
}
