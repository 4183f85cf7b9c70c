//! splice(2) and its pipes: bytes from socket to socket without a copy.
//!
//! It owns the size of pipes. It never waits: sockets are non-blocking while they are spliced.

use super::{Errno, SocketId};

/// What a pipe may hold, if the system lets it: the default of /proc/sys/fs/pipe-max-size.
const PIPE_BYTES: i32 = 1 << 20;

/// A pipe, by its two ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pipe {
    /// The end to read from.
    pub read: i32,
    /// The end to write to.
    pub write: i32,
}

impl Pipe {
    /// A new pipe, as large as the system allows.
    pub(super) fn new() -> Result<Self, Errno> {
        let mut ends = [0; 2];
        // SAFETY: `ends` has room for the two descriptors.
        Errno::check(unsafe {
            libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC | libc::O_NONBLOCK)
        })?;
        // A user who has reached pipe-user-pages-soft gets a smaller pipe, which works as well, in more turns.
        for bytes in [PIPE_BYTES, PIPE_BYTES / 4] {
            // SAFETY: F_SETPIPE_SZ takes an int, and the descriptor is open.
            if unsafe { libc::fcntl(ends[1], libc::F_SETPIPE_SZ, bytes) } >= 0 {
                break;
            }
        }
        Ok(Pipe {
            read: ends[0],
            write: ends[1],
        })
    }

    pub(super) fn close(self) {
        // SAFETY: both descriptors are this pipe's, and it is never used again.
        unsafe {
            libc::close(self.read);
            libc::close(self.write);
        }
    }
}

pub(super) fn splice_in(socket: SocketId, pipe: Pipe, most: usize) -> Result<usize, Errno> {
    splice(socket.0, pipe.write, most)
}

pub(super) fn splice_out(pipe: Pipe, socket: SocketId, most: usize) -> Result<usize, Errno> {
    splice(pipe.read, socket.0, most)
}

fn splice(from: i32, to: i32, most: usize) -> Result<usize, Errno> {
    let (none, flags) = (
        std::ptr::null_mut(),
        libc::SPLICE_F_MOVE | libc::SPLICE_F_NONBLOCK,
    );
    // SAFETY: no offsets are given and both descriptors are open; splice touches no memory of ours.
    let moved = unsafe { libc::splice(from, none, to, none, most, flags) };
    usize::try_from(moved).map_err(|_| Errno::last())
}
