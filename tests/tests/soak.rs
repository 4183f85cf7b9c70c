//! The soak, short: that it still runs and ends well, and that it finds what is wrong. `make soak` runs it for longer.

use std::fs;
use std::time::Duration;

use ringside_tests::namespaced;
use ringside_tests::relay::Kind;
use ringside_tests::skip::build_folder;
use ringside_tests::soak::crowd::Sabotage;
use ringside_tests::soak::{Options, Report, run};

/// In seconds nothing gets warm: a first ring that is lost, a first storm still take memory for the first time. What a leak of
/// descriptors or a loss is does not depend on it, and growth over a long time is for a long soak.
const FLOOR_BYTES: u64 = 6 << 20;

/// A soak of so many seconds, from a seed that nobody has seen.
fn soak(name: &str, kind: Kind, seconds: u64, sabotage: Option<Sabotage>) -> (Options, Report) {
    let options = Options {
        seed: fastrand::u64(..),
        length: Duration::from_secs(seconds),
        kind,
        workers: 2,
        clients: 16,
        folder: build_folder().with_file_name("soak-tests").join(name),
        warm_up: 2,
        floor_bytes: FLOOR_BYTES,
        sabotage,
        tells: false,
    };
    let report = run(&options);
    (options, report)
}

#[track_caller]
fn ends_well(name: &str, kind: Kind, seconds: u64) {
    let (options, report) = soak(name, kind, seconds, None);
    assert!(
        report.problems.is_empty(),
        "seed {}, logs in {}: {:#?}",
        options.seed,
        options.folder.display(),
        report.problems
    );
    let totals = report.totals;
    assert!(totals.complete > 100, "{totals:?}");
    assert_eq!(
        totals.connections,
        totals.complete + totals.cut_short + totals.turned_away
    );
    assert_eq!(report.comparisons.len(), 1, "the second half's process");
    assert!(report.faults.iter().any(|fault| fault.group == "restart"));
    let svg = fs::read_to_string(options.folder.join("soak.svg")).unwrap();
    assert!(svg.contains("resident memory"));
    let csv = fs::read_to_string(options.folder.join("samples.csv")).unwrap();
    assert_eq!(csv.lines().count(), report.samples.len() + 1);
}

#[track_caller]
fn fails(name: &str, sabotage: Sabotage, part: &str) {
    let (_, report) = soak(name, Kind::Ring, 8, Some(sabotage));
    let problems = &report.problems;
    assert!(
        problems.iter().any(|problem| problem.contains(part)),
        "{problems:#?}"
    );
}

namespaced!(on_the_ring, ends_well("ring", Kind::Ring, 20));
namespaced!(on_epoll, ends_well("epoll", Kind::Epoll, 20));
namespaced!(
    foreign_bytes_are_found,
    fails("foreign", Sabotage::ForeignBytes, "belongs nowhere near")
);
namespaced!(
    an_early_end_without_a_fault_is_found,
    fails("early", Sabotage::EndEarly, "no fault explains it")
);
