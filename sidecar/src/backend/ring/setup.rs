//! Making a ring: built disabled, restricted to the operations in use, enabled, tried, prewarmed.
//!
//! It owns the sizes. Nothing here runs once the worker turns.

use std::time::Duration;

use io_uring::types::{Fd, SubmitArgs, Timespec};
use io_uring::{EnterFlags, IoUring, opcode};

use super::allowed::Allowed;
use super::buffers::{Buffers, GROUP};
use super::entries;
use crate::backend::choice::SetupError;
use crate::backend::pool::Pool;
use crate::backend::{Errno, Waker};

/// Entries of the submission queue. More would only lengthen a turn; memory for it counts as locked.
const SUBMISSION_ENTRIES: u32 = 512;

/// Completions for each submission entry. Twice, the kernel's default, overflows under multishot operations.
const COMPLETIONS_PER_SUBMISSION: u32 = 8;

/// A ring smaller than this is not worth having.
const SUBMISSION_ENTRIES_LEAST: u32 = 64;

/// A trial that hangs would be worse than one that fails.
const PATIENCE: Duration = Duration::from_secs(1);

/// Submissions that the kernel may refuse in a row during set-up, a millisecond apart, before it counts as
/// unusable.
const REFUSALS_MOST: u32 = 100;

/// A ring that was seen working.
pub(super) struct Made {
    pub(super) ring: IoUring,
    pub(super) buffers: Buffers,
    pub(super) exact_receive_limit: bool,
    pub(super) bundles: bool,
}

/// Builds, restricts, enables and tries a ring.
pub(super) fn make(
    pool: &mut Pool,
    want_incremental: bool,
    allowed: &Allowed,
) -> Result<Made, SetupError> {
    let ring = build()?;
    let buffers = Buffers::register(&ring, want_incremental)
        .map_err(|errno| SetupError::new("io_uring_register of the buffer ring", errno))?;
    allowed.restrict(&ring)?;
    ring.submitter()
        .register_enable_rings()
        .map_err(SetupError::at("io_uring_register to enable the ring"))?;
    let mut made = Made {
        ring,
        buffers,
        exact_receive_limit: false,
        bundles: false,
    };
    try_out(&mut made.ring)?;
    made.exact_receive_limit = try_receive(&mut made, pool, false)?;
    made.bundles = !made.buffers.is_incremental() && try_receive(&mut made, pool, true).is_ok();
    Ok(made)
}

fn build() -> Result<IoUring, SetupError> {
    let mut entries = SUBMISSION_ENTRIES;
    loop {
        let built = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_submit_all()
            .setup_r_disabled()
            .setup_cqsize(entries * COMPLETIONS_PER_SUBMISSION)
            .build(entries);
        match built {
            // A smaller ring may still fit the limit of locked memory.
            Err(error)
                if error.raw_os_error() == Some(libc::ENOMEM)
                    && entries > SUBMISSION_ENTRIES_LEAST =>
            {
                entries /= 2;
            }
            built => return built.map_err(SetupError::at("io_uring_setup")),
        }
    }
}

/// One no-op and one timed wait: what every turn of the loop rests on.
fn try_out(ring: &mut IoUring) -> Result<(), SetupError> {
    push(ring, &opcode::Nop::new().build());
    wait(ring, 1, PATIENCE).map_err(SetupError::at("io_uring_enter with a no-op"))?;
    let result = ring.completion().next().map(|cqe| cqe.result());
    if result != Some(0) {
        return Err(SetupError::new(
            "a no-op on the ring",
            Errno(result.map_or(libc::EIO, |r| -r)),
        ));
    }
    match wait(ring, 1, Duration::from_nanos(1)) {
        Err(error) if error.raw_os_error() == Some(libc::ETIME) => Ok(()),
        Err(error) => Err(SetupError::at("a timed wait on the ring")(error)),
        Ok(_) => Ok(()),
    }
}

/// A real multishot receive over a socket pair, of more bytes than its limit. Says whether it brought no more and ended
/// there: kernels before 6.17 refuse a limit.
fn try_receive(made: &mut Made, pool: &mut Pool, bundle: bool) -> Result<bool, SetupError> {
    const LIMIT_BYTES: u32 = 4;
    let step = "a multishot receive on the ring";
    made.buffers.refill(pool);
    let (near, far) =
        std::os::unix::net::UnixStream::pair().map_err(SetupError::at("socketpair"))?;
    std::io::Write::write_all(&mut &far, b"tried").map_err(SetupError::at("socketpair"))?;
    for limit in [LIMIT_BYTES, 0] {
        let fd = std::os::fd::AsRawFd::as_raw_fd(&near);
        push(
            &mut made.ring,
            &entries::receive(fd, GROUP, limit, bundle).user_data(1),
        );
        wait(&mut made.ring, 1, PATIENCE).map_err(SetupError::at(step))?;
        let cqe = made
            .ring
            .completion()
            .next()
            .ok_or(SetupError::new(step, Errno(libc::EIO)))?;
        let more = io_uring::cqueue::more(cqe.flags());
        let keeps_to_limit = limit != 0 && cqe.result() <= LIMIT_BYTES as i32;
        match (cqe.result(), io_uring::cqueue::buffer_select(cqe.flags())) {
            (got @ 1.., Some(entry)) => {
                let goes_on = io_uring::cqueue::buffer_more(cqe.flags());
                let mut chunks = Vec::new();
                made.buffers
                    .take(pool, u32::from(entry), got as u32, goes_on, |chunk, _| {
                        chunks.push(chunk);
                    });
                chunks.into_iter().for_each(|chunk| {
                    pool.release(chunk);
                });
            }
            // This kernel does not know limits: without one, then.
            (refused, _) if refused == -libc::EINVAL && limit != 0 => continue,
            (result, _) => return Err(SetupError::new(step, Errno(-result))),
        }
        if more {
            // The end of the stream ends it.
            drop(far);
            wait(&mut made.ring, 1, PATIENCE).map_err(SetupError::at(step))?;
            if let Some(cqe) = made.ring.completion().next()
                && let Some(entry) = io_uring::cqueue::buffer_select(cqe.flags())
            {
                let goes_on = io_uring::cqueue::buffer_more(cqe.flags());
                made.buffers.take_empty(pool, u32::from(entry), goes_on);
            }
            return Ok(false);
        }
        return Ok(keeps_to_limit);
    }
    Err(SetupError::new(step, Errno(libc::EINVAL)))
}

