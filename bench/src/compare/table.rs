//! The tables: each subject's figures and their ratio to the reference in the same repetition.
//!
//! Owns arithmetic and layout; must never measure.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::compare::subject::Subject;
use crate::compare::work::Work;
use crate::report::{Report, Unit};

/// The subject that the others are divided by.
const REFERENCE: Subject = Subject::Haproxy;

/// What one run gave.
#[derive(Debug, Clone)]
pub(crate) struct Sample {
    /// The figure of the workload, in the unit that its name gives.
    pub figure: Option<f64>,
    /// Everything else that was seen, where there was a load.
    pub report: Option<Report>,
    /// The share of the two CPUs that others took meanwhile, in percent.
    pub others_percent: Option<f64>,
}

/// All samples, by workload, subject and repetition.
#[derive(Debug, Default)]
pub(crate) struct Results {
    samples: BTreeMap<(usize, Subject, usize), Sample>,
    works: Vec<Work>,
    subjects: Vec<Subject>,
}

/// Median and range of some values.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Spread {
    median: f64,
    low: f64,
    high: f64,
}

impl Spread {
    fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let (&low, &high) = (values.first()?, values.last()?);
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 1 {
            values[middle]
        } else {
            (values[middle - 1] + values[middle]) / 2.0
        };
        Some(Self { median, low, high })
    }
}

impl Results {
    /// No samples yet, of these workloads and subjects.
    pub(crate) fn new(works: &[Work], subjects: &[Subject]) -> Self {
        Self {
            samples: BTreeMap::new(),
            works: works.to_vec(),
            subjects: subjects.to_vec(),
        }
    }

    /// Adds the sample of a run. `work` is the workload's place in the list.
    pub(crate) fn add(&mut self, work: usize, subject: Subject, repetition: usize, sample: Sample) {
        self.samples.insert((work, subject, repetition), sample);
    }

    fn of(&self, work: usize, subject: Subject) -> impl Iterator<Item = (usize, &Sample)> {
        let range = (work, subject, 0)..=(work, subject, usize::MAX);
        self.samples
            .range(range)
            .map(|((_, _, repetition), sample)| (*repetition, sample))
    }

    fn figures(&self, work: usize, subject: Subject) -> Option<Spread> {
        Spread::of(
            self.of(work, subject)
                .filter_map(|(_, sample)| sample.figure)
                .collect(),
        )
    }

    /// Each repetition's figure divided by the reference's in that repetition.
    fn ratios(&self, work: usize, subject: Subject) -> Option<Spread> {
        let ratio = |(repetition, sample): (usize, &Sample)| {
            let reference = self.samples.get(&(work, REFERENCE, repetition))?.figure?;
            (reference > 0.0).then_some(sample.figure? / reference)
        };
        Spread::of(self.of(work, subject).filter_map(ratio).collect())
    }

    /// How much others disturbed the runs, for the line under the tables.
    pub(crate) fn disturbance(&self) -> String {
        match Spread::of(
            self.samples
                .values()
                .filter_map(|sample| sample.others_percent)
                .collect(),
        ) {
            Some(Spread { median, low, high }) => format!("{median:.0} % ({low:.0}-{high:.0})"),
            None => "an unknown share".into(),
        }
    }

    /// What the relays cost, as Markdown.
    pub(crate) fn costs(&self) -> String {
        let subjects: Vec<Subject> = self
            .subjects
            .iter()
            .copied()
            .filter(|subject| {
                (0..self.works.len()).any(|work| self.figures(work, *subject).is_some())
            })
            .collect();
        let cell = |work, subject| match (self.figures(work, subject), self.ratios(work, subject)) {
            (None, _) => "-".to_owned(),
            (Some(figure), Some(ratio)) if subject != REFERENCE => format!(
                "{} **x{}** ({}-{})",
                digits(figure.median),
                plain(ratio.median),
                plain(ratio.low),
                plain(ratio.high)
            ),
            (Some(figure), _) => {
                format!(
                    "{} ({}-{})",
                    digits(figure.median),
                    digits(figure.low),
                    digits(figure.high)
                )
            }
        };
        self.table("", &subjects, cell)
    }

