//! The sidecar's configuration document: relays, settings, admin address, backend and workers, read from YAML text. It
//! owns the document's shape and its rules; it never touches a file.

mod problem;

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::depth::too_deep;
use crate::locate::locate;
use crate::relay::{Listen, ProxyProtocol, Relay, Target, check_name};
use crate::sentence::quoted;
use crate::settings::{Patch, Resolved, Settings, Source};
use crate::wire::{Field, FromScalar, Scalar};
pub use problem::{ConfigError, Problem};
use problem::{EMPTY, problem_of};

/// The port of the admin listener when nothing else is said.
pub const ADMIN_PORT_DEFAULT: u16 = 15_490;

/// The most workers that can be asked for.
pub const WORKERS_MAX: u32 = 1_024;

/// The most relays of one sidecar: each takes a listener for every worker.
pub const RELAYS_MAX: usize = 256;

/// The most problems that one refusal tells: finding the line of each costs a walk through the document.
const PROBLEMS_MOST: usize = 20;

words! {
    /// Which backend is asked for; `auto` takes ring where it works and epoll elsewhere.
    BackendChoice {
        /// Ring where it works, else epoll.
        Auto = "auto",
        /// io_uring, by a loop of our own.
        Ring = "ring",
        /// Readiness by epoll.
        Epoll = "epoll",
        /// io_uring, by the tokio-uring runtime.
        TokioUring = "tokio-uring",
    }
}

// Derived by no macro that makes words.
#[allow(clippy::derivable_impls)]
impl Default for BackendChoice {
    fn default() -> Self {
        Self::Auto
    }
}

/// How many workers are asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Workers {
    /// As many as the CPUs that the cgroup grants, where its memory has room for them.
    #[default]
    Auto,
    /// This many, at most [`WORKERS_MAX`].
    Count(NonZeroU32),
}

impl fmt::Display for Workers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Count(count) => count.fmt(f),
        }
    }
}

impl FromStr for Workers {
    type Err = String;

    /// `auto` or a number from 1 to [`WORKERS_MAX`].
    fn from_str(given: &str) -> Result<Self, String> {
        let count = given
            .parse::<NonZeroU32>()
            .ok()
            .filter(|count| count.get() <= WORKERS_MAX);
        match (given, count) {
            ("auto", _) => Ok(Self::Auto),
            (_, Some(count)) => Ok(Self::Count(count)),
            _ => Err(format!(
                "{} is no number of workers: write auto or a number from 1 to {WORKERS_MAX}",
                quoted(given)
            )),
        }
    }
}

impl FromScalar for Workers {
    const EXPECTED: &'static str = "auto or a number of workers";

    fn from_scalar(scalar: &Scalar<'_>) -> Result<Self, String> {
        match scalar {
            Scalar::Text(text) => text.parse(),
            other => other.to_string().parse(),
        }
    }
}

impl Serialize for Workers {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => to.serialize_str("auto"),
            Self::Count(count) => to.serialize_u32(count.get()),
        }
    }
}

/// The address of the admin listener, read with a sentence of its own.
#[derive(Clone, Copy)]
struct AdminAddress(SocketAddr);

impl FromScalar for AdminAddress {
    const EXPECTED: &'static str = "an address such as 0.0.0.0:15490";

    fn from_scalar(scalar: &Scalar<'_>) -> Result<Self, String> {
        let text = match scalar {
            Scalar::Text(text) => (*text).to_owned(),
            other => other.to_string(),
        };
        let refuse = |_| {
            format!(
                "{} is no address for the admin port: write IP:PORT, such as 0.0.0.0:15490",
                quoted(&text)
            )
        };
        text.parse().map(Self).map_err(refuse)
    }
}

/// What a sidecar runs with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Config {
    /// The relays, at least one, in the order in which they were written.
    pub relays: Vec<Relay>,
    /// What this document says about the settings; what it leaves out is not defaulted here.
    pub settings: Patch,
    /// Where probes, metrics and status are served.
    pub admin: SocketAddr,
    /// Which backend to use.
    pub backend: BackendChoice,
    /// How many workers to run.
    pub workers: Workers,
}

impl Config {
    /// The address of the admin listener when nothing else is said: all of IPv4, [`ADMIN_PORT_DEFAULT`].
    pub const fn default_admin() -> SocketAddr {
        SocketAddr::new(
            std::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            ADMIN_PORT_DEFAULT,
        )
    }

