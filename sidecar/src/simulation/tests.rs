//! The simulation's runs, and proof that its checks can fail.

use super::{Report, run};
use crate::bug::Bug;

/// Seeds that are always run.
const FIXED_SEEDS: u64 = 300;

/// Fresh seeds, unless `RINGSIDE_SIMULATIONS` says how many.
const FRESH_SEEDS: u64 = 300;

fn fresh_seeds() -> u64 {
    std::env::var("RINGSIDE_SIMULATIONS")
        .ok()
        .and_then(|number| number.parse().ok())
        .unwrap_or(FRESH_SEEDS)
}

fn failing(seeds: impl Iterator<Item = u64>, bug: Option<Bug>) -> Option<Report> {
    seeds
        .map(|seed| run(seed, false, bug))
        .find(|report| report.failure.is_some())
}

#[track_caller]
fn assert_holds(seeds: impl Iterator<Item = u64>) {
    if let Some(report) = failing(seeds, None) {
        let again = run(report.seed, true, None);
        let last = again.steps.len().saturating_sub(60);
        panic!(
            "seed {}: {}\nthe last steps:\n{}\nall of them: cargo run -p ringside --features simulation --bin ringside-simulate -- replay {}",
            report.seed,
            report.failure.unwrap_or_default(),
            again.steps[last..].join("\n"),
            report.seed
        );
    }
}

#[test]
fn the_fixed_seeds_hold() {
    assert_holds(0..FIXED_SEEDS);
}

#[test]
fn fresh_seeds_hold() {
    let first = fastrand::u64(..);
    assert_holds((0..fresh_seeds()).map(|number| first.wrapping_add(number)));
}

#[test]
fn a_run_is_the_same_each_time() {
    for seed in 0..20 {
        let (one, other) = (run(seed, true, None), run(seed, true, None));
        assert_eq!(one.steps, other.steps, "seed {seed}");
    }
}

#[test]
fn each_deliberate_bug_is_found() {
    for bug in Bug::ALL {
        let found = failing(0..FIXED_SEEDS, Some(bug));
        let report = found.unwrap_or_else(|| panic!("{bug:?} was not found"));
        println!(
            "{bug:?}: found by seed {}: {}",
            report.seed,
            report.failure.unwrap_or_default()
        );
    }
}
