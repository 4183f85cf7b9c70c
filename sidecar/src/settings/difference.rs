//! What it takes to come from one configuration to another. It compares and does nothing; who applies a difference is
//! the worker's concern.

use ringside_api::{Config, Relay};

/// A relay whose name stayed and whose rest did not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelayChange {
    /// As it was.
    pub before: Relay,
    /// As it is to be.
    pub after: Relay,
}

impl RelayChange {
    /// Whether it needs another listening socket; otherwise only new connections lead elsewhere.
    pub fn moves_listener(&self) -> bool {
        self.before.listen != self.after.listen
    }
}

/// All differences between two configurations. Relays are the same when their names are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// Relays to start.
    pub added: Vec<Relay>,
    /// Relays to stop: no new connections; those that are open go on.
    pub removed: Vec<Relay>,
    /// Relays that listen or lead elsewhere, or speak differently to their target.
    pub changed: Vec<RelayChange>,
    /// Whether any setting has another value in effect, wherever it came from.
    pub settings_changed: bool,
    /// Fields that differ and cannot change while the process runs, as they are written: `admin`, `backend`, `workers`.
    pub needs_restart: Vec<&'static str>,
}

impl Difference {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What differs between `old` and `new`.
pub fn diff(old: &Config, new: &Config) -> Difference {
    let named = |config: &Config, name: &str| {
        config
            .relays
            .iter()
            .find(|relay| relay.name == name)
            .cloned()
    };
    let mut difference = Difference::default();
    for after in &new.relays {
        match named(old, &after.name) {
            None => difference.added.push(after.clone()),
            Some(before) if before != *after => difference.changed.push(RelayChange {
                before,
                after: after.clone(),
            }),
            Some(_) => {}
        }
    }
    difference.removed = old
        .relays
        .iter()
        .filter(|relay| named(new, &relay.name).is_none())
        .cloned()
        .collect();
    // By what is in effect, so that writing a default down is no change.
    let in_effect = |config: &Config| config.resolve_settings().map(|resolved| resolved.settings);
    difference.settings_changed = in_effect(old) != in_effect(new);
    let fixed = [
        ("admin", old.admin != new.admin),
        ("backend", old.backend != new.backend),
        ("workers", old.workers != new.workers),
    ];
    difference.needs_restart = fixed
        .iter()
        .filter(|(_, differs)| *differs)
        .map(|(field, _)| *field)
        .collect();
    difference
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use ringside_api::{BackendChoice, Workers};

    fn config(relays: &[&str]) -> Config {
        Config::of_relays(relays.iter().map(|relay| relay.parse().unwrap()).collect())
    }

    #[test]
    fn relays_are_told_apart_by_name() {
        let old = config(&[
            "a=127.0.0.1:1:app:1",
            "b=127.0.0.1:2:app:1",
            "c=127.0.0.1:3:app:1",
            "d=127.0.0.1:4:app:1",
        ]);
        let new = config(&[
            "e=127.0.0.1:2:app:1",
            "d=127.0.0.1:5:app:1",
            "c=127.0.0.1:3:app:2",
            "a=127.0.0.1:1:app:1",
        ]);
        let difference = diff(&old, &new);
        let names = |relays: &[Relay]| {
            relays
                .iter()
                .map(|relay| relay.name.clone())
                .collect::<Vec<_>>()
        };
        assert_eq!(names(&difference.added), ["e"]);
        assert_eq!(names(&difference.removed), ["b"]);
        let changed: Vec<_> = difference
            .changed
            .iter()
            .map(|c| (c.after.name.as_str(), c.moves_listener()))
            .collect();
        assert_eq!(changed, [("d", true), ("c", false)]);
        assert!(!difference.settings_changed && difference.needs_restart.is_empty());
    }

    #[test]
    fn writing_a_default_down_is_no_change_of_settings() {
        let old = config(&["a=127.0.0.1:1:app:1"]);
        let mut new = old.clone();
        new.settings = *Config::from_yaml(
            "{relays: [{name: a, listen: '127.0.0.1:1', target: 'app:1'}], settings: {timeouts: {idle: 60m}}}",
        )
        .map(|config| Box::new(config.settings))
        .unwrap();
        assert!(diff(&old, &new).is_empty());
        new.settings.timeouts.as_mut().unwrap().idle = Some("61m".parse().unwrap());
        assert!(diff(&old, &new).settings_changed);
    }

    #[test]
    fn what_is_fixed_at_start_is_named() {
        let old = config(&["a=127.0.0.1:1:app:1"]);
        let mut new = old.clone();
        new.admin.set_port(1);
        new.backend = BackendChoice::Epoll;
        new.workers = Workers::Count(2.try_into().unwrap());
        assert_eq!(
            diff(&old, &new).needs_restart,
            ["admin", "backend", "workers"]
        );
    }

    proptest! {
        #[test]
        fn applying_a_difference_gives_the_new_relays(
            old in proptest::collection::btree_map(0u8..8, 1u16..4, 0..8),
            new in proptest::collection::btree_map(0u8..8, 1u16..4, 0..8),
        ) {
            let make = |relays: &std::collections::BTreeMap<u8, u16>| {
                let lines: Vec<String> =
                    relays.iter().map(|(name, port)| format!("r{name}=127.0.0.1:0:app:{port}")).collect();
                config(&lines.iter().map(String::as_str).collect::<Vec<_>>())
            };
            let (old, new) = (make(&old), make(&new));
            let difference = diff(&old, &new);
            let mut relays = old.relays.clone();
            relays.retain(|relay| !difference.removed.contains(relay));
            for change in &difference.changed {
                prop_assert_ne!(&change.before, &change.after);
                *relays.iter_mut().find(|relay| **relay == change.before).unwrap() = change.after.clone();
            }
            relays.extend(difference.added.clone());
            relays.sort_by(|a, b| a.name.cmp(&b.name));
            prop_assert_eq!(relays, new.relays);
            prop_assert_eq!(diff(&old, &old), Difference::default());
        }
    }
}
