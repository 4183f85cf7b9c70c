//! What policies assign, laid over the sidecar's own settings. It owns that an assignment outlives a reload of the file, and the
//! file a new assignment; it never asks for one.

use std::sync::{Arc, PoisonError};

use ringside_api::sync::{Assigned, RefusedOffer};
use ringside_api::{Config, Resolved, Violation};

use super::{Difference, InEffect, Live, Refusal};

/// Where an assignment was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FoundIn {
    /// In the state folder: the last good one of an earlier process.
    Kept,
    /// In the pod's annotation: what policies assigned when the sidecar was injected.
    Stamped,
    /// In the controller's answer.
    Answered,
}

impl FoundIn {
    /// For `/statusz`.
    pub fn label(self) -> &'static str {
        match self {
            Self::Kept => "state folder",
            Self::Stamped => "pod annotation",
            Self::Answered => "controller",
        }
    }
}

/// What policies assign, and where that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// The settings, their policy and their hash.
    pub assigned: Assigned,
    /// Where it was found.
    pub from: FoundIn,
}

/// The settings of `config` under what is assigned.
pub(super) fn resolve(
    assignment: Option<&Assignment>,
    config: &Config,
) -> Result<Resolved, Vec<Violation>> {
    let layers = assignment.map(|given| given.assigned.layers);
    layers.unwrap_or_default().resolve(Some(&config.settings))
}

/// All that is wrong, in one line.
fn told(violations: &[Violation]) -> String {
    let told: Vec<String> = violations
        .iter()
        .map(|wrong| format!("{wrong} (set by the {})", wrong.source_of_value))
        .collect();
    told.join("; ")
}

/// Why a file is refused that is allowed by itself.
pub(super) fn refuse_file(violations: Vec<Violation>) -> Refusal {
    Refusal {
        sentence: format!(
            "the configuration is refused together with what policies assign: {}",
            told(&violations)
        ),
        line: None,
        field: violations
            .first()
            .map_or(String::new(), |wrong| format!("settings.{}", wrong.field)),
    }
}

impl Live {
    /// Takes what policies assign, or counts why it could not even be read.
    ///
    /// Returns what running workers have to do; nothing where the same is in effect.
    ///
    /// # Errors
    /// The refused offer; what was in effect stays in effect. It is counted once, however often it is offered.
    pub fn assign(
        &self,
        offered: Result<Assignment, RefusedOffer>,
    ) -> Result<Difference, RefusedOffer> {
        let _one_at_a_time = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.now();
        let mut after = InEffect::clone(&before);
        let taken = offered.and_then(|offered| after.lay_over(offered));
        match &taken {
            Ok(_) => after.refused_offer = None,
            Err(refused) if after.refused_offer.as_ref() == Some(refused) => {}
            Err(refused) => {
                after.refused_offer = Some(refused.clone());
                after.refusals_total += 1;
            }
        }
        self.in_effect.store(Arc::new(after));
        taken
    }
}

impl InEffect {
    /// Lets `offered` take effect, or nothing of it.
    fn lay_over(&mut self, offered: Assignment) -> Result<Difference, RefusedOffer> {
        let resolved =
            resolve(Some(&offered), &self.config).map_err(|violations| RefusedOffer {
                hash: offered.assigned.hash.clone(),
                why: told(&violations),
            })?;
        let difference = Difference {
            settings_changed: resolved.settings != self.resolved.settings,
            ..Difference::default()
        };
        let is_new = self
            .assignment
            .as_ref()
            .is_none_or(|known| known.assigned != offered.assigned);
        if is_new {
            self.generation += 1;
            self.resolved = Arc::new(resolved);
            self.assignment = Some(Arc::new(offered));
        } else if self
            .assignment
            .as_ref()
            .is_some_and(|known| known.from != offered.from)
        {
            self.assignment = Some(Arc::new(offered));
        }
        Ok(difference)
    }
}

#[cfg(test)]
mod tests {
    use ringside_api::settings::{Layers, Source};

    use super::*;
    use crate::settings::Origin;

    fn config(settings: &str) -> Arc<Config> {
        let yaml = format!(
            "{{relays: [{{name: web, listen: '127.0.0.1:0', target: 'app:80'}}], settings: {settings}}}"
        );
        Arc::new(Config::from_yaml(&yaml).unwrap())
    }

    fn live(settings: &str) -> Live {
        Live::new(config(settings), Origin::CommandLine).unwrap()
    }

    fn assigned(policy: &str) -> Assignment {
        let layers = Layers {
            policy: serde_yaml::from_str(policy).unwrap(),
            ..Layers::default()
        };
        Assignment {
            assigned: Assigned {
                hash: layers.hash(),
                policy: "api".to_owned(),
                layers,
            },
            from: FoundIn::Answered,
        }
    }

    #[test]
    fn an_assignment_lies_over_the_file_and_outlives_its_reload() {
        let live = live("{batch: {min: 4, max: 64}}");
        let difference = live.assign(Ok(assigned("{batch: {max: 32}}"))).unwrap();
        assert!(difference.settings_changed);
        let batch = || {
            let batch = live.now().resolved.settings.batch;
            (batch.min, batch.max)
        };
        assert_eq!(batch(), (4, 32));
        // What the file says of a field that is assigned changes nothing in effect.
        let difference = live
            .apply(Ok(config("{batch: {min: 4, max: 128}}")))
            .unwrap();
        assert!(!difference.settings_changed);
        assert_eq!(batch(), (4, 32));
        assert!(
            live.apply(Ok(config("{batch: {min: 16}}")))
                .unwrap()
                .settings_changed
        );
        assert_eq!(batch(), (16, 32));
        let now = live.now();
        let source = |field| now.resolved.source_of(field).unwrap();
        assert_eq!(source("batch.max"), Source::Policy);
        assert_eq!(source("batch.min"), Source::File);
        assert_eq!((now.generation, now.source()), (4, "controller"));
    }

    #[test]
    fn what_does_not_go_together_is_refused_from_either_side() {
        let live = live("{batch: {min: 16}}");
        let refused = live.assign(Ok(assigned("{batch: {max: 8}}"))).unwrap_err();
        assert!(refused.why.contains("batch.m"), "{refused:?}");
        assert_eq!(live.now().refused_offer, Some(refused));
        // Offered again, it is the same mistake.
        live.assign(Ok(assigned("{batch: {max: 8}}"))).unwrap_err();
        assert_eq!(live.now().refusals_total, 1);
        assert!(live.now().assignment.is_none());
        live.assign(Ok(assigned("{batch: {max: 32}}"))).unwrap();
        assert_eq!(live.now().refused_offer, None);
        let refusal = live.apply(Ok(config("{batch: {min: 64}}"))).unwrap_err();
        assert!(
            refusal.sentence.contains("what policies assign"),
            "{refusal:?}"
        );
        assert_eq!(live.now().resolved.settings.batch.min, 16);
    }

    #[test]
    fn the_same_again_is_no_new_generation() {
        let live = live("{}");
        let mut offered = assigned("{batch: {max: 32}}");
        offered.from = FoundIn::Kept;
        live.assign(Ok(offered)).unwrap();
        assert!(
            live.assign(Ok(assigned("{batch: {max: 32}}")))
                .unwrap()
                .is_empty()
        );
        let now = live.now();
        assert_eq!(now.generation, 2);
        assert_eq!(now.assignment.as_ref().unwrap().from, FoundIn::Answered);
    }
}