    /// What came through, as Markdown.
    pub(crate) fn throughput(&self) -> String {
        let cell = |work, subject| {
            let median = |pick: fn(&Report) -> Option<f64>| {
                Spread::of(
                    self.of(work, subject)
                        .filter_map(|(_, sample)| pick(sample.report.as_ref()?))
                        .collect(),
                )
                .map(|spread| spread.median)
            };
            let Some(rate) = median(rate) else {
                return "-".to_owned();
            };
            let unit = self
                .of(work, subject)
                .find_map(|(_, sample)| Some(sample.report.as_ref()?.unit));
            let mut text = match unit {
                Some(Unit::Gigabyte) => format!("{rate:.2} GB/s"),
                _ => format!("{rate:.0}/s"),
            };
            let p50 = median(|report| Some(report.latency?.p50_us));
            let p99 = median(|report| Some(report.latency?.p99_us));
            if let (Some(p50), Some(p99)) = (p50, p99) {
                let _ = write!(text, ", {p50:.0}/{p99:.0} us");
            }
            if let Some(bulk) = median(|report| Some(report.bulk_gigabytes? / report.seconds)) {
                let _ = write!(text, ", {bulk:.2} GB/s");
            }
            if let Some(busy) = median(busy) {
                let _ = write!(text, ", {:.0} %", 100.0 * busy);
            }
            text
        };
        self.table("", &self.subjects, cell)
    }

    fn table(
        &self,
        corner: &str,
        subjects: &[Subject],
        cell: impl Fn(usize, Subject) -> String,
    ) -> String {
        let mut rows = vec![vec![corner.to_owned()]];
        rows[0].extend(subjects.iter().map(|subject| subject.name().to_owned()));
        for (index, work) in self.works.iter().enumerate() {
            let cells: Vec<String> = subjects
                .iter()
                .map(|subject| cell(index, *subject))
                .collect();
            if cells.iter().any(|cell| cell != "-") {
                rows.push([vec![work.to_string()], cells].concat());
            }
        }
        if rows.len() == 1 {
            return "Nothing was measured of that kind.\n".into();
        }
        layout(&rows)
    }
}

fn rate(report: &Report) -> Option<f64> {
    // Opening idle connections is no workload: its rate says nothing.
    (report.workload != "idle" && report.seconds > 0.0).then(|| report.units / report.seconds)
}

fn busy(report: &Report) -> Option<f64> {
    (report.seconds > 0.0).then_some(report.relay_cpu?.total_ns as f64 / 1e9 / report.seconds)
}

/// A Markdown table whose columns line up in a terminal too. The first row is the head.
fn layout(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column| {
        rows.iter()
            .filter_map(|row: &Vec<String>| row.get(column))
            .map(String::len)
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for (index, row) in rows.iter().enumerate() {
        for (cell, &width) in row.iter().zip(&widths) {
            let _ = write!(text, "| {cell:width$} ");
        }
        text.push_str("|\n");
        if index == 0 {
            for (column, &width) in widths.iter().enumerate() {
                let _ = if column == 0 {
                    write!(text, "|{:-<1$}", "", width + 2)
                } else {
                    write!(text, "|{:-<1$}:", "", width + 1)
                };
            }
            text.push_str("|\n");
        }
    }
    text
}

/// Three significant digits.
fn digits(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

fn plain(ratio: f64) -> String {
    format!("{ratio:.2}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(figure: f64) -> Sample {
        Sample {
            figure: Some(figure),
            report: None,
            others_percent: None,
        }
    }

    #[test]
    fn a_ratio_is_taken_within_a_repetition_and_shown_as_median_and_range() {
        let mut results = Results::new(&[Work::Ping(64)], &[Subject::Haproxy, Subject::Nginx]);
        // The machine slowed down by half between repetitions: the figures spread, the ratios do not.
        for (repetition, (reference, other)) in [(10.0, 8.0), (20.0, 16.0), (10.0, 9.0)]
            .into_iter()
            .enumerate()
        {
            results.add(0, Subject::Haproxy, repetition, sample(reference));
            results.add(0, Subject::Nginx, repetition, sample(other));
        }
        let table = results.costs();
        assert!(table.contains("9.00 **x0.80** (0.80-0.90)"), "{table}");
        assert!(table.contains("10.0 (10.0-20.0)"), "{table}");
    }

    #[test]
    fn a_repetition_whose_reference_failed_gives_no_ratio() {
        let mut results = Results::new(&[Work::Idle], &[Subject::Haproxy, Subject::Nginx]);
        results.add(
            0,
            Subject::Haproxy,
            0,
            Sample {
                figure: None,
                report: None,
                others_percent: None,
            },
        );
        results.add(0, Subject::Nginx, 0, sample(4.0));
        let table = results.costs();
        assert!(
            table.contains("4.00 (4.00-4.00)") && !table.contains("**x"),
            "{table}"
        );
    }

    #[test]
    fn a_table_without_figures_says_so() {
        let results = Results::new(&[Work::Ready], &[Subject::Haproxy]);
        assert_eq!(results.throughput(), "Nothing was measured of that kind.\n");
    }

    #[test]
    fn the_median_of_an_even_number_lies_between_the_middle_two() {
        assert_eq!(
            Spread::of(vec![4.0, 1.0, 2.0, 3.0]),
            Some(Spread {
                median: 2.5,
                low: 1.0,
                high: 4.0
            })
        );
        assert_eq!(Spread::of(Vec::new()), None);
    }
}
