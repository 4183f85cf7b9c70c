//! Wakes a worker from another thread, through an eventfd. It owns that descriptor and carries no message.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;

use super::Errno;

/// Wakes the worker it was made by. Cheap to clone; may be used from any thread, any number of times.
#[derive(Debug, Clone)]
pub struct Waker {
    eventfd: Arc<OwnedFd>,
}

impl Waker {
    /// # Errors
    /// What eventfd(2) says: EMFILE, ENFILE, ENOMEM.
    pub(crate) fn new() -> Result<Self, Errno> {
        // SAFETY: eventfd takes no pointers; the descriptor it returns is ours alone.
        let fd = Errno::check(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) })?;
        // SAFETY: the descriptor was just made and has no other owner.
        let eventfd = Arc::new(unsafe { OwnedFd::from_raw_fd(fd) });
        Ok(Waker { eventfd })
    }

    /// Makes the worker's wait end, now or when it next waits.
    pub fn wake(&self) {
        let one: u64 = 1;
        // SAFETY: `one` lives through the call and is 8 bytes long. A full counter (EAGAIN) means that the
        // worker has been woken already, so the result is of no interest.
        unsafe { libc::write(self.eventfd.as_raw_fd(), (&raw const one).cast(), 8) };
    }

    /// The descriptor to poll for reading.
    pub(crate) fn fd(&self) -> RawFd {
        self.eventfd.as_raw_fd()
    }

    /// Takes back all wakes so far. Says whether there were any.
    pub(crate) fn clear(&self) -> bool {
        let mut count: u64 = 0;
        // SAFETY: `count` lives through the call and is 8 bytes long; the descriptor does not block.
        unsafe { libc::read(self.eventfd.as_raw_fd(), (&raw mut count).cast(), 8) };
        count > 0
    }
}
