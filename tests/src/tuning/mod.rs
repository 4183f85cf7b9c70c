//! What settings change, measured: trials, each a symptom, what to look at, a setting before and after, and a figure of both. A round runs all sides of
//! all trials once, each with a relay of its own; ratios are taken within a round.
//!
//! It owns the table of `docs/tuning.md`, which a test compares with the trials but for the figures. It never judges them: a setting without an
//! effect is shown as one.

mod arrivals;
mod cost;
mod leaving;
mod load;
mod pushback;
mod side;
mod table;

pub use side::Side;
pub use table::{Row, Samples, markdown, rows};

/// One comparison. Its texts are the table's.
pub struct Trial {
    /// What somebody notices.
    pub symptom: &'static str,
    /// The metric, alert or command that tells it from others.
    pub look: &'static str,
    /// What is set at first, as [`Side::parse`] reads it.
    pub before: &'static str,
    /// What is set then.
    pub after: &'static str,
    /// What is measured, with its unit; a row each.
    pub figures: &'static [&'static str],
    /// Measures a side: as many numbers as there are figures.
    pub measure: fn(&Side) -> anyhow::Result<Vec<f64>>,
}

/// Trials that belong together, under a heading of the document.
pub struct Area {
    /// The heading.
    pub name: &'static str,
    /// In the table's order.
    pub trials: &'static [Trial],
}

/// All of them, in the document's order.
pub const AREAS: [&Area; 4] = [
    &cost::AREA,
    &arrivals::AREA,
    &pushback::AREA,
    &leaving::AREA,
];

/// Runs both sides of a trial; which comes first changes with the round.
///
/// # Errors
/// Whatever kept a side from being measured.
pub fn measure(trial: &Trial, round: usize) -> anyhow::Result<[Vec<f64>; 2]> {
    let (before, after) = (Side::parse(trial.before)?, Side::parse(trial.after)?);
    if round.is_multiple_of(2) {
        let first = (trial.measure)(&before)?;
        Ok([first, (trial.measure)(&after)?])
    } else {
        let second = (trial.measure)(&after)?;
        Ok([(trial.measure)(&before)?, second])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_side_is_allowed_and_each_field_is_told() {
        for trial in AREAS.iter().flat_map(|area| area.trials) {
            for text in [trial.before, trial.after] {
                let side = Side::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
                side.resolve()
                    .unwrap_or_else(|error| panic!("{text}: {error}"));
            }
            assert_ne!(trial.before, trial.after);
            assert!(!trial.figures.is_empty() && !trial.symptom.is_empty());
        }
    }
}
