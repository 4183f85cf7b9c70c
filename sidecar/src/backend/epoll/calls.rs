//! The system calls about readiness by epoll, one thin wrapper each. It owns the epoll descriptor.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

use socket2::SockAddr;

use crate::backend::pool::Pool;
use crate::backend::{Chunk, Errno, GATHER_MOST, SocketId};

/// Everything about a socket, told once at each change.
const INTEREST: i32 = libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLRDHUP | libc::EPOLLET;

/// An epoll instance.
pub(in crate::backend) struct Interest {
    epoll: OwnedFd,
}

impl Interest {
    pub(in crate::backend) fn new() -> Result<Self, Errno> {
        // SAFETY: epoll_create1 takes no pointers; the descriptor it returns is ours alone.
        let fd = Errno::check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        // SAFETY: the descriptor was just made and has no other owner.
        let epoll = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Interest { epoll })
    }

    /// Another descriptor of the same.
    #[cfg_attr(target_env = "musl", expect(dead_code, reason = "for tokio-uring"))]
    pub(in crate::backend) fn duplicate(&self) -> Result<OwnedFd, Errno> {
        self.epoll.try_clone().map_err(|error| Errno::of(&error))
    }

    /// Watches a descriptor for all that can happen to it. One that is watched already stays so.
    pub(in crate::backend) fn add(&self, fd: i32) -> Result<(), Errno> {
        let mut event = libc::epoll_event {
            events: INTEREST as u32,
            u64: fd as u64,
        };
        let (epoll, add) = (self.epoll.as_raw_fd(), libc::EPOLL_CTL_ADD);
        // SAFETY: the event lives through the call.
        match Errno::check(unsafe { libc::epoll_ctl(epoll, add, fd, &raw mut event) }) {
            Ok(_) | Err(Errno(libc::EEXIST)) => Ok(()),
            Err(errno) => Err(errno),
        }
    }

    /// Stops watching a descriptor that others may still use.
    pub(in crate::backend) fn remove(&self, fd: i32) {
        // SAFETY: removing takes no event.
        unsafe {
            libc::epoll_ctl(
                self.epoll.as_raw_fd(),
                libc::EPOLL_CTL_DEL,
                fd,
                std::ptr::null_mut(),
            )
        };
    }

    /// Waits so long for events, and says how many came.
    pub(in crate::backend) fn wait(
        &self,
        events: &mut [libc::epoll_event],
        wait: Duration,
    ) -> Result<usize, Errno> {
        let limit = libc::timespec {
            tv_sec: wait.as_secs() as i64,
            tv_nsec: i64::from(wait.subsec_nanos()),
        };
        let (fd, most) = (self.epoll.as_raw_fd(), events.len() as i32);
        let no_mask: *const libc::sigset_t = std::ptr::null();
        // SAFETY: the kernel writes at most `most` events; the limit lives through the call.
        let came = unsafe {
            libc::syscall(
                libc::SYS_epoll_pwait2,
                fd,
                events.as_mut_ptr(),
                most,
                &raw const limit,
                no_mask,
                0,
            )
        };
        match usize::try_from(came) {
            Ok(came) => Ok(came),
            // A filter that does not know the call answers EPERM.
            Err(_) if matches!(Errno::last().0, libc::ENOSYS | libc::EPERM) => {
                // Before 5.11 a wait is told in milliseconds; rounded up, so that a short one does not spin.
                let milliseconds =
                    wait.as_millis().min(i32::MAX as u128 - 1) as i32 + i32::from(!wait.is_zero());
                // SAFETY: as above.
                let came = unsafe { libc::epoll_wait(fd, events.as_mut_ptr(), most, milliseconds) };
                Errno::check(came).map(|came| came as usize)
            }
            Err(_) => Err(Errno::last()),
        }
    }
}

pub(super) fn connect(socket: SocketId, address: &SockAddr) -> Result<(), Errno> {
    // SAFETY: the address lives through the call and is as long as it says.
    Errno::check(unsafe { libc::connect(socket.0, address.as_ptr().cast(), address.len()) })
        .map(drop)
}

/// How a connect under way ended, once the socket is writable.
pub(super) fn connect_result(socket: SocketId) -> Result<(), Errno> {
    match crate::backend::sockets::reference(socket).take_error() {
        Ok(None) => Ok(()),
        Ok(Some(error)) => Err(Errno::of(&error)),
        Err(error) => Err(Errno::of(&error)),
    }
}

/// Sends chunks, gathered, as far as the socket takes them.
pub(super) fn send(socket: SocketId, chunks: &[Chunk], pool: &Pool) -> Result<u32, Errno> {
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    let sent = if let [chunk] = chunks {
        // SAFETY: the chunk's bytes stay where they are until it is released.
        unsafe {
            libc::send(
                socket.0,
                pool.start(*chunk).cast(),
                chunk.len as usize,
                flags,
            )
        }
    } else {
        let mut vectors = [libc::iovec {
            iov_base: std::ptr::null_mut(),
            iov_len: 0,
        }; GATHER_MOST];
        for (vector, chunk) in vectors.iter_mut().zip(chunks) {
            *vector = libc::iovec {
                iov_base: pool.start(*chunk).cast_mut().cast(),
                iov_len: chunk.len as usize,
            };
        }
        // SAFETY: a message header of zeroes is valid: no name, no control data.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        message.msg_iov = vectors.as_mut_ptr();
        message.msg_iovlen = chunks.len().min(GATHER_MOST) as _;
        // SAFETY: header and vectors live through the call, and the chunks' bytes until they are released.
        unsafe { libc::sendmsg(socket.0, &raw const message, flags) }
    };
    u32::try_from(sent).map_err(|_| Errno::last())
}
