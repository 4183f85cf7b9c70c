//! What is said of the controller, only where there is one; and of leaves, always.

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
        "ringside_controller_calls_total",
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
