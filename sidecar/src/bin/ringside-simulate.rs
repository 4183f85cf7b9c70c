//! Replays runs of the simulation, and searches for seeds that fail.

use std::process::ExitCode;
use std::time::Instant;

use anstream::println;
use clap::{Parser, Subcommand};
use ringside::simulation::{Report, run};

/// Runs of the relay on a simulated kernel, each from one seed.
#[derive(Debug, Parser)]
#[command(name = "ringside-simulate")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Tell one run, step by step.
    Replay {
        /// The seed of the run.
        seed: u64,
    },
    /// Run many seeds, and say which fail.
    Search {
        /// How many.
        #[arg(default_value_t = 10_000)]
        count: u64,
        /// The first of them; random if not given.
        #[arg(long)]
        from: Option<u64>,
    },
}

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Replay { seed } => {
            let report = run(seed, true, None);
            for step in &report.steps {
                println!("{step}");
            }
            tell(&report)
        }
        Command::Search { count, from } => search(count, from),
    }
}

fn search(count: u64, from: Option<u64>) -> ExitCode {
    let first = from.unwrap_or_else(|| fastrand::u64(..));
    let began = Instant::now();
    let threads = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    // A run that panics is a run that failed: told as such, once.
    std::panic::set_hook(Box::new(|_| {}));
    let failed: Vec<Report> = std::thread::scope(|scope| {
        let part = |thread: u64| {
            (thread..count)
                .step_by(threads as usize)
                .map(|number| run(first.wrapping_add(number), false, None))
                .filter(|report| report.failure.is_some())
                .collect::<Vec<_>>()
        };
        let parts: Vec<_> = (0..threads)
            .map(|thread| scope.spawn(move || part(thread)))
            .collect();
        parts
            .into_iter()
            .flat_map(|part| part.join().unwrap_or_default())
            .collect()
    });
    println!(
        "{count} runs from seed {first} in {:.1} s, {} failed",
        began.elapsed().as_secs_f64(),
        failed.len()
    );
    for report in &failed {
        tell(report);
    }
    ExitCode::from(u8::from(!failed.is_empty()))
}

fn tell(report: &Report) -> ExitCode {
    match &report.failure {
        Some(failure) => {
            println!("seed {}: {failure}", report.seed);
            ExitCode::FAILURE
        }
        None => {
            println!(
                "seed {}: all is well after {:.3} s of its time; ends: {:?}; {:?}",
                report.seed,
                report.lasted_nanos as f64 / 1e9,
                report.ends,
                report.counts
            );
            ExitCode::SUCCESS
        }
    }
}
