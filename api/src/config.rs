//! The sidecar's configuration document: relays, settings, admin address, backend and workers, read from YAML text. It
//! owns the document's shape and its rules; it never touches a file.

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

/// The port of the admin listener when nothing else is said.
pub const ADMIN_PORT_DEFAULT: u16 = 15_490;

/// The most workers that can be asked for.
pub const WORKERS_MAX: u32 = 1_024;

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

/// How many workers are asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Workers {
    /// As many as the CPUs that the cgroup grants.
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
    /// What is wrong and where: one problem when the text cannot be read, all of them when it can but breaks rules.
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
        for problem in &mut problems {
            (problem.line, problem.column) = locate(yaml, &problem.field).unzip();
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
            let (listen, name, theirs) = (relay.listen, &other.name, other.listen);
            refuse(
                "listen",
                format!(
                    "{listen} is taken by relay `{name}` ({theirs}): give each a port of its own"
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
        Some(if passed.is_empty() {
            String::new()
        } else {
            format!(" by way of {}", passed.join(", "))
        })
    }
}

/// One thing that is wrong with a document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Line from 1, where the document has lines.
    pub line: Option<usize>,
    /// Column from 1.
    pub column: Option<usize>,
    /// The field's path, such as `relays[0].listen`; empty when the document itself is broken.
    pub field: String,
    /// What is wrong and what is allowed; it names the field.
    pub sentence: String,
}

impl Problem {
    fn new(field: String, sentence: String) -> Self {
        Self {
            line: None,
            column: None,
            field,
            sentence,
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let (Some(line), Some(column)) = (self.line, self.column) {
            write!(f, "line {line}, column {column}: ")?;
        }
        f.write_str(&self.sentence)
    }
}

/// Why a document is refused: at least one problem.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ConfigError(Vec<Problem>);

impl ConfigError {
    /// What is wrong, at least one thing.
    pub fn problems(&self) -> &[Problem] {
        &self.0
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            let between = if index == 0 { "" } else { "; " };
            write!(f, "{between}{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

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

const EMPTY: &str = "the document is empty: write at least `relays:` with one relay";

impl Draft {
    /// The configuration with defaults filled in, and what no default can be for.
    fn complete(self) -> (Config, Vec<Problem>) {
        let mut problems = Vec::new();
        let mut config = Config::of_relays(Vec::new());
        for (index, draft) in self.relays.unwrap_or_default().into_iter().enumerate() {
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
    serde_yaml::from_str(yaml).map_err(|error| ConfigError(vec![problem_of(&error)]))
}

/// Takes a YAML error apart: `relays[0].listen: SENTENCE at line 3 column 5`.
fn problem_of(error: &serde_yaml::Error) -> Problem {
    let (line, column) = error
        .location()
        .map(|location| (location.line(), location.column()))
        .unzip();
    let text = error.to_string();
    let place = line
        .zip(column)
        .map(|(line, column)| format!(" at line {line} column {column}"));
    let text = place
        .and_then(|place| text.strip_suffix(&place))
        .unwrap_or(&text);
    // Only fields that are known are ever walked into, so a path consists of these characters.
    let in_path = |byte: u8| byte.is_ascii_alphanumeric() || b".[]_-".contains(&byte);
    let (field, said) = match text.split_once(": ") {
        Some((path, said)) if path.bytes().all(in_path) => (path, said),
        _ => ("", text),
    };
    let (field, sentence) = match said {
        // The parser's words for an empty file.
        "EOF while parsing a value" => (field.to_owned(), EMPTY.to_owned()),
        // This one names its place itself, and is about the field that it quotes.
        said if said.starts_with("unknown field") => {
            let name = said.split('`').nth(1).unwrap_or_default();
            let path = if field.is_empty() {
                name.to_owned()
            } else {
                format!("{field}.{name}")
            };
            (path, said.to_owned())
        }
        _ => (field.to_owned(), text.to_owned()),
    };
    Problem {
        line,
        column,
        field,
        sentence,
    }
}

#[cfg(test)]
mod tests;
