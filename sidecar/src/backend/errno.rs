//! The kernel's error numbers as a value. It owns their names; it never decides what to do about one.

use std::fmt;

/// An error number of the kernel, positive as in errno.h.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Errno(pub i32);

impl Errno {
    /// The calling thread's last error.
    pub(crate) fn last() -> Self {
        Errno(
            std::io::Error::last_os_error()
                .raw_os_error()
                .unwrap_or(libc::EIO),
        )
    }

    /// Turns a system call's result into a value or the thread's last error.
    pub(crate) fn check(result: i32) -> Result<i32, Self> {
        if result < 0 {
            Err(Self::last())
        } else {
            Ok(result)
        }
    }

    /// The error of a library call, EIO where it carries none.
    pub fn of(error: &std::io::Error) -> Self {
        Errno(error.raw_os_error().unwrap_or(libc::EIO))
    }

    /// Out of file descriptors, of this process or of the machine.
    pub fn is_descriptors(self) -> bool {
        matches!(self.0, libc::EMFILE | libc::ENFILE)
    }

    /// Out of some memory; trying again later is right. EFAULT is among them: our addresses are good, so it says that a page
    /// behind one could not be had, as at the limit of a memory cgroup whose OOM killer is off.
    pub fn is_memory(self) -> bool {
        matches!(self.0, libc::ENOMEM | libc::ENOBUFS | libc::EFAULT)
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", std::io::Error::from_raw_os_error(self.0))
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Errno {}
