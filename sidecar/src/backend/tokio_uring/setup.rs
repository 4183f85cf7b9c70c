//! Making a runtime whose ring was seen working, with memory for what is to run on it.
//!
//! It owns the sizes. Nothing here runs once the worker turns.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use ::tokio_uring::Runtime;

use super::entries::{Kind, Request};
use super::reason::Reason;
use super::runtime::Driven;
use crate::backend::choice::SetupError;
use crate::backend::epoll::calls::Interest;
use crate::backend::{Errno, Waker};

/// Entries of the submission queue. A batch and its canary are always fewer.
pub(super) const SUBMISSION_ENTRIES: u32 = 512;

/// The kernel's limit for a completion queue.
const COMPLETION_ENTRIES_MOST: u32 = 1 << 16;

/// A completion queue smaller than this is not worth having.
const COMPLETION_ENTRIES_LEAST: u32 = 2 * SUBMISSION_ENTRIES;

/// A trial that hangs would be worse than one that fails.
const PATIENCE: Duration = Duration::from_secs(1);

/// tokio-uring's own runtime.
pub(super) fn build(entries: u32, completions: u32) -> Result<Runtime, SetupError> {
    let mut ring = ::tokio_uring::uring_builder();
    ring.setup_cqsize(completions)
        .setup_submit_all()
        .setup_coop_taskrun();
    let mut builder = ::tokio_uring::builder();
    builder.entries(entries).uring_builder(&ring);
    // It unwraps what epoll says about the ring.
    let built = catch_unwind(AssertUnwindSafe(|| Runtime::new(&builder)));
    built
        .unwrap_or_else(|_| Err(std::io::Error::from_raw_os_error(libc::EBADF)))
        .map_err(SetupError::at("io_uring_setup for tokio-uring"))
}

/// A runtime whose ring has answered, and the most requests that may be on the way in it: fewer than completions
/// have room, so that none of them ever overflows.
pub(super) fn make(
    operations: u32,
    waker: &Waker,
    streams: &Interest,
) -> Result<(Driven, u32), SetupError> {
    let mut completions = operations
        .saturating_add(SUBMISSION_ENTRIES)
        .min(COMPLETION_ENTRIES_MOST)
        .next_power_of_two();
    let mut driven = loop {
        match Driven::new(SUBMISSION_ENTRIES, completions, waker, streams) {
            // A smaller ring may still fit the limit of locked memory.
            Err(error)
                if error.errno.0 == libc::ENOMEM && completions > COMPLETION_ENTRIES_LEAST =>
            {
                completions /= 2;
            }
            made => break made?,
        }
    };
    // What every turn rests on: a cancel by descriptor, and a canary behind it.
    let trial = vec![Request::of(waker.fd(), Kind::Cancel)];
    if !driven.finish(trial, PATIENCE) {
        let mut reason = Reason::default();
        reason.ask();
        let errno = reason.errno().unwrap_or(Errno(libc::ETIME));
        return Err(SetupError::new("a no-op by tokio-uring", errno));
    }
    match driven.answers().next() {
        // ENOENT: there was nothing to cancel.
        Some(answer) if answer.result >= 0 || answer.result == -libc::ENOENT => {}
        Some(answer) => {
            return Err(SetupError::new(
                "a cancel by tokio-uring",
                Errno(-answer.result),
            ));
        }
        None => {}
    }
    Ok((driven, completions - SUBMISSION_ENTRIES))
}

/// Makes the kernel allocate requests for `operations` in flight, which it keeps for later, as polls of an eventfd
/// that then speaks. Returns for how many.
pub(super) fn prewarm(driven: &mut Driven, operations: u32) -> Result<u32, SetupError> {
    let step = "prewarming requests for tokio-uring";
    let silent = Waker::new().map_err(|errno| SetupError::new(step, errno))?;
    let batch = SUBMISSION_ENTRIES / 2;
    let mut made = 0;
    while made < operations && driven.takes_more() {
        let polls = (0..batch).map(|_| Request::of(silent.fd(), Kind::Prewarm));
        driven.turn(polls.collect(), None, true);
        made += batch;
    }
    silent.wake();
    if driven.finish(Vec::new(), PATIENCE) {
        Ok(made)
    } else {
        Err(SetupError::new(step, Errno(libc::ETIME)))
    }
}
