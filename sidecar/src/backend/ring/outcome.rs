//! What io_uring_enter(2) said, as an [`Outcome`]. Pure. It believes the queue's head: how many entries the
//! kernel took is seen from where the head stands, and the returned count is not even looked at.

use crate::backend::{Errno, Outcome};

/// `offered` entries were in the call, `taken` by the head's move, and the call failed with `error` or not.
pub(in crate::backend) fn classify(offered: u32, taken: u32, error: Option<Errno>) -> Outcome {
    let by_head = match (offered, taken) {
        (0, _) => Outcome::Nothing,
        (offered, taken) if taken >= offered => Outcome::All,
        (_, 0) => Outcome::Again,
        _ => Outcome::Some,
    };
    let Some(Errno(number)) = error else {
        return by_head;
    };
    match number {
        // The wait's deadline passed, or a signal came; what the head says stands.
        libc::ETIME => by_head,
        libc::EINTR if by_head == Outcome::Again => Outcome::Interrupted,
        libc::EINTR if by_head == Outcome::Nothing => Outcome::Interrupted,
        libc::EINTR => by_head,
        libc::EAGAIN if taken > 0 => Outcome::Some,
        libc::EAGAIN => Outcome::Again,
        libc::EBUSY => Outcome::Busy,
        libc::ENOMEM => Outcome::NoMemory,
        libc::EPERM | libc::ENOSYS | libc::EACCES | libc::EOPNOTSUPP => Outcome::Forbidden,
        libc::EBADR => Outcome::Lost,
        _ => Outcome::Broken,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(offered: u32, taken: u32, errno: i32) -> Outcome {
        classify(offered, taken, (errno != 0).then_some(Errno(errno)))
    }

    #[test]
    fn every_row_of_the_outcome_table() {
        assert_eq!(of(8, 8, 0), Outcome::All);
        assert_eq!(of(8, 3, 0), Outcome::Some);
        assert_eq!(of(8, 0, libc::EAGAIN), Outcome::Again);
        assert_eq!(of(8, 3, libc::EAGAIN), Outcome::Some);
        assert_eq!(of(8, 0, libc::EBUSY), Outcome::Busy);
        assert_eq!(of(0, 0, libc::EINTR), Outcome::Interrupted);
        assert_eq!(of(8, 0, libc::EINTR), Outcome::Interrupted);
        assert_eq!(of(0, 0, libc::ETIME), Outcome::Nothing);
        assert_eq!(of(8, 8, libc::ETIME), Outcome::All);
        assert_eq!(of(8, 0, libc::EBADR), Outcome::Lost);
        assert_eq!(of(8, 0, libc::ENOMEM), Outcome::NoMemory);
        for broken in [
            libc::EEXIST,
            libc::EBADFD,
            libc::EBADF,
            libc::EINVAL,
            libc::ENXIO,
        ] {
            assert_eq!(of(8, 0, broken), Outcome::Broken);
        }
        for forbidden in [libc::EPERM, libc::ENOSYS, libc::EOPNOTSUPP] {
            assert_eq!(of(8, 0, forbidden), Outcome::Forbidden);
        }
    }

    #[test]
    fn a_count_that_lies_is_not_believed() {
        // The call said that it took two, by returning without an error; the head did not move.
        assert_eq!(of(8, 0, 0), Outcome::Again);
    }
}
