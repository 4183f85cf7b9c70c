//! The limit of open descriptors: how many this process may have and how many it has.
//!
//! It owns the two system calls about the limit; who needs how many is decided elsewhere.

use super::Errno;

/// Raises the soft limit of descriptors (RLIMIT_NOFILE) to the hard one, which takes no privilege. Returns the
/// limit that is then in effect; it stays as it was where raising is refused.
///
/// # Errors
/// What getrlimit(2) says, which is nothing on any kernel known.
pub fn raise_limit() -> Result<u64, Errno> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `limit` is a valid place for the answer.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } != 0 {
        return Err(Errno::of(&std::io::Error::last_os_error()));
    }
    let raised = libc::rlimit {
        rlim_cur: limit.rlim_max,
        ..limit
    };
    // SAFETY: `raised` is valid for the length of the call.
    let outcome = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const raised) };
    Ok(if outcome == 0 {
        raised.rlim_cur
    } else {
        limit.rlim_cur
    })
}

/// How many descriptors this process has open; 0 where /proc is not mounted.
pub fn count_open() -> u32 {
    // The one that reads the folder is among them.
    std::fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count().saturating_sub(1) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_the_hard_one_and_more_than_what_is_open() {
        let limit = raise_limit().unwrap();
        assert!(limit > u64::from(count_open()), "{limit}");
        assert_eq!(raise_limit().unwrap(), limit);
    }

    #[test]
    fn an_opened_file_is_counted() {
        // Other tests open and close files meanwhile, so that only "some" can be said.
        let _file = std::fs::File::open("/proc/self/status").unwrap();
        assert!(count_open() >= 4);
    }
}
