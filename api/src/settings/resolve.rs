//! From layers of patches to the settings in effect: where each came from, what is not allowed and why, and a stable
//! fingerprint. It owns provenance and violations; which numbers are allowed is said in `groups` and `rules`.

use std::fmt;
use std::ops::RangeInclusive;

use serde::Serialize;
use thiserror::Error;

use super::{Patch, Settings, rules};

/// Where a setting in effect came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum Source {
    /// Nobody set it: the built-in default.
    Default,
    /// The sidecar's own configuration file.
    File,
    /// A ClusterRelayPolicy, as the controller merges it.
    ClusterPolicy,
    /// A RelayPolicy, as the controller merges it.
    Policy,
    /// The controller, as the sidecar sees it.
    Controller,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Default => "default",
            Self::File => "file",
            Self::ClusterPolicy => "ClusterRelayPolicy",
            Self::Policy => "RelayPolicy",
            Self::Controller => "controller",
        })
    }
}

/// A setting that is not allowed: its path, where it came from, and a sentence with its value and what is allowed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{field} {problem}")]
pub struct Violation {
    /// The field's path, such as `backoff.initial`.
    pub field: &'static str,
    /// Where the refused value came from.
    pub source_of_value: Source,
    problem: String,
}

/// One setting in effect, for people to read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FieldInEffect {
    /// The field's path, such as `backoff.initial`.
    pub field: &'static str,
    /// Its value as it is written in a document.
    pub value: String,
    /// Where it came from.
    pub source: Source,
}

/// Settings in effect and where each of them came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// The settings, complete and allowed.
    pub settings: Settings,
    origins: Vec<(&'static str, Source)>,
}

impl Resolved {
    /// Where the field of this path came from; `None` for a path that is no field's.
    pub fn source_of(&self, field: &str) -> Option<Source> {
        self.origins
            .iter()
            .find(|(known, _)| *known == field)
            .map(|(_, source)| *source)
    }

    /// Every field with its value and source, in the order in which they are declared.
    pub fn fields(&self) -> Vec<FieldInEffect> {
        let in_effect = self.settings.fields().into_iter();
        in_effect
            .zip(&self.origins)
            .map(|((field, value), (_, source))| FieldInEffect {
                field,
                value,
                source: *source,
            })
            .collect()
    }
}

impl Default for Resolved {
    /// The built-in defaults, nothing set by anybody.
    fn default() -> Self {
        let mut report = Report::default();
        let settings = Settings::from_layers(&[], &mut report);
        Self {
            settings,
            origins: report.origins,
        }
    }
}

impl Settings {
    /// The settings that result when each layer is laid over the ones before it, and all over the defaults.
    ///
    /// # Errors
    /// Every value out of its range and every rule broken between two fields, of the merged result.
    pub fn resolve(layers: &[(Source, &Patch)]) -> Result<Resolved, Vec<Violation>> {
        let mut report = Report::default();
        let settings = Self::from_layers(layers, &mut report);
        rules::check(&settings, &mut report);
        if report.violations.is_empty() {
            Ok(Resolved {
                settings,
                origins: report.origins,
            })
        } else {
            Err(report.violations)
        }
    }

    /// A fingerprint of the settings, 16 hex digits: the same for equal settings however they were written, whatever the
    /// process, version or order of declaration.
    pub fn hash(&self) -> String {
        let mut fields = self.fields();
        fields.sort_unstable();
        fingerprint(
            fields
                .iter()
                .map(|(field, value)| format!("{field}={value}\n")),
        )
    }
}

/// 16 hex digits for some lines, by FNV-1a: published constants, so that every reader computes the same; it guards against
/// mistakes, not attacks.
pub(crate) fn fingerprint(lines: impl Iterator<Item = String>) -> String {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in lines.flat_map(String::into_bytes) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    format!("{hash:016x}")
}

/// What resolving finds out on its way.
#[derive(Default)]
pub(super) struct Report {
    origins: Vec<(&'static str, Source)>,
    violations: Vec<Violation>,
}

impl Report {
    pub(super) fn origin(&mut self, field: &'static str, source: Source) {
        self.origins.push((field, source));
    }

    pub(super) fn range<T: PartialOrd + fmt::Display>(
        &mut self,
        field: &'static str,
        value: T,
        allowed: RangeInclusive<T>,
    ) {
        if !allowed.contains(&value) {
            let (least, most) = (allowed.start(), allowed.end());
            self.violation(
                field,
                format!("is {value}, but must be between {least} and {most}"),
            );
        }
    }

    /// A broken rule about `field`, unless the field was refused already: one reason is enough to act on.
    pub(super) fn violation(&mut self, field: &'static str, problem: String) {
        if self.violations.iter().any(|known| known.field == field) {
            return;
        }
        let source = self
            .origins
            .iter()
            .find(|(known, _)| *known == field)
            .map_or(Source::Default, |(_, source)| *source);
        self.violations.push(Violation {
            field,
            source_of_value: source,
            problem,
        });
    }
}
