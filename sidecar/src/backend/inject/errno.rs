//! The error numbers that can be ordered, by the names that kernel people use.
//!
//! Only numbers that `io_uring_enter` or `io_uring_setup` really answer somewhere: an injected error that no
//! kernel gives would prove nothing.

use std::fmt;
use std::str::FromStr;

/// An error number that an injected fault answers with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Errno(i32);

const NAMES: [(&str, Errno); 10] = [
    ("EAGAIN", Errno::EAGAIN),
    ("EPERM", Errno::EPERM),
    ("EINTR", Errno::EINTR),
    ("EBUSY", Errno::EBUSY),
    ("ENOMEM", Errno::ENOMEM),
    ("EBADR", Errno::EBADR),
    ("EINVAL", Errno::EINVAL),
    ("ENOSYS", Errno::ENOSYS),
    ("EOPNOTSUPP", Errno::EOPNOTSUPP),
    ("EBADFD", Errno::EBADFD),
];

impl Errno {
    /// No request structure could be had: the pushback that this project is about.
    pub const EAGAIN: Self = Self(libc::EAGAIN);
    /// Forbidden, as by a seccomp profile that changed or `kernel.io_uring_disabled`.
    pub const EPERM: Self = Self(libc::EPERM);
    /// A signal came first.
    pub const EINTR: Self = Self(libc::EINTR);
    /// The completion queue is full (kernels before 6.2).
    pub const EBUSY: Self = Self(libc::EBUSY);
    /// No memory for the task's context.
    pub const ENOMEM: Self = Self(libc::ENOMEM);
    /// Completions were lost.
    pub const EBADR: Self = Self(libc::EBADR);
    /// Flags that this kernel does not know, or gVisor.
    pub const EINVAL: Self = Self(libc::EINVAL);
    /// No such system call, as CRI-O's and Podman's default profiles answer.
    pub const ENOSYS: Self = Self(libc::ENOSYS);
    /// As some managed clusters answer.
    pub const EOPNOTSUPP: Self = Self(libc::EOPNOTSUPP);
    /// The ring is in the wrong state.
    pub const EBADFD: Self = Self(libc::EBADFD);

    /// The number itself, positive.
    pub const fn number(self) -> i32 {
        self.0
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match NAMES.iter().find(|(_, errno)| errno == self) {
            Some((name, _)) => f.write_str(name),
            None => write!(f, "errno {}", self.0),
        }
    }
}

/// The name is none that can be injected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{}` is not an error that can be injected; one of {} is",
    shown(given),
    all_names()
)]
pub struct UnknownErrno {
    given: String,
}

/// Somebody's words, short and on one line, as the control socket answers by lines.
pub(super) fn shown(given: &str) -> String {
    given
        .chars()
        .take(80)
        .flat_map(char::escape_debug)
        .collect()
}

fn all_names() -> String {
    NAMES.map(|(name, _)| name).join(", ")
}

impl FromStr for Errno {
    type Err = UnknownErrno;

    fn from_str(given: &str) -> Result<Self, UnknownErrno> {
        NAMES
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(given))
            .map(|&(_, errno)| errno)
            .ok_or_else(|| UnknownErrno {
                given: given.to_owned(),
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_reads_back() {
        for (name, errno) in NAMES {
            assert_eq!(name.parse(), Ok(errno));
            assert_eq!(name.to_lowercase().parse(), Ok(errno));
            assert_eq!(errno.to_string(), name);
            assert!((1..4096).contains(&errno.number()));
        }
    }

    #[test]
    fn an_unknown_name_lists_the_known_ones() {
        let error = "EWHAT".parse::<Errno>().unwrap_err().to_string();
        assert!(
            error.contains("`EWHAT`") && error.contains("EAGAIN, EPERM"),
            "{error}"
        );
    }
}
