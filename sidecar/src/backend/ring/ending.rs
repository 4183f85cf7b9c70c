//! The end of a ring: what is in flight is cancelled, and has ended before its memory goes.
//!
//! It owns how long that may take. It never submits: what is still queued the kernel has not seen, and will not.

use std::time::{Duration, Instant};

use io_uring::types::{CancelBuilder, Timespec};
use io_uring::{EnterFlags, IoUring};

use crate::backend::{OperationKind, SocketId, Token, sockets};

/// How long operations may take to end once they are cancelled. They are sockets' and polls', which end at once; a worker
/// that replaces a broken ring waits for it.
const PATIENCE: Duration = Duration::from_millis(100);

/// Ends all operations of a ring. Returns whether none is left that may use memory.
pub(super) fn end(ring: &mut IoUring) -> bool {
    let begin = Instant::now();
    while begin.elapsed() < PATIENCE {
        // All of them, and those that a thread of the kernel's is at are waited for.
        let limit = Timespec::from(PATIENCE.saturating_sub(begin.elapsed()));
        let cancelled = ring
            .submitter()
            .register_sync_cancel(Some(limit), CancelBuilder::any());
        // Sends that were ready to go on do so here, or find out that they are cancelled.
        // SAFETY: without EXT_ARG the kernel takes no argument, and it reads no entry when it is to take none.
        let _ = unsafe {
            ring.submitter()
                .enter::<()>(0, 0, EnterFlags::GETEVENTS.bits(), None)
        };
        let came = drop_completions(ring);
        // Success says that none was found that could not be cancelled: perhaps that none was found at all.
        if cancelled.is_ok() && came == 0 {
            return true;
        }
    }
    false
}

/// Takes what has completed. Connections accepted meanwhile belong to nobody.
fn drop_completions(ring: &mut IoUring) -> usize {
    ring.completion()
        .inspect(|cqe| {
            let token = Token::from_bits(cqe.user_data());
            if token.kind() == OperationKind::Accept && cqe.result() >= 0 {
                sockets::close(SocketId(cqe.result()), true);
            }
        })
        .count()
}
