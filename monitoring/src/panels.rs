//! The dashboard's panels: what is asked and how it is shown, row after row. Whatever shows them is made of this list.
//!
//! In queries `%` stands for the chosen pods' labels ([`SELECTED`]), and nothing else: no query divides with remainder.

mod control;
mod state;
mod traffic;

/// Every row, in the dashboard's order.
pub const ROWS: [Row; 8] = [
    traffic::OVERVIEW,
    traffic::TRAFFIC,
    traffic::PUSHBACK,
    state::READINESS_AND_LEAVE,
    state::LIMITS,
    state::CONNECTIONS_BY_REASON,
    control::CONTROLLER,
    control::SETTINGS,
];

/// The labels by which the dashboard's variables choose pods.
pub const SELECTED: &str = r#"namespace=~"$namespace", pod=~"$pod""#;

/// A row of the dashboard, which can be folded away.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Its title.
    pub title: &'static str,
    /// From left to right, and on.
    pub panels: &'static [Panel],
}

/// One panel.
#[derive(Clone, Copy, Debug)]
pub struct Panel {
    /// What it shows; no two are called the same.
    pub title: &'static str,
    /// How to read it, a sentence or two.
    pub description: &'static str,
    /// How it is drawn.
    pub look: Look,
    /// The unit of all its values.
    pub unit: Unit,
    /// Of the dashboard's 24 columns.
    pub width: u32,
    /// What is asked.
    pub queries: &'static [Query],
}

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub struct Query {
    /// PromQL, with `%` as said above.
    pub text: &'static str,
    /// The name of each series, with labels in double braces; empty in tables.
    pub legend: &'static str,
}

/// How a panel is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// One number of this moment.
    Number {
        /// Which values are bad.
        bad: Bad,
    },
    /// Lines over time.
    Lines,
    /// Areas on top of each other over time.
    Stacked,
    /// A table of this moment: a row for each series.
    Table,
}

/// When a number is shown as bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bad {
    /// Never.
    Never,
    /// Above 0.
    AboveZero,
    /// Below 1.
    BelowOne,
}

/// What values are, by Grafana's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// A count.
    Count,
    /// A share of one.
    Share,
    /// Bytes.
    Bytes,
    /// Bytes a second.
    BytesPerSecond,
    /// Times a second.
    PerSecond,
    /// Seconds.
    Seconds,
    /// CPUs that are busy.
    Cpus,
}

impl Unit {
    /// As Grafana calls it.
    pub fn grafana(self) -> &'static str {
        match self {
            Self::Count => "short",
            Self::Share => "percentunit",
            Self::Bytes => "bytes",
            Self::BytesPerSecond => "Bps",
            Self::PerSecond => "cps",
            Self::Seconds => "s",
            Self::Cpus => "none",
        }
    }
}

impl Query {
    const fn new(text: &'static str, legend: &'static str) -> Self {
        Self { text, legend }
    }

    /// The expression with the dashboard's variables.
    pub fn expr(&self) -> String {
        self.text.replace('%', SELECTED)
    }

    /// The expression as it is sent to Prometheus for one namespace and pod (regular expressions) and a range of this length, such as `15s`.
    pub fn asked(&self, namespace: &str, pod: &str, rate_interval: &str) -> String {
        self.expr()
            .replace("$namespace", namespace)
            .replace("$pod", pod)
            .replace("$__rate_interval", rate_interval)
    }
}

/// All panels.
pub fn all() -> impl Iterator<Item = &'static Panel> {
    ROWS.iter().flat_map(|row| row.panels)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panels_have_names_of_their_own_and_rows_that_are_full() {
        let mut titles: Vec<&str> = all().map(|panel| panel.title).collect();
        let count = titles.len();
        titles.sort_unstable();
        titles.dedup();
        assert_eq!(titles.len(), count, "two panels have one title");
        for row in ROWS {
            let width: u32 = row.panels.iter().map(|panel| panel.width).sum();
            assert!(
                width.is_multiple_of(24),
                "{} has {width} columns",
                row.title
            );
        }
        for panel in all() {
            assert!(panel.description.ends_with('.'), "{}", panel.title);
            for query in panel.queries {
                let has_legend = !query.legend.is_empty();
                let is_table = panel.look == Look::Table;
                assert_ne!(has_legend, is_table, "{}", panel.title);
                assert!(!query.asked("a", "b", "1m").contains('$'), "{query:?}");
            }
        }
    }
}