/// Puts as many requests into the kernel's cache as operations may be in flight, so that running out of
/// memory for them is seen now, if at all, and not under load. Returns how many there are.
///
/// A no-op would come back before the next one is made; a poll of a silent descriptor stays, so that the
/// kernel has to allocate them all. Then the descriptor speaks, and all come back at once: cancelling them
/// one by one takes ten times as long.
pub(super) fn prewarm(ring: &mut IoUring, operations: u32) -> Result<u32, SetupError> {
    let step = "prewarming requests on the ring";
    let silent = Waker::new().map_err(|errno| SetupError::new(step, errno))?;
    let batch = ring.params().sq_entries();
    let mut made = 0;
    while made < operations {
        for _ in 0..batch {
            push(
                ring,
                &opcode::PollAdd::new(Fd(silent.fd()), libc::POLLIN as u32).build(),
            );
        }
        made += batch;
        let calm = submit_all(ring, step)?;
        if !calm {
            // The kernel is short of memory already: what there is will do.
            break;
        }
    }
    silent.wake();
    let mut left = made;
    while left > 0 {
        // The kernel runs as many completions in one call as are waited for.
        wait(ring, left.min(batch), PATIENCE).map_err(SetupError::at(step))?;
        left = left.saturating_sub(ring.completion().count() as u32);
    }
    Ok(made)
}

/// Has the kernel take all that is queued, in smaller and smaller portions while it pushes back: an entry
/// must not stay in the queue when what it points at is gone. Says whether it went without pushback.
fn submit_all(ring: &mut IoUring, step: &'static str) -> Result<bool, SetupError> {
    let most = ring.params().sq_entries();
    let mut portion = most;
    let (mut calm, mut refusals) = (true, 0);
    while !ring.submission().is_empty() {
        let before = ring.submission().len();
        let entered = enter(ring, portion, 0, Duration::ZERO);
        // The head is believed, not the returned count.
        if ring.submission().len() < before {
            refusals = 0;
            portion = (portion * 2).min(most);
            continue;
        }
        calm = false;
        refusals += 1;
        match entered {
            Err(error) if refusals > REFUSALS_MOST || !passes(&error) => {
                return Err(SetupError::at(step)(error));
            }
            Ok(_) if refusals > REFUSALS_MOST => {
                return Err(SetupError::new(step, Errno(libc::EAGAIN)));
            }
            _ => {}
        }
        portion = (portion / 2).max(1);
        let _ = enter(ring, 0, 1, Duration::from_millis(1));
    }
    Ok(calm)
}

/// Whether trying again is right.
fn passes(error: &std::io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EAGAIN | libc::EBUSY | libc::EINTR | libc::ENOMEM | libc::ETIME)
    )
}

fn push(ring: &mut IoUring, entry: &io_uring::squeue::Entry) {
    // SAFETY: the entries of this file point at nothing, or at a socket or eventfd that outlives their
    // completion. A full queue drops the entry, which only ends the trial early.
    let _ = unsafe { ring.submission().push(entry) };
}

/// Has the kernel take all that is queued and waits for so many completions.
fn wait(ring: &mut IoUring, want: u32, limit: Duration) -> std::io::Result<usize> {
    submit_all(ring, "io_uring_enter")
        .map_err(|error| std::io::Error::from_raw_os_error(error.errno.0))?;
    let mut refusals = 0;
    loop {
        match enter(ring, 0, want, limit) {
            // The wait's own end; everything else that passes is tried again.
            Err(error)
                if error.raw_os_error() != Some(libc::ETIME)
                    && passes(&error)
                    && refusals < REFUSALS_MOST =>
            {
                refusals += 1;
            }
            other => return other,
        }
    }
}

fn enter(ring: &mut IoUring, most: u32, want: u32, limit: Duration) -> std::io::Result<usize> {
    // Asked to take more than there is, the kernel would return before it runs a completion.
    let offered = most.min(ring.submission().len() as u32);
    let limit = Timespec::from(limit);
    let arguments = SubmitArgs::new().timespec(&limit);
    let flags = EnterFlags::GETEVENTS | EnterFlags::EXT_ARG;
    // SAFETY: EXT_ARG goes with SubmitArgs, which is what the kernel then expects.
    unsafe {
        ring.submitter()
            .enter(offered, want, flags.bits(), Some(&arguments))
    }
}
