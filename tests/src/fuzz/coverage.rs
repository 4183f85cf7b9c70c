//! Which parts of the code under test an input reached: counters that the compiler puts into every branch where it is
//! asked to (`make fuzz`), and none elsewhere. It owns reading and clearing them.
#![allow(unsafe_code)]

use std::fmt;
use std::slice;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// The counters of each part of the program, as addresses of the first and past the last.
static COUNTERS: Mutex<Vec<(usize, usize)>> = Mutex::new(Vec::new());

/// Called by each part of an instrumented program before `main` (clang, "SanitizerCoverage", inline 8-bit counters).
// SAFETY: nothing else has this name: it is the one that LLVM's instrumentation calls.
#[unsafe(no_mangle)]
extern "C" fn __sanitizer_cov_8bit_counters_init(start: *mut u8, end: *mut u8) {
    let mut counters = COUNTERS.lock().unwrap_or_else(PoisonError::into_inner);
    let part = (start as usize, end as usize);
    if part.0 < part.1 && !counters.contains(&part) {
        counters.push(part);
    }
}

/// What was reached so far.
pub(super) struct Coverage {
    /// For each counter the classes of counts that were seen, a bit each.
    seen: Vec<u8>,
    reached: usize,
}

impl Coverage {
    pub(super) fn new() -> Self {
        Self {
            seen: Vec::new(),
            reached: 0,
        }
    }

    /// Forgets what was counted since the last time: it was not the input's.
    pub(super) fn clear(&mut self) {
        self.each_count(|_, _, _| {});
    }

    /// Whether something new was reached since the last time.
    pub(super) fn reached_new(&mut self) -> bool {
        let mut new = false;
        self.each_count(|seen, reached, count| {
            let class = class_of(count);
            if *seen & class == 0 {
                *reached += usize::from(*seen == 0);
                *seen |= class;
                new = true;
            }
        });
        new
    }

    /// Calls `each` for every count above zero, with what is known of its counter, and clears it.
    fn each_count(&mut self, mut each: impl FnMut(&mut u8, &mut usize, u8)) {
        let mut base = 0;
        for &(start, end) in COUNTERS
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
        {
            // SAFETY: the program's own counters, which live as long as it; other threads count there by plain
            // stores of bytes, which an atomic of the same size takes as they come.
            let counters = unsafe { slice::from_raw_parts(start as *const AtomicU8, end - start) };
            if self.seen.len() < base + counters.len() {
                self.seen.resize(base + counters.len(), 0);
            }
            for (counter, seen) in counters.iter().zip(&mut self.seen[base..]) {
                let count = counter.load(Ordering::Relaxed);
                if count > 0 {
                    counter.store(0, Ordering::Relaxed);
                    each(seen, &mut self.reached, count);
                }
            }
            base += counters.len();
        }
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.seen.len() {
            0 => f.write_str("without coverage (a plain build)"),
            all => write!(
                f,
                "{} of the program's {all} branches reached",
                self.reached
            ),
        }
    }
}

/// Counts are told apart as once, twice, three times, and by powers of two above.
fn class_of(count: u8) -> u8 {
    match count {
        0 => 0,
        1 => 1,
        2 => 2,
        3 => 4,
        4..8 => 8,
        8..16 => 16,
        16..32 => 32,
        32..128 => 64,
        _ => 128,
    }
}

/// The CPU time that this thread has used: what else the machine does is no part of it.
pub fn cpu_time() -> Duration {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the kernel fills `time`.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
