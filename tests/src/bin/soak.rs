//! `make soak`: runs the soak in a network namespace of its own, and ends with code 0 only if all is well.

use std::process::ExitCode;
use std::time::Duration;
use std::{env, fs, path::PathBuf};

use anyhow::{Context, bail};
use ringside_tests::namespace;
use ringside_tests::relay::Kind;
use ringside_tests::skip::build_folder;
use ringside_tests::soak::judging::{FLOOR_BYTES, WARM_UP};
use ringside_tests::soak::{Options, Report, run};

/// With less the last process would not outlive its warm-up.
const LEAST_MINUTES: f64 = 1.5;

fn main() -> ExitCode {
    match namespace::run_program(|| start(&options()?)) {
        Ok(report) if report.problems.is_empty() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("soak: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// A variable as a number; `otherwise` where it is unset or empty.
fn number(name: &str, otherwise: f64) -> anyhow::Result<f64> {
    match env::var(name) {
        Ok(text) if !text.is_empty() => text
            .parse()
            .ok()
            .filter(|number: &f64| number.is_finite() && *number > 0.0)
            .with_context(|| format!("{name} is `{text}`; a number above 0 is allowed")),
        _ => Ok(otherwise),
    }
}

fn options() -> anyhow::Result<Options> {
    let backend = env::var("BACKEND").unwrap_or_default();
    let kind = match backend.as_str() {
        "" | "ring" => Kind::Ring,
        "epoll" => Kind::Epoll,
        "tokio-uring" => Kind::TokioUring,
        other => bail!("BACKEND is `{other}`; ring, epoll and tokio-uring are allowed"),
    };
    let seed = match env::var("SEED") {
        Ok(text) if !text.is_empty() => text
            .parse()
            .with_context(|| format!("SEED is `{text}`; a whole number is allowed"))?,
        _ => fastrand::u64(1..1_000_000_000),
    };
    let minutes = number("MINUTES", 10.0)?.min(100_000.0);
    if minutes < LEAST_MINUTES {
        bail!(
            "MINUTES is {minutes}; {LEAST_MINUTES} at least are needed to warm up and to compare"
        );
    }
    let folder = build_folder().with_file_name("soak");
    Ok(Options {
        seed,
        length: Duration::from_secs_f64(60.0 * minutes),
        kind,
        workers: number("WORKERS", 2.0)? as u32,
        clients: number("CLIENTS", 40.0)? as u64,
        folder,
        warm_up: WARM_UP,
        floor_bytes: FLOOR_BYTES,
        sabotage: None,
        tells: true,
    })
}

fn start(options: &Options) -> anyhow::Result<Report> {
    clear(&options.folder)?;
    println!(
        "soak of {:.1} minutes on {} with {} workers and {} clients, seed {} (SEED={} makes the same plan again)",
        options.length.as_secs_f64() / 60.0,
        options.kind.backend(),
        options.workers,
        options.clients,
        options.seed,
        options.seed
    );
    let report = run(options);
    tell(options, &report);
    Ok(report)
}

/// Removes what an earlier soak left.
fn clear(folder: &PathBuf) -> anyhow::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("{} cannot be cleared", folder.display()))
        }
        _ => Ok(()),
    }
}

fn tell(options: &Options, report: &Report) {
    let mib = |bytes: u64| bytes as f64 / 1_048_576.0;
    let totals = report.totals;
    println!(
        "\n{} connections in {:.0} s: {} complete, {} cut short and {} turned away by faults; {:.1} GB relayed, {} faults",
        totals.connections,
        report.seconds,
        totals.complete,
        totals.cut_short,
        totals.turned_away,
        report.relayed_bytes / 1e9,
        report.faults.len()
    );
    for comparison in &report.comparisons {
        let (begin, end) = (comparison.begin, comparison.end);
        println!(
            "process {}: {:.1} MiB and {} descriptors after warm-up, {:.1} MiB and {} after {:.0} s more",
            begin.life,
            mib(begin.resident_bytes),
            begin.descriptors,
            mib(end.resident_bytes),
            end.descriptors,
            (end.at - begin.at).as_secs_f64()
        );
    }
    println!("{}", options.folder.join("soak.svg").display());
    for problem in report.problems.iter().take(20) {
        println!("FAILED: {problem}");
    }
    if report.problems.is_empty() {
        println!("no byte was lost, and nothing has grown");
    } else {
        println!(
            "{} problems after {:.0} s; seed {}; logs of the relays in {}",
            report.problems.len(),
            report.seconds,
            report.seed,
            options.folder.display()
        );
    }
}
