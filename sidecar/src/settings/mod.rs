//! The configuration in effect: where it came from, how often it changed, and what was wrong with the last one offered.
//! It owns "the last good one stays"; it never touches a socket, and who listens or relays learns of a change from the
//! [`Difference`].

pub mod assignment;
pub mod controller;
pub mod difference;
pub mod file;
pub mod watch;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use ringside_api::sync::RefusedOffer;
use ringside_api::{Config, ConfigError, Resolved};

pub use assignment::{Assignment, FoundIn};
pub use difference::{Difference, RelayChange, diff};
pub use file::{LoadError, Loaded, load};
pub use watch::{Change, Watch};

/// Where a configuration came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Flags or environment, which do not change while the process runs.
    CommandLine,
    /// This file.
    File(PathBuf),
}

/// What was wrong with a configuration that was offered and refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The whole reason, naming file, line, field, value and what is allowed.
    pub sentence: String,
    /// Line from 1 of the first problem, where there is one.
    pub line: Option<usize>,
    /// The path of its field, such as `settings.backoff.initial`; empty when the file as a whole is refused.
    pub field: String,
}

impl From<&LoadError> for Refusal {
    fn from(error: &LoadError) -> Self {
        let first = error.problems().first();
        Self {
            sentence: error.to_string(),
            line: first.and_then(|problem| problem.line),
            field: first.map_or(String::new(), |problem| problem.field.clone()),
        }
    }
}

/// One consistent view: everything in it belongs together.
#[derive(Clone, Debug)]
pub struct InEffect {
    /// The configuration that runs. Fields that need a restart are as they were at the start.
    pub config: Arc<Config>,
    /// What policies assign, over its settings, over the defaults; and where each came from.
    pub resolved: Arc<Resolved>,
    /// What policies assign, where anything was ever assigned.
    pub assignment: Option<Arc<Assignment>>,
    /// The last offer of the controller that was refused; `None` once a good one came.
    pub refused_offer: Option<RefusedOffer>,
    /// Where the configuration came from.
    pub origin: Origin,
    /// 1 at the start, one more with each change that took effect.
    pub generation: u64,
    /// What was wrong with the last one offered; `None` once a good one came.
    pub last_refusal: Option<Refusal>,
    /// How many were refused since the start.
    pub refusals_total: u64,
    /// A sentence for each field whose new value waits for a restart.
    pub waiting_for_restart: Vec<String>,
}

/// The configuration in effect, read from any thread without waiting, changed by one at a time.
#[derive(Debug)]
pub struct Live {
    in_effect: ArcSwap<InEffect>,
    /// Held while a change is worked out, so that none is lost between two that come together.
    changing: Mutex<()>,
}

impl Live {
    /// Starts with `config`.
    ///
    /// # Errors
    /// What is not allowed in it, as [`Config::check`] says.
    pub fn new(config: Arc<Config>, origin: Origin) -> Result<Self, ConfigError> {
        config.check()?;
        let resolved = Arc::new(config.resolve_settings()?);
        let in_effect = InEffect {
            config,
            resolved,
            assignment: None,
            refused_offer: None,
            origin,
            generation: 1,
            last_refusal: None,
            refusals_total: 0,
            waiting_for_restart: Vec::new(),
        };
        Ok(Self {
            in_effect: ArcSwap::from_pointee(in_effect),
            changing: Mutex::new(()),
        })
    }

    /// What is in effect now. It never waits for a change that is being made.
    pub fn now(&self) -> Arc<InEffect> {
        self.in_effect.load_full()
    }

    /// Takes what a source offers. What needs a restart keeps its old value, and is said in `waiting_for_restart`.
    ///
    /// Returns what running workers have to do, with `needs_restart` as it was offered.
    ///
    /// # Errors
    /// The refusal, which is counted; what was in effect stays in effect.
    pub fn apply(&self, change: Change) -> Result<Difference, Refusal> {
        let _one_at_a_time = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.now();
        let mut after = InEffect::clone(&before);
        let taken = change
            .map_err(|error| Refusal::from(&error))
            .and_then(|offered| after.take(&offered));
        match &taken {
            Ok(_) => after.last_refusal = None,
            Err(refusal) => {
                after.last_refusal = Some(refusal.clone());
                after.refusals_total += 1;
            }
        }
        self.in_effect.store(Arc::new(after));
        taken
    }
}

impl InEffect {
    /// The kind of place that was believed last, for a metric.
    pub fn source(&self) -> &'static str {
        match (&self.assignment, &self.origin) {
            (Some(_), _) => "controller",
            (None, Origin::File(_)) => "file",
            (None, Origin::CommandLine) => "command line",
        }
    }

    /// Lets `offered` take effect, all of it that can while the process runs; or nothing of it.
    fn take(&mut self, offered: &Config) -> Result<Difference, Refusal> {
        let mut difference = diff(&self.config, offered);
        let config = Config {
            admin: self.config.admin,
            backend: self.config.backend,
            workers: self.config.workers,
            ..offered.clone()
        };
        // It was allowed as a whole; beside what stays it may not be, such as a relay on the old admin port.
        config.check().map_err(|error| Refusal {
            sentence: format!("the configuration is refused together with what can only change at a restart: {error}"),
            line: None,
            field: error.problems().first().map_or(String::new(), |problem| problem.field.clone()),
        })?;
        let resolved = assignment::resolve(self.assignment.as_deref(), &config)
            .map_err(assignment::refuse_file)?;
        difference.settings_changed = resolved.settings != self.resolved.settings;
        self.waiting_for_restart = difference
            .needs_restart
            .iter()
            .map(|field| waiting(field, &self.config, offered))
            .collect();
        if config != *self.config {
            self.generation += 1;
            self.config = Arc::new(config);
            self.resolved = Arc::new(resolved);
        }
        Ok(difference)
    }
}

