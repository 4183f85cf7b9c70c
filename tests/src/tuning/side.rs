//! One side of a trial: settings as a user writes them, and what is not a setting of a policy (`backend`, `workers`, `target`). It owns how that
//! becomes a relay; it starts nothing.

use anyhow::{Context, bail};
use ringside_api::Config;
use serde_json::{Value, json};

use crate::relay::{Kind, Route, Setup};

/// The CPU that relays run on; load and application have the other one.
const RELAY_CPU: &str = "1";

/// What is set.
#[derive(Debug, Clone)]
pub struct Side {
    backend: Kind,
    workers: u32,
    /// Not where the number of workers is what is compared.
    is_pinned: bool,
    is_unix: bool,
    settings: Value,
}

impl Side {
    /// Reads YAML such as `backoff: {max: 5ms}` or `workers: 2`.
    ///
    /// # Errors
    /// It is no YAML, or names what there is not.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let mut value: Value =
            serde_yaml::from_str(&format!("{{{text}}}")).with_context(|| text.to_owned())?;
        let fields = value.as_object_mut().context("a map of settings")?;
        let backend = match fields.remove("backend") {
            None => Kind::Ring,
            Some(name) => match name.as_str() {
                Some("ring") => Kind::Ring,
                Some("epoll") => Kind::Epoll,
                _ => bail!("backend is {name}; ring and epoll are measured here"),
            },
        };
        let workers = fields.remove("workers");
        let is_pinned = workers.is_none();
        let workers = match workers {
            None => 1,
            Some(number) => number.as_u64().context("workers is a number")?.try_into()?,
        };
        let is_unix = fields
            .remove("target")
            .is_some_and(|target| target == "unix:/run/app.sock");
        Ok(Self {
            backend,
            workers,
            is_pinned,
            is_unix,
            settings: value,
        })
    }

    /// The settings over these, which are the same on both sides.
    #[must_use]
    pub fn over(mut self, base: Value) -> Self {
        self.settings = laid_over(base, &self.settings);
        self
    }

    /// Whether the application listens at a Unix socket.
    pub fn is_unix(&self) -> bool {
        self.is_unix
    }

    /// A setting as it is written, such as `connect` of `timeouts`.
    pub fn text(&self, group: &str, field: &str) -> &str {
        self.settings[group][field].as_str().unwrap_or_default()
    }

    /// A relay to `target`.
    pub fn setup(&self, target: &str) -> Setup {
        let setup = Setup::new(self.backend)
            .route(Route::new("web", target))
            .settings(self.settings.clone())
            .workers(self.workers);
        if self.is_pinned {
            setup.under(["taskset", "-c", RELAY_CPU])
        } else {
            setup
        }
    }

    /// Whether a relay would take the settings.
    ///
    /// # Errors
    /// What is not allowed, in a sentence.
    pub fn resolve(&self) -> anyhow::Result<()> {
        let document = json!({
            "relays": [{"name": "web", "listen": "127.0.0.1:1", "target": "127.0.0.1:2"}],
            "settings": self.settings,
        });
        let config = Config::from_yaml(&document.to_string())?;
        match config.resolve_settings() {
            Ok(_) => Ok(()),
            Err(problem) => bail!("{problem:?}"),
        }
    }
}

/// Objects are merged, everything else is replaced.
fn laid_over(under: Value, over: &Value) -> Value {
    match (under, over) {
        (Value::Object(mut under), Value::Object(over)) => {
            for (key, value) in over {
                let below = under.remove(key).unwrap_or_default();
                under.insert(key.clone(), laid_over(below, value));
            }
            Value::Object(under)
        }
        (_, over) => over.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_setting_is_taken_out() {
        let side =
            Side::parse("workers: 2, backend: epoll, target: \"unix:/run/app.sock\"").unwrap();
        assert_eq!((side.workers, side.backend), (2, Kind::Epoll));
        assert!(side.is_unix());
        assert_eq!(side.settings, json!({}));
        assert!(Side::parse("backend: fast").is_err());
    }

    #[test]
    fn a_side_wins_over_what_both_have() {
        let side = Side::parse("backoff: {max: 5ms}").unwrap();
        let side = side.over(json!({"backoff": {"max": "1s", "maxRetries": 3}}));
        let expected = json!({"backoff": {"max": "5ms", "maxRetries": 3}});
        assert_eq!(side.settings, expected);
        assert!(side.resolve().is_ok());
        assert!(
            Side::parse("backoff: {max: 1h}")
                .unwrap()
                .resolve()
                .is_err()
        );
    }
}
