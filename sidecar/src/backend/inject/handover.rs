//! How the notification descriptor gets from the child, which made it, to the parent: over a pair of sockets that
//! closes with the child's exec. It also carries which step failed, which the error of a spawn cannot say.

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

/// How far the child got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// The kernel refused the filter.
    FilterRefused = 1,
    /// The filter stands.
    FilterInstalled = 2,
}

/// Room for one control message that carries one descriptor, aligned as the kernel wants it.
#[repr(align(8))]
struct Control([u8; 64]);

const FD_BYTES: u32 = mem::size_of::<RawFd>() as u32;

/// A pair of connected sockets, closed on exec: the child's end, the parent's end.
///
/// # Errors
/// What the kernel answered, such as EMFILE.
pub(super) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut ends = [0; 2];
    let kind = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC;
    // SAFETY: `ends` has room for the two descriptors.
    if unsafe { libc::socketpair(libc::AF_UNIX, kind, 0, ends.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: both are new, and nobody else owns them.
    Ok(unsafe { (OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])) })
}

/// Tells the parent how far the child got, with the descriptor if there is one. Safe between fork and exec.
///
/// # Errors
/// What the kernel answered.
pub(super) fn tell(
    socket: BorrowedFd<'_>,
    step: Step,
    fd: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    let mut byte = step as u8;
    let mut control = Control([0; 64]);
    let mut part = libc::iovec {
        iov_base: (&raw mut byte).cast(),
        iov_len: 1,
    };
    // SAFETY: all zeroes is a valid msghdr.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    if let Some(fd) = fd {
        message.msg_control = control.0.as_mut_ptr().cast();
        // SAFETY: these only compute; `control` is large and aligned enough for one header and one descriptor, so the
        // first header exists and its data lies inside.
        unsafe {
            message.msg_controllen = libc::CMSG_SPACE(FD_BYTES) as _;
            let header = libc::CMSG_FIRSTHDR(&raw const message);
            (*header).cmsg_level = libc::SOL_SOCKET;
            (*header).cmsg_type = libc::SCM_RIGHTS;
            (*header).cmsg_len = libc::CMSG_LEN(FD_BYTES) as _;
            ptr::write_unaligned(libc::CMSG_DATA(header).cast(), fd.as_raw_fd());
        }
    }
    // SAFETY: everything `message` points at is alive.
    if unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// What the child told; `None` when it ended without a word.
///
/// # Errors
/// What the kernel answered.
pub(super) fn hear(socket: &OwnedFd) -> io::Result<Option<(Step, Option<OwnedFd>)>> {
    let mut byte = 0_u8;
    let mut control = Control([0; 64]);
    let mut part = libc::iovec {
        iov_base: (&raw mut byte).cast(),
        iov_len: 1,
    };
    // SAFETY: all zeroes is a valid msghdr.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.0.as_mut_ptr().cast();
    message.msg_controllen = mem::size_of::<Control>() as _;
    // SAFETY: everything `message` points at is alive and as large as it says.
    let got =
        unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_CMSG_CLOEXEC) };
    if got < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel filled `control` up to the length that it wrote into `message`; the header is null when
    // there is none, and a SCM_RIGHTS message of our own child carries exactly one descriptor, now ours.
    let fd = unsafe {
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        if !header.is_null() && (*header).cmsg_type == libc::SCM_RIGHTS {
            Some(OwnedFd::from_raw_fd(ptr::read_unaligned(
                libc::CMSG_DATA(header).cast::<RawFd>(),
            )))
        } else {
            None
        }
    };
    Ok(match byte {
        1 => Some((Step::FilterRefused, fd)),
        2 => Some((Step::FilterInstalled, fd)),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read;
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn a_descriptor_arrives_and_works() {
        let (child, parent) = pair().unwrap();
        let file = File::open("/proc/self/comm").unwrap();
        tell(child.as_fd(), Step::FilterInstalled, Some(file.as_fd())).unwrap();
        drop(file);
        let (step, fd) = hear(&parent).unwrap().unwrap();
        assert_eq!(step, Step::FilterInstalled);
        let mut text = String::new();
        File::from(fd.unwrap()).read_to_string(&mut text).unwrap();
        assert!(text.ends_with('\n'), "{text:?}");
    }

    #[test]
    fn a_refusal_and_a_silent_end_are_told_apart() {
        let (child, parent) = pair().unwrap();
        tell(child.as_fd(), Step::FilterRefused, None).unwrap();
        assert!(matches!(
            hear(&parent).unwrap(),
            Some((Step::FilterRefused, None))
        ));
        drop(child);
        assert!(hear(&parent).unwrap().is_none());
    }
}