    /// A configuration of these relays and nothing else, as the command line makes it. Call [`Config::check`] on it.
    pub fn of_relays(relays: Vec<Relay>) -> Self {
        Self {
            relays,
            settings: Patch::default(),
            admin: Self::default_admin(),
            backend: BackendChoice::Auto,
            workers: Workers::Auto,
        }
    }

    /// Reads and checks a document.
    ///
    /// # Errors
    /// What is wrong and where: one problem when the text cannot be read; when it can but breaks rules all of them, or
    /// the first twenty and how many more there are.
    pub fn from_yaml(yaml: &str) -> Result<Self, ConfigError> {
        let draft = read_draft(yaml)?;
        let (config, mut problems) = draft.complete();
        if problems.is_empty() {
            // Only of a complete list: an entry that is left out would shift the others' places.
            problems = config.problems();
        }
        if problems.is_empty() {
            return Ok(config);
        }
        let untold = problems.len().saturating_sub(PROBLEMS_MOST);
        problems.truncate(PROBLEMS_MOST);
        for problem in &mut problems {
            (problem.line, problem.column) = locate(yaml, &problem.field).unzip();
        }
        if untold > 0 {
            problems.push(Problem::new(
                String::new(),
                format!("{untold} more problems are not told: mend these first"),
            ));
        }
        Err(ConfigError(problems))
    }

    /// Checks the rules that one field cannot show by itself.
    ///
    /// # Errors
    /// All broken rules, without lines.
    pub fn check(&self) -> Result<(), ConfigError> {
        let problems = self.problems();
        if problems.is_empty() {
            Ok(())
        } else {
            Err(ConfigError(problems))
        }
    }

    /// The settings of this document over the defaults.
    ///
    /// # Errors
    /// Every setting that is not allowed; never for a configuration that passed [`Config::check`].
    pub fn resolve_settings(&self) -> Result<Resolved, ConfigError> {
        Settings::resolve(&[(Source::File, &self.settings)]).map_err(|violations| {
            let problem = |violation: crate::Violation| {
                Problem::new(
                    format!("settings.{}", violation.field),
                    violation.to_string(),
                )
            };
            ConfigError(violations.into_iter().map(problem).collect())
        })
    }

    fn problems(&self) -> Vec<Problem> {
        let mut problems = self
            .resolve_settings()
            .err()
            .map_or(Vec::new(), |error| error.0);
        if self.relays.is_empty() {
            problems.push(Problem::new(
                "relays".to_owned(),
                "relays has no entry: a relay is needed, such as {name: web, listen: \"0.0.0.0:15080\", target: \"127.0.0.1:8080\"}"
                    .to_owned(),
            ));
        }
        for (index, relay) in self.relays.iter().enumerate() {
            self.check_relay(index, relay, &mut problems);
        }
        problems
    }

    fn check_relay(&self, index: usize, relay: &Relay, problems: &mut Vec<Problem>) {
        let mut refuse = |field: &str, sentence: String| {
            let field = format!("relays[{index}].{field}");
            problems.push(Problem::new(field.clone(), format!("{field}: {sentence}")));
        };
        let before = &self.relays[..index];
        if let Err(error) = check_name(&relay.name) {
            refuse("name", error.to_string());
        } else if before.iter().any(|other| other.name == relay.name) {
            refuse(
                "name",
                format!(
                    "`{}` is the name of another relay too: give each a name of its own",
                    relay.name
                ),
            );
        }
        if let Some(other) = before
            .iter()
            .find(|other| other.listen.conflicts_with(&relay.listen))
        {
            let (listen, name, theirs) = (relay.listen, quoted(&other.name), other.listen);
            refuse(
                "listen",
                format!(
                    "{listen} is taken by relay {name} ({theirs}): give each a port of its own"
                ),
            );
        }
        if Listen(self.admin).conflicts_with(&relay.listen) {
            refuse(
                "listen",
                format!(
                    "{} is the admin address too: give one of them another port",
                    relay.listen
                ),
            );
        }
        if let Some(way) = self.way_back(relay) {
            let (target, listen) = (&relay.target, relay.listen);
            refuse(
                "target",
                format!(
                    "{target} leads back to this relay's own listener {listen}{way}: name the application's port"
                ),
            );
        }
    }

