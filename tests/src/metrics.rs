//! Prometheus text, read: samples by name and labels. It knows the format and no metric.

use std::collections::BTreeMap;

/// One line of `/metrics`.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Its full name.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its value.
    pub value: f64,
}

/// One scrape.
#[derive(Debug, Clone, Default)]
pub struct Metrics(Vec<Sample>);

impl Metrics {
    /// Reads a scrape; panics on a line that is none, as a scraper would reject the whole.
    #[track_caller]
    pub fn parse(text: &str) -> Self {
        let lines = text
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'));
        Self(
            lines
                .map(|line| sample(line).unwrap_or_else(|| panic!("no sample: {line:?}")))
                .collect(),
        )
    }

    /// Whether there is any sample of `name`.
    pub fn has(&self, name: &str) -> bool {
        self.0.iter().any(|sample| sample.name == name)
    }

    /// The sum of all samples of `name` that have these labels; 0 where there is none.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.matching(name, labels).map(|sample| sample.value).sum()
    }

    /// All samples of `name` that have these labels.
    pub fn matching(&self, name: &str, labels: &[(&str, &str)]) -> impl Iterator<Item = &Sample> {
        self.0.iter().filter(move |sample| {
            let has = |&(key, value): &(&str, &str)| {
                sample.labels.get(key).is_some_and(|found| found == value)
            };
            sample.name == name && labels.iter().all(has)
        })
    }
}

fn sample(line: &str) -> Option<Sample> {
    let (name, rest) = line.split_at(line.find(['{', ' '])?);
    let mut labels = BTreeMap::new();
    let value = match rest.strip_prefix('{') {
        Some(rest) => read_labels(rest, &mut labels)?,
        None => rest,
    };
    let value = value.split_whitespace().next()?.parse().ok()?;
    Some(Sample {
        name: name.to_owned(),
        labels,
        value,
    })
}

/// Reads `key="value",...}` and returns what follows.
fn read_labels<'a>(mut rest: &'a str, labels: &mut BTreeMap<String, String>) -> Option<&'a str> {
    loop {
        rest = rest.trim_start_matches([',', ' ']);
        if let Some(after) = rest.strip_prefix('}') {
            return Some(after);
        }
        let (key, after) = rest.split_once("=\"")?;
        let mut value = String::new();
        let mut chars = after.char_indices();
        loop {
            match chars.next()? {
                (at, '"') => {
                    rest = &after[at + 1..];
                    break;
                }
                (_, '\\') => match chars.next()?.1 {
                    'n' => value.push('\n'),
                    other => value.push(other),
                },
                (_, other) => value.push(other),
            }
        }
        labels.insert(key.to_owned(), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_summed_by_labels() {
        let metrics = Metrics::parse(
            "# HELP closed_total How flows ended.\n# TYPE closed_total counter\n\
             closed_total{reason=\"finished\",worker=\"0\"} 3\nclosed_total{reason=\"finished\",worker=\"1\"} 4\n\
             closed_total{reason=\"shed\",worker=\"0\"} 1 1700000000\nopen 2.5e1\n",
        );
        assert_eq!(metrics.sum("closed_total", &[("reason", "finished")]), 7.0);
        assert_eq!(metrics.sum("closed_total", &[]), 8.0);
        assert_eq!(metrics.sum("open", &[]), 25.0);
        assert!(!metrics.has("closed"));
    }

    #[test]
    fn labels_may_hold_anything() {
        let metrics = Metrics::parse("info{reason=\"a \\\"b\\\", {c}\\n\",} +Inf\n");
        let sample = metrics.matching("info", &[]).next().unwrap();
        assert_eq!(sample.labels["reason"], "a \"b\", {c}\n");
        assert_eq!(sample.value, f64::INFINITY);
    }

    #[test]
    #[should_panic(expected = "no sample")]
    fn what_is_no_sample_is_refused() {
        Metrics::parse("open twelve\n");
    }
}
