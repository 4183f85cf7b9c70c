//! What was measured, as a table: median, lowest and highest of the rounds, and the ratio of both sides within a round.

use std::fmt;

use super::{Area, Trial};

/// A row of the document's table, without its figures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Symptom and what to look at; empty where the row above says it.
    pub symptom: String,
    /// Metric, alert or command.
    pub look: String,
    /// What is set at first, and then.
    pub settings: String,
    /// What is measured.
    pub figure: String,
}

/// The heads of the table's columns.
const HEADS: &str = "| symptom | look at | set, from → to | figure | before | after | ratio |\n|---|---|---|---|---:|---:|---:|\n";

/// The rows of an area.
pub fn rows(area: &Area) -> Vec<Row> {
    let rows = area.trials.iter().flat_map(|trial| {
        let of = |index: usize, figure: &&str| Row {
            symptom: first(index, trial.symptom),
            look: first(index, trial.look),
            settings: first(index, &settings(trial)),
            figure: (*figure).to_owned(),
        };
        trial.figures.iter().enumerate().map(move |(i, f)| of(i, f))
    });
    rows.collect()
}

fn first(index: usize, text: &str) -> String {
    if index == 0 {
        text.to_owned()
    } else {
        String::new()
    }
}

fn settings(trial: &Trial) -> String {
    format!("`{}` → `{}`", trial.before, trial.after)
}

/// The figures of one trial: by round, both sides.
#[derive(Debug, Default)]
pub struct Samples(Vec<[Vec<f64>; 2]>);

impl Samples {
    /// Adds a round.
    pub fn add(&mut self, sides: [Vec<f64>; 2]) {
        self.0.push(sides);
    }

    fn of(&self, side: usize, figure: usize) -> Summary {
        Summary::of(self.0.iter().map(|round| round[side][figure]))
    }

    fn ratio(&self, figure: usize) -> Option<Summary> {
        let of = |round: &[Vec<f64>; 2]| round[1][figure] / round[0][figure];
        let is_possible = !self.0.is_empty() && self.0.iter().all(|round| round[0][figure] != 0.0);
        is_possible.then(|| Summary::of(self.0.iter().map(of)))
    }
}

/// An area's table in Markdown; `samples` has the trials' in their order.
pub fn markdown(area: &Area, samples: &[Samples]) -> String {
    let mut text = HEADS.to_owned();
    let figures = area
        .trials
        .iter()
        .zip(samples)
        .flat_map(|(trial, samples)| {
            let figures = 0..trial.figures.len();
            figures.map(move |figure| {
                let ratio = samples.ratio(figure);
                let ratio = ratio.map_or_else(|| "-".to_owned(), |ratio| format!("**x{ratio}**"));
                let (before, after) = (samples.of(0, figure), samples.of(1, figure));
                format!("{before} | {after} | {ratio}")
            })
        });
    for (row, figures) in rows(area).iter().zip(figures) {
        let Row {
            symptom,
            look,
            settings,
            figure,
        } = row;
        text += &format!("| {symptom} | {look} | {settings} | {figure} | {figures} |\n");
    }
    text
}

/// Median, lowest and highest.
struct Summary {
    median: f64,
    lowest: f64,
    highest: f64,
}

impl Summary {
    fn of(values: impl Iterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        let at = |index: usize| values.get(index).copied().unwrap_or(f64::NAN);
        Self {
            median: at(values.len() / 2),
            lowest: at(0),
            highest: at(values.len().saturating_sub(1)),
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.median.is_nan() {
            return out.write_str("-");
        }
        let (median, lowest, highest) =
            (short(self.median), short(self.lowest), short(self.highest));
        if lowest == highest {
            return out.write_str(&median);
        }
        write!(out, "{median} ({lowest}-{highest})")
    }
}

/// Three figures are enough, and two for what is small.
fn short(value: f64) -> String {
    let size = value.abs();
    if size == 0.0 || size >= 99.5 {
        format!("{value:.0}")
    } else if size >= 9.95 {
        format!("{value:.1}")
    } else if size >= 0.095 {
        format!("{value:.2}")
    } else if size >= 0.000_5 {
        format!("{value:.3}")
    } else {
        "<0.001".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tuning::Side;

    fn nothing(_: &Side) -> anyhow::Result<Vec<f64>> {
        Ok(vec![])
    }

    #[test]
    fn ratios_are_of_a_round_and_nothing_is_divided_by_nothing() {
        let mut samples = Samples::default();
        for (before, after) in [(10.0, 5.0), (20.0, 5.0), (10.0, 10.0)] {
            samples.add([vec![before, 0.0], vec![after, 300.0]]);
        }
        const AREA: Area = Area {
            name: "area",
            trials: &[Trial {
                symptom: "slow",
                look: "here",
                before: "a: 1",
                after: "a: 2",
                figures: &["ms", "count"],
                measure: nothing,
            }],
        };
        let text = markdown(&AREA, &[samples]);
        let lines: Vec<&str> = text.lines().skip(2).collect();
        assert_eq!(
            lines,
            [
                "| slow | here | `a: 1` → `a: 2` | ms | 10.0 (10.0-20.0) | 5.00 (5.00-10.0) | **x0.50 (0.25-1.00)** |",
                "|  |  |  | count | 0 | 300 | - |"
            ]
        );
    }
}