    /// How a connection through `relay` would come back to it, for ever: directly, or by way of other relays.
    fn way_back(&self, relay: &Relay) -> Option<String> {
        let mut passed: Vec<&str> = Vec::new();
        let mut at = relay;
        while !at.target.reaches(&relay.listen) {
            at = self
                .relays
                .iter()
                .find(|other| at.target.reaches(&other.listen))?;
            if passed.contains(&at.name.as_str()) {
                return None;
            }
            passed.push(&at.name);
        }
        const NAMED_MOST: usize = 5;
        let mut names: Vec<String> = passed.iter().map(|name| quoted(name)).collect();
        if names.len() > NAMED_MOST {
            let others = names.split_off(NAMED_MOST).len();
            names.push(format!("{others} others"));
        }
        Some(match names.len() {
            0 => String::new(),
            _ => format!(" by way of {}", names.join(", ")),
        })
    }
}

/// A relay as it is written, with whatever was left out.
#[derive(Default)]
struct RelayDraft {
    name: Option<String>,
    listen: Option<Listen>,
    target: Option<Target>,
    proxy_protocol: Option<ProxyProtocol>,
}

read_record!(RelayDraft in "a relay" { name "name", listen "listen", target "target", proxy_protocol "proxyProtocol" });

/// The document as it is written, with whatever was left out.
#[derive(Default)]
struct Draft {
    relays: Option<Vec<RelayDraft>>,
    settings: Option<Patch>,
    admin: Option<AdminAddress>,
    backend: Option<BackendChoice>,
    workers: Option<Workers>,
}

read_record!(Draft in "the configuration" {
    relays "relays", settings "settings", admin "admin", backend "backend", workers "workers",
});

impl<'de> Deserialize<'de> for Draft {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Self::read(from)?.ok_or_else(|| D::Error::custom(EMPTY))
    }
}

impl Draft {
    /// The configuration with defaults filled in, and what no default can be for.
    fn complete(self) -> (Config, Vec<Problem>) {
        let mut problems = Vec::new();
        let mut config = Config::of_relays(Vec::new());
        let drafts = self.relays.unwrap_or_default();
        if drafts.len() > RELAYS_MAX {
            let count = drafts.len();
            problems.push(Problem::new(
                "relays".to_owned(),
                format!("relays has {count} entries: at most {RELAYS_MAX} are allowed"),
            ));
        }
        for (index, draft) in drafts.into_iter().take(RELAYS_MAX).enumerate() {
            let mut missing = |field: &str| {
                let path = format!("relays[{index}]");
                problems.push(Problem::new(
                    path.clone(),
                    format!("{path}: `{field}` is missing"),
                ));
            };
            match (draft.name, draft.listen, draft.target) {
                (Some(name), Some(listen), Some(target)) => {
                    let proxy_protocol = draft.proxy_protocol.unwrap_or(ProxyProtocol::None);
                    config.relays.push(Relay {
                        name,
                        listen,
                        target,
                        proxy_protocol,
                    });
                }
                (name, listen, target) => {
                    let given = [
                        ("name", name.is_some()),
                        ("listen", listen.is_some()),
                        ("target", target.is_some()),
                    ];
                    given
                        .iter()
                        .filter(|(_, given)| !given)
                        .for_each(|(field, _)| missing(field));
                }
            }
        }
        config.settings = self.settings.unwrap_or_default();
        config.admin = self.admin.map_or(config.admin, |admin| admin.0);
        config.backend = self.backend.unwrap_or(config.backend);
        config.workers = self.workers.unwrap_or_default();
        (config, problems)
    }
}

fn read_draft(yaml: &str) -> Result<Draft, ConfigError> {
    // An editor's mark of the encoding is no part of the document.
    let yaml = yaml.strip_prefix('\u{feff}').unwrap_or(yaml);
    if let Some((line, sentence)) = too_deep(yaml) {
        return Err(ConfigError(vec![Problem {
            line: Some(line),
            column: Some(1),
            field: String::new(),
            sentence,
        }]));
    }
    serde_yaml::from_str(yaml).map_err(|error| ConfigError(vec![problem_of(&error, yaml)]))
}

#[cfg(test)]
mod tests;
