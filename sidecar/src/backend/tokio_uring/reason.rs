//! Why a ring does not answer, which tokio-uring tells nobody: a small ring of our own is asked in its place.
//!
//! It owns that ring, which exists only while there is something to ask. What is forbidden to one ring of a thread is
//! forbidden to the other; what the kernel is short of it is short of for both.

use io_uring::types::{SubmitArgs, Timespec};
use io_uring::{EnterFlags, IoUring, opcode};

use crate::backend::ring::outcome::classify;
use crate::backend::{Errno, Outcome};

/// What the kernel said when it was last asked.
#[derive(Default)]
pub(super) struct Reason {
    ring: Option<IoUring>,
    said: Option<(Outcome, Option<Errno>)>,
}

impl Reason {
    /// What a submission came to.
    pub(super) fn outcome(&self) -> Option<Outcome> {
        self.said.map(|(outcome, _)| outcome)
    }

    /// The error that it failed with, if it did.
    pub(super) fn errno(&self) -> Option<Errno> {
        self.said.and_then(|(_, errno)| errno)
    }

    /// Asks by one no-op.
    pub(super) fn ask(&mut self) {
        let mut ring = match self.ring.take().map_or_else(|| IoUring::new(2), Ok) {
            Ok(ring) => ring,
            Err(error) => {
                let errno = Some(Errno::of(&error));
                self.said = Some((classify(1, 0, errno), errno));
                return;
            }
        };
        if ring.submission().is_empty() {
            // SAFETY: a no-op points at nothing.
            let _ = unsafe { ring.submission().push(&opcode::Nop::new().build()) };
        }
        let offered = ring.submission().len() as u32;
        let limit = Timespec::new();
        let arguments = SubmitArgs::new().timespec(&limit);
        let flags = EnterFlags::GETEVENTS | EnterFlags::EXT_ARG;
        // SAFETY: EXT_ARG goes with SubmitArgs, which is what the kernel then expects.
        let entered = unsafe {
            ring.submitter()
                .enter(offered, 0, flags.bits(), Some(&arguments))
        };
        let taken = offered - ring.submission().len() as u32;
        ring.completion().for_each(drop);
        let errno = entered.err().map(|error| Errno::of(&error));
        self.said = Some((classify(offered, taken, errno), errno));
        self.ring = Some(ring);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_that_takes_a_submission_gives_no_reason() {
        let mut reason = Reason::default();
        assert_eq!((reason.outcome(), reason.errno()), (None, None));
        reason.ask();
        // Where io_uring is blocked, that is the reason.
        match reason.outcome() {
            Some(Outcome::All) => assert_eq!(reason.errno(), None),
            other => assert!(reason.errno().is_some(), "{other:?}"),
        }
    }
}
