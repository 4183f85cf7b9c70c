//! The process as its controller sees it: what is told, and what a controller may change. It owns no decision.

use std::sync::{Arc, MutexGuard};

use ringside_api::sync::{self, RefusedOffer};

use super::State;
use super::judging::Phase;
use super::taking::take_assignment;
use crate::pressure::leave::Leaving;
use crate::settings::Assignment;
use crate::settings::controller::{Host, Look, View};
use crate::time::Time;
use crate::worker::team::RelayCounts;

/// A process that has a controller.
pub(super) struct Synced {
    pub(super) state: Arc<State>,
    pub(super) view: Arc<View>,
}

impl Host for Synced {
    fn now(&self) -> Time {
        self.state.now()
    }

    fn look(&self) -> Look {
        let judged = self.state.readiness();
        Look {
            ready: judged.ready,
            cause: judged.cause,
            leave: judged.leave,
            backend: self
                .state
                .team
                .backends()
                .first()
                .map_or("", |report| report.name),
            draining: self.state.phase() == Phase::Draining,
        }
    }

    fn state(&self) -> sync::State {
        let judged = self.state.readiness();
        let stats = self.state.team.stats();
        let pressed_since = stats
            .iter()
            .filter_map(|stats| stats.sustained_since.get().checked_sub(1))
            .min();
        let pressed_for = pressed_since.map(|since| {
            self.state
                .now()
                .saturating_since(Time::from_nanos(since))
                .as_millis()
        });
        let backend = self.state.team.backends().into_iter().next();
        let pushback = stats.iter().map(|stats| stats.pushback_percent.get()).max();
        sync::State {
            ready: judged.ready,
            reason: judged.reason,
            draining: self.state.phase() == Phase::Draining,
            leave: judged.leave,
            pushback_percent: pushback.unwrap_or(0).min(100) as u32,
            pushed_back_for_millis: pressed_for.map(|millis| millis as u64),
            backend: backend
                .as_ref()
                .map_or(String::new(), |report| report.name.to_owned()),
            backend_reason: backend.map_or(String::new(), |report| report.reason.clone()),
            connections: self
                .state
                .team
                .counted()
                .iter()
                .map(RelayCounts::connections_open)
                .sum(),
        }
    }

    fn leaving(&self) -> MutexGuard<'_, Leaving> {
        self.state.leaving()
    }

    fn runs(&self) -> (String, Option<RefusedOffer>) {
        let now = self.state.live.now();
        let runs = now.assignment.as_ref();
        let hash = runs.map(|runs| runs.assigned.hash.clone());
        (hash.unwrap_or_default(), now.refused_offer.clone())
    }

    fn take(&self, offered: Result<Assignment, RefusedOffer>) -> bool {
        take_assignment(&self.state, offered)
    }

    fn count_descriptors(&self, by: i32) {
        self.state.team.shared().count_descriptors(by);
    }

    fn view(&self) -> &View {
        &self.view
    }
}
