//! What happens when other settings are offered, by the file's watch or by the controller: they take effect in running workers, or the
//! log says why not. It decides nothing about what is allowed.

use ringside_api::sync::RefusedOffer;

use super::history::Kind;
use super::judging::Phase;
use super::state::State;
use crate::settings::{Assignment, Change, Difference};

/// Takes a changed configuration, or says why not.
pub(crate) fn take(state: &State, change: Change) {
    if state.phase() == Phase::Draining {
        tracing::info!("the configuration changed, and is not taken: the process ends");
        return;
    }
    let before = state.live.now();
    let (generation_before, waiting_before) =
        (before.generation, before.waiting_for_restart.clone());
    let taken = {
        let _one_at_a_time = state.taking();
        let taken = state.live.apply(change);
        tell_workers(state, taken.as_ref().ok());
        taken
    };
    match taken {
        Ok(difference) => {
            let now = state.live.now();
            let names = |relays: &[ringside_api::Relay]| -> Vec<String> {
                relays.iter().map(|relay| relay.name.clone()).collect()
            };
            let changed: Vec<&str> = difference
                .changed
                .iter()
                .map(|change| change.after.name.as_str())
                .collect();
            tracing::info!(
                generation = now.generation,
                hash = now.resolved.settings.hash(),
                added = ?names(&difference.added),
                removed = ?names(&difference.removed),
                ?changed,
                settings_changed = difference.settings_changed,
                "configuration taken"
            );
            if now.generation != generation_before {
                let sentence = format!("configuration taken: generation {}", now.generation);
                state.tell(Kind::Settings, sentence);
            }
            for waiting in &now.waiting_for_restart {
                if !waiting_before.contains(waiting) {
                    tracing::warn!("{waiting}");
                }
            }
            state.relays.apply(&now.config.relays);
        }
        Err(refusal) => {
            tracing::error!(
                line = refusal.line,
                field = refusal.field,
                "{}; the last good configuration stays",
                refusal.sentence
            );
            let sentence = format!("configuration refused: {}", refusal.sentence);
            state.tell(Kind::Settings, sentence);
        }
    }
}

/// Takes what policies assign, or says why not; says whether it runs.
pub(crate) fn take_assignment(state: &State, offered: Result<Assignment, RefusedOffer>) -> bool {
    if state.phase() == Phase::Draining {
        return false;
    }
    let (before, taken) = {
        let _one_at_a_time = state.taking();
        let before = state.live.now();
        let taken = state.live.assign(offered);
        tell_workers(state, taken.as_ref().ok());
        (before, taken)
    };
    let now = state.live.now();
    match taken {
        Ok(difference) => {
            if let Some(runs) = &now.assignment
                && now.generation != before.generation
            {
                tracing::info!(
                    generation = now.generation,
                    hash = now.resolved.settings.hash(),
                    policy = runs.assigned.policy,
                    settings_changed = difference.settings_changed,
                    "what policies assign is taken"
                );
                let policy = match runs.assigned.policy.as_str() {
                    "" => "no RelayPolicy",
                    policy => policy,
                };
                let sentence = format!("settings of {policy} taken: generation {}", now.generation);
                state.tell(Kind::Settings, sentence);
            }
            true
        }
        Err(refused) => {
            if before.refused_offer.as_ref() != Some(&refused) {
                tracing::error!(
                    hash = refused.hash,
                    "what policies assign is refused: {}; the last good settings stay",
                    refused.why
                );
                let sentence = format!("what policies assign is refused: {}", refused.why);
                state.tell(Kind::Settings, sentence);
            }
            false
        }
    }
}

/// Lets workers obey what is in effect.
fn tell_workers(state: &State, difference: Option<&Difference>) {
    if difference.is_some_and(|difference| difference.settings_changed) {
        state.team.apply(&state.live.now().resolved.settings);
    }
}
