//! A real io_uring program for the injector's own tests: submits no-ops one by one and tells what the kernel answered.
//!
//! `submit-noops COUNT THREADS`: waits for a line on standard input, then each thread submits until COUNT no-ops were
//! taken, reaping each with a call that only waits. Prints `taken=N waits=N` and how often which error came.
// A submission queue can only be filled by unsafe code.
#![allow(unsafe_code)]

use std::collections::BTreeMap;
use std::env;
use std::io;
use std::thread;

use io_uring::{IoUring, opcode};
// What a build for fuzzing calls at the start of every program is in the library.
use ringside_tests as _;

#[derive(Default)]
struct Tally {
    taken: u64,
    waits: u64,
    errors: BTreeMap<i32, u64>,
}

fn submit(count: u64) -> io::Result<Tally> {
    let mut ring = IoUring::new(8)?;
    let mut tally = Tally::default();
    while tally.taken < count {
        // SAFETY: a no-op points at nothing.
        let pushed = unsafe { ring.submission().push(&opcode::Nop::new().build()) };
        pushed.map_err(io::Error::other)?;
        // The entry stays queued until it is taken, as it would in a relay.
        loop {
            match ring.submit() {
                Ok(taken) => {
                    assert_eq!(taken, 1, "one no-op was offered");
                    tally.taken += 1;
                    break;
                }
                Err(error) => {
                    let errno = error.raw_os_error().unwrap_or(0);
                    *tally.errors.entry(errno).or_default() += 1;
                }
            }
        }
        ring.submit_and_wait(1)?;
        tally.waits += 1;
        assert_eq!(ring.completion().count(), 1, "a no-op completes once");
    }
    Ok(tally)
}

fn main() -> io::Result<()> {
    let mut numbers = env::args()
        .skip(1)
        .map(|text| text.parse().map_err(io::Error::other));
    let count = numbers.next().unwrap_or(Ok(100))?;
    let threads = numbers.next().unwrap_or(Ok(1))?;
    io::stdin().read_line(&mut String::new())?;

    let running: Vec<_> = (0..threads)
        .map(|_| thread::spawn(move || submit(count)))
        .collect();
    let mut sum = Tally::default();
    for thread in running {
        let tally = thread
            .join()
            .map_err(|_| io::Error::other("a thread panicked"))??;
        sum.taken += tally.taken;
        sum.waits += tally.waits;
        for (errno, times) in tally.errors {
            *sum.errors.entry(errno).or_default() += times;
        }
    }
    print!("taken={} waits={}", sum.taken, sum.waits);
    for (errno, times) in sum.errors {
        print!(" {errno}={times}");
    }
    println!();
    Ok(())
}