/// Why the new value of `field` is not in effect yet.
fn waiting(field: &str, running: &Config, offered: &Config) -> String {
    let value = |config: &Config| match field {
        "admin" => config.admin.to_string(),
        "backend" => config.backend.to_string(),
        _ => config.workers.to_string(),
    };
    let (running, offered) = (value(running), value(offered));
    format!(
        "{field} is {offered} in the configuration, but stays {running} until the relay is restarted"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(yaml: &str) -> Arc<Config> {
        Arc::new(Config::from_yaml(yaml).unwrap())
    }

    fn relay(listen: &str, rest: &str) -> Arc<Config> {
        config(&format!(
            "{{relays: [{{name: web, listen: '{listen}', target: 'app:80'}}]{rest}}}"
        ))
    }

    fn live(config: Arc<Config>) -> Live {
        Live::new(config, Origin::File("relay.yaml".into())).unwrap()
    }

    fn bad() -> LoadError {
        let error = Config::from_yaml("relays: []\nsettings:\n  backof: {}\n").unwrap_err();
        LoadError::Refused {
            path: "relay.yaml".into(),
            error,
        }
    }

    #[test]
    fn a_good_change_takes_effect_and_is_numbered() {
        let live = live(relay("127.0.0.1:0", ""));
        let kept = live.now();
        let difference = live
            .apply(Ok(relay("127.0.0.1:0", ", settings: {batch: {min: 16}}")))
            .unwrap();
        assert!(difference.settings_changed);
        assert_eq!(live.now().generation, 2);
        assert_eq!(live.now().resolved.settings.batch.min, 16);
        // A view that somebody still holds stays what it was.
        assert_eq!((kept.generation, kept.resolved.settings.batch.min), (1, 8));
    }

    #[test]
    fn the_same_again_is_no_new_generation() {
        let live = live(relay("127.0.0.1:0", ""));
        assert!(live.apply(Ok(relay("127.0.0.1:0", ""))).unwrap().is_empty());
        assert_eq!(live.now().generation, 1);
    }

    #[test]
    fn a_bad_one_is_counted_and_changes_nothing_until_a_good_one_comes() {
        let live = live(relay("127.0.0.1:0", ""));
        let refusal = live.apply(Err(bad())).unwrap_err();
        assert_eq!(
            (refusal.line, refusal.field.as_str()),
            (Some(3), "settings.backof")
        );
        assert!(
            refusal.sentence.contains("relay.yaml")
                && refusal.sentence.contains("did you mean `backoff`?")
        );
        live.apply(Err(bad())).unwrap_err();
        let now = live.now();
        assert_eq!((now.generation, now.refusals_total), (1, 2));
        assert_eq!(now.last_refusal, Some(refusal));
        assert_eq!(now.config, relay("127.0.0.1:0", ""));
        live.apply(Ok(relay("127.0.0.1:0", ""))).unwrap();
        assert_eq!(
            (live.now().last_refusal.clone(), live.now().refusals_total),
            (None, 2)
        );
    }

    #[test]
    fn what_needs_a_restart_waits_and_says_so_while_the_rest_takes_effect() {
        let live = live(relay("127.0.0.1:0", ""));
        let offered = relay(
            "127.0.0.1:1",
            ", workers: 4, backend: epoll, settings: {batch: {min: 16}}",
        );
        let difference = live.apply(Ok(offered)).unwrap();
        assert_eq!(difference.needs_restart, ["backend", "workers"]);
        let now = live.now();
        assert_eq!(now.config.workers.to_string(), "auto");
        assert_eq!(now.resolved.settings.batch.min, 16);
        assert_eq!(difference.changed.len(), 1);
        assert_eq!(
            now.waiting_for_restart,
            [
                "backend is epoll in the configuration, but stays auto until the relay is restarted",
                "workers is 4 in the configuration, but stays auto until the relay is restarted",
            ]
        );
        live.apply(Ok(relay("127.0.0.1:1", ""))).unwrap();
        assert!(live.now().waiting_for_restart.is_empty());
    }

    #[test]
    fn a_relay_on_the_admin_port_that_is_still_in_use_is_refused() {
        let live = live(relay("127.0.0.1:0", ", admin: '127.0.0.1:9000'"));
        let refusal = live
            .apply(Ok(relay("127.0.0.1:9000", ", admin: '127.0.0.1:9001'")))
            .unwrap_err();
        assert!(
            refusal.sentence.contains("restart") && refusal.sentence.contains("admin address"),
            "{refusal:?}"
        );
        assert_eq!(refusal.field, "relays[0].listen");
        assert_eq!(
            live.now().config.relays[0].listen.to_string(),
            "127.0.0.1:0"
        );
    }

    #[test]
    fn changes_from_many_threads_are_all_counted() {
        let live = live(relay("127.0.0.1:0", ""));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..50).for_each(|_| drop(live.apply(Err(bad())))));
            }
        });
        assert_eq!(live.now().refusals_total, 200);
    }
}
