//! Fuzzing on the stable toolchain: inputs are mutated from a corpus, tried, and kept when they reach something new.
//!
//! It owns the loop, its limits and how a finding is told. With the build that `make fuzz` makes, the code under test
//! counts where it goes and inputs are kept by that; in a plain build there are no such counts, and it mutates the
//! corpus and no more. What an input must fulfil is the target's to say.

mod corpus;
mod coverage;
mod mutation;

use std::env;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use corpus::Corpus;
use coverage::Coverage;
pub use coverage::cpu_time;
use mutation::Mutator;

/// How long a target is fuzzed where nobody says: `RINGSIDE_FUZZ_SECONDS` does.
const SECONDS: u64 = 2;

/// The longest input, in bytes. What is longer is tried by tests of its own, which look at how time grows.
const INPUT_BYTES_MAX: usize = 4096;

/// The most CPU time that one input may take: hundreds of times what any takes in an unoptimised build.
const INPUT_LIMIT: Duration = Duration::from_millis(500);

/// What is fuzzed.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name, and its corpus's folder in `tests/corpus/`.
    pub name: &'static str,
    /// Words that its inputs are made of.
    pub words: &'static [&'static str],
}

impl Target {
    /// Tries inputs for a while. `check` panics where an input does not do as it must.
    ///
    /// # Panics
    /// With the smallest input found that fails, and the file it was written to.
    pub fn fuzz(&self, mut check: impl FnMut(&[u8])) {
        // The counts of coverage are the process's: one target at a time.
        static ONE: Mutex<()> = Mutex::new(());
        let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        let time = Duration::from_secs(number("RINGSIDE_FUZZ_SECONDS").unwrap_or(SECONDS));
        let seed = number("RINGSIDE_FUZZ_SEED").unwrap_or_else(|| fastrand::u64(..));
        let mut mutator = Mutator::new(seed, self.words, INPUT_BYTES_MAX);
        let mut coverage = Coverage::new();
        let mut corpus = Corpus::open(self.name);
        let mut tried = 0_u64;
        for input in corpus.inputs().to_vec() {
            coverage.clear();
            self.try_one(&input, &mut check);
            coverage.reached_new();
            tried += 1;
        }
        let began = Instant::now();
        while began.elapsed() < time {
            let input = mutator.next(corpus.inputs());
            coverage.clear();
            self.try_one(&input, &mut check);
            tried += 1;
            if coverage.reached_new() {
                corpus.add(input);
            }
        }
        if env::var_os("RINGSIDE_FUZZ_DISTILL").is_some() {
            let mut fresh = Coverage::new();
            corpus.distill(|input| {
                fresh.clear();
                check(input);
                fresh.reached_new()
            });
        }
        // Straight to standard error: cargo hides what a test that passes prints.
        use std::io::Write;
        let _ = writeln!(
            std::io::stderr(),
            "fuzz {}: {tried} inputs in {:.0?} from seed {seed}, {} in the corpus, {coverage}",
            self.name,
            began.elapsed(),
            corpus.inputs().len(),
        );
    }

    fn try_one(&self, input: &[u8], check: &mut impl FnMut(&[u8])) {
        let Err(why) = fails(input, check) else {
            return;
        };
        let smallest = smaller(input.to_vec(), |input| fails(input, check).is_err());
        let path = corpus::keep_finding(self.name, &smallest);
        panic!(
            "{} fails with \"{}\": {why}; the input is in {}, put it into tests/corpus/{} when it is mended",
            self.name,
            smallest.escape_ascii(),
            path.display(),
            self.name,
        );
    }
}

fn number(variable: &str) -> Option<u64> {
    let text = env::var(variable).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{variable}={text} is no number")),
    )
}

/// Why an input fails, if it does.
fn fails(input: &[u8], check: &mut impl FnMut(&[u8])) -> Result<(), String> {
    let before = cpu_time();
    panic::catch_unwind(AssertUnwindSafe(|| check(input))).map_err(|panicked| {
        let text = panicked.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panicked.downcast_ref::<&str>().map(|&text| text.to_owned()));
        text.unwrap_or_else(|| "it panicked".to_owned())
    })?;
    let took = cpu_time().saturating_sub(before);
    if took > INPUT_LIMIT {
        return Err(format!("it took {took:?} of CPU time"));
    }
    Ok(())
}

/// An input that still `fails`, with as much left out as can be.
fn smaller(mut input: Vec<u8>, mut fails: impl FnMut(&[u8]) -> bool) -> Vec<u8> {
    let mut piece = input.len() / 2;
    while piece > 0 {
        let mut at = 0;
        while at < input.len() {
            let mut less = input.clone();
            less.drain(at..(at + piece).min(input.len()));
            if fails(&less) {
                input = less;
            } else {
                at += piece;
            }
        }
        piece /= 2;
    }
    input
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_is_found_and_made_small() {
        let target = Target {
            name: "of-itself",
            words: &["needle"],
        };
        let found = panic::catch_unwind(|| {
            target.fuzz(|input| {
                let text = String::from_utf8_lossy(input);
                assert!(!text.contains("needle"), "a needle");
            });
        });
        let said = found
            .unwrap_err()
            .downcast_ref::<String>()
            .cloned()
            .unwrap();
        assert!(said.contains("fails with \"needle\": a needle"), "{said}");
    }
}
