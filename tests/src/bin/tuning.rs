//! `make tuning`: the table of `docs/tuning.md`, measured again in a network namespace of its own, in ROUNDS rounds (5). ONLY names trials by a part of
//! what they set. It prints tables in Markdown and what it is doing, and changes no document.

use std::env;
use std::process::ExitCode;

use anyhow::{Context, ensure};
use ringside_tests::namespace;
use ringside_tests::tuning::{AREAS, Area, Samples, markdown, measure};

fn main() -> ExitCode {
    match namespace::run_program(run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tuning: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<()> {
    let rounds = match env::var("ROUNDS") {
        Ok(text) if !text.is_empty() => text
            .parse()
            .with_context(|| format!("ROUNDS is `{text}`; a whole number is allowed"))?,
        _ => 5_usize,
    };
    ensure!(rounds > 0, "ROUNDS is 0; 1 at least is needed");
    let only = env::var("ONLY").unwrap_or_default();
    let is_wanted = |text: &str| only.is_empty() || text.contains(&only);
    let mut samples: Vec<Vec<Samples>> = AREAS
        .iter()
        .map(|area| area.trials.iter().map(|_| Samples::default()).collect())
        .collect();
    for round in 0..rounds {
        for (area, samples) in AREAS.iter().zip(&mut samples) {
            for (trial, samples) in area.trials.iter().zip(samples) {
                if is_wanted(trial.before) || is_wanted(trial.after) {
                    let sides = measure(trial, round)
                        .with_context(|| format!("{} → {}", trial.before, trial.after))?;
                    eprintln!("{}/{rounds} {}: {sides:?}", round + 1, trial.after);
                    samples.add(sides);
                }
            }
        }
    }
    for (area, samples) in AREAS.iter().zip(samples) {
        let Area { name, .. } = area;
        println!("## {name}\n\n{}", markdown(area, &samples));
    }
    Ok(())
}
