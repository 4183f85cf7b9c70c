//! The table of `make denial`: a row of figures for each attack and backend, in Markdown.

use std::fmt;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

const HEADER: &str = "\
| attack | backend | p99 quiet | p99 attacked | beside it, quiet | beside it, attacked | own share | newcomer p50 quiet | newcomer p50 attacked | worst |
|---|---|---:|---:|---:|---:|---:|---:|---:|---:|
";

/// The median of several rounds, and the lowest and highest.
pub(crate) struct Spread {
    pub(crate) middle: f64,
    lowest: f64,
    highest: f64,
}

impl Spread {
    /// Of at least one value.
    pub(crate) fn of(mut values: Vec<f64>) -> Self {
        values.sort_unstable_by(f64::total_cmp);
        Spread {
            middle: values[values.len() / 2],
            lowest: values[0],
            highest: values[values.len() - 1],
        }
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Spread {
            middle,
            lowest,
            highest,
        } = self;
        write!(f, "{middle:.2} ({lowest:.2}-{highest:.2})")
    }
}

/// Times in milliseconds.
pub(crate) struct Row {
    pub(crate) what: &'static str,
    pub(crate) backend: &'static str,
    /// Through the relay that is attacked.
    pub(crate) quiet: Spread,
    pub(crate) attacked: Spread,
    /// At the same time through one that is not.
    pub(crate) beside_quiet: Spread,
    pub(crate) beside_attacked: Spread,
    /// How many times slower than quiet, or than beside it where that was slower.
    pub(crate) own_share: Spread,
    /// From a newcomer's connect to its first bytes back.
    pub(crate) newcomer_quiet: Spread,
    pub(crate) newcomer_attacked: Spread,
    pub(crate) newcomer_worst: f64,
}

impl Row {
    /// As a line of the table.
    pub(crate) fn line(&self) -> String {
        let spreads = [
            &self.quiet,
            &self.attacked,
            &self.beside_quiet,
            &self.beside_attacked,
            &self.own_share,
            &self.newcomer_quiet,
            &self.newcomer_attacked,
        ];
        let cells: Vec<String> = spreads.iter().map(ToString::to_string).collect();
        let (what, backend, worst) = (self.what, self.backend, self.newcomer_worst);
        format!(
            "| {what} | {backend} | {} | {worst:.1} |",
            cells.join(" | ")
        )
    }

    /// Adds it to a file, which gets a header first.
    pub(crate) fn add_to(&self, table: &Path) {
        let written = OpenOptions::new()
            .create(true)
            .append(true)
            .open(table)
            .and_then(|mut file| {
                if file.metadata()?.len() == 0 {
                    file.write_all(HEADER.as_bytes())?;
                }
                file.write_all(format!("{}\n", self.line()).as_bytes())
            });
        written.unwrap_or_else(|error| panic!("{} cannot be written: {error}", table.display()));
    }
}
