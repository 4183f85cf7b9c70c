//! Prometheus' rules, read from `manifests/prometheus/rules.yaml`, which is where they are kept. It changes none but their waits.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// The file's text.
pub const TEXT: &str = include_str!(concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../manifests/prometheus/rules.yaml"
));

/// All rules.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rules {
    /// In the order of the file.
    pub groups: Vec<Group>,
}

/// Rules that are evaluated one after another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// Its rules.
    pub rules: Vec<Rule>,
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Rule {
    /// Something that is to be told to people.
    Alert(Alert),
    /// Something that is worked out beforehand.
    Record(Record),
}

/// An alert.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Alert {
    /// Its name.
    pub alert: String,
    /// What must hold.
    pub expr: String,
    /// How long it must hold: a number and `s`, `m` or `h`.
    #[serde(rename = "for")]
    pub wait: String,
    /// `severity`: `critical` (somebody must act now), `warning` (soon) or `info`.
    pub labels: BTreeMap<String, String>,
    /// `summary`, `description` and `runbook`.
    pub annotations: BTreeMap<String, String>,
}

/// A series that is worked out beforehand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// Its name.
    pub record: String,
    /// Of what.
    pub expr: String,
}

impl Rules {
    /// Those of the file.
    ///
    /// # Panics
    /// The file is wrong, which a test rules out.
    pub fn shipped() -> Self {
        serde_yaml::from_str(TEXT).expect("manifests/prometheus/rules.yaml holds rules")
    }

    /// All alerts.
    pub fn alerts(&self) -> impl Iterator<Item = &Alert> {
        self.all().filter_map(|rule| match rule {
            Rule::Alert(alert) => Some(alert),
            Rule::Record(_) => None,
        })
    }

    /// All recorded series.
    pub fn records(&self) -> impl Iterator<Item = &Record> {
        self.all().filter_map(|rule| match rule {
            Rule::Alert(_) => None,
            Rule::Record(record) => Some(record),
        })
    }

    fn all(&self) -> impl Iterator<Item = &Rule> {
        self.groups.iter().flat_map(|group| &group.rules)
    }

    /// The same rules, whose alerts wait for a `factor`th of their time only.
    ///
    /// # Panics
    /// A wait is no time.
    #[must_use]
    pub fn with_waits_shortened_by(mut self, factor: u32) -> Self {
        for rule in self.groups.iter_mut().flat_map(|group| &mut group.rules) {
            if let Rule::Alert(alert) = rule {
                let wait = duration(&alert.wait)
                    .unwrap_or_else(|| panic!("{} waits for {}", alert.alert, alert.wait));
                alert.wait = format!("{}ms", (wait / factor).as_millis());
            }
        }
        self
    }

    /// As Prometheus reads them.
    ///
    /// # Panics
    /// They cannot be written, which a test rules out.
    pub fn yaml(&self) -> String {
        serde_yaml::to_string(self).expect("rules are plain data")
    }
}

impl Rule {
    /// What it asks for.
    pub fn expr(&self) -> &str {
        match self {
            Self::Alert(alert) => &alert.expr,
            Self::Record(record) => &record.expr,
        }
    }
}

impl Alert {
    /// The heading of its runbook in docs/alerts.md, as the annotation has it.
    pub fn runbook(&self) -> String {
        format!("docs/alerts.md#{}", self.alert.to_lowercase())
    }
}

fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at(text.len().checked_sub(1)?);
    let number: u64 = number.parse().ok()?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return None,
    };
    Some(Duration::from_secs(number.checked_mul(seconds)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_alert_is_told_in_sentences_and_has_a_runbook() {
        let rules = Rules::shipped();
        let mut names: Vec<&str> = rules.alerts().map(|alert| alert.alert.as_str()).collect();
        assert!(names.len() >= 20, "{names:?}");
        for alert in rules.alerts() {
            let name = &alert.alert;
            assert!(name.starts_with("Ringside"), "{name}");
            assert!(duration(&alert.wait).is_some(), "{name}: {}", alert.wait);
            let labels: Vec<_> = alert.labels.iter().collect();
            let [(key, severity)] = labels[..] else {
                panic!("{name} has labels {labels:?}")
            };
            assert_eq!(key, "severity");
            assert!(matches!(severity.as_str(), "critical" | "warning" | "info"));
            assert_eq!(alert.annotations["runbook"], alert.runbook());
            assert!(
                alert.annotations["summary"].ends_with('.'),
                "{name}'s summary"
            );
            assert!(alert.annotations["description"].len() > 40, "{name}");
            assert_eq!(alert.annotations.len(), 3, "{name}");
        }
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), rules.alerts().count(), "a name is there twice");
        assert!(rules.records().count() > 0);
    }

    #[test]
    fn waits_are_shortened_and_nothing_else() {
        let rules = Rules::shipped();
        let mut short = rules.clone().with_waits_shortened_by(60);
        let of = |rules: &Rules, name: &str| {
            let mut alerts = rules.alerts();
            let alert = alerts.find(|alert| alert.alert == name);
            alert.map(|alert| alert.wait.clone())
        };
        let name = "RingsideCertificateNearExpiry";
        assert_eq!(of(&rules, name).as_deref(), Some("1h"));
        assert_eq!(of(&short, name).as_deref(), Some("60000ms"));
        for (short, long) in short.groups.iter_mut().zip(&rules.groups) {
            for (short, long) in short.rules.iter_mut().zip(&long.rules) {
                if let (Rule::Alert(short), Rule::Alert(long)) = (short, long) {
                    short.wait.clone_from(&long.wait);
                }
            }
        }
        assert_eq!(short, rules);
        let again: Rules = serde_yaml::from_str(&rules.yaml()).unwrap();
        assert_eq!(again, rules);
    }
}
