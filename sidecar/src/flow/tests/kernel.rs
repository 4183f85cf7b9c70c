//! The model's kernel: sockets, operations in flight on them and pipes, for one flow.

use crate::backend::{Chunk, Errno, Pipe, Readiness};

/// The peer's end of a connection and the kernel's buffers of it.
#[derive(Debug, Default)]
pub(super) struct Socket {
    /// Bytes that the peer has sent.
    pub(super) sent: u64,
    /// Of these, bytes that the relay has received.
    pub(super) received: u64,
    /// The peer has ended its stream.
    pub(super) ended: bool,
    /// The peer has reset the connection.
    pub(super) reset: bool,
    /// It answers what is sent to it by a reset.
    pub(super) refuses: bool,
    /// Bytes that the kernel has taken for the peer.
    pub(super) taken: u64,
    /// Room for bytes to the peer.
    pub(super) room: u32,
    /// The relay has ended the stream to the peer.
    pub(super) shut: bool,
    pub(super) is_non_blocking: bool,
    pub(super) receive: Option<Receive>,
    pub(super) send: Option<Send>,
    pub(super) poll: Option<Poll>,
    /// Whether the watch for a reset, if there is one, has been cancelled.
    pub(super) watch: Option<bool>,
    /// A writer found no room: the next room is an edge.
    pub(super) was_full: bool,
}

#[derive(Debug)]
pub(super) struct Receive {
    pub(super) left_bytes: u32,
    pub(super) is_cancelled: bool,
}

#[derive(Debug)]
pub(super) struct Send {
    pub(super) chunks: Vec<Chunk>,
    pub(super) done_bytes: u32,
    pub(super) is_cancelled: bool,
}

#[derive(Debug)]
pub(super) struct Poll {
    /// What is to be reported.
    pub(super) news: Option<Readiness>,
    pub(super) is_cancelled: bool,
}

impl Socket {
    pub(super) fn unread(&self) -> u64 {
        self.sent - self.received
    }

    pub(super) fn is_readable(&self) -> bool {
        self.unread() > 0 || self.ended || self.reset
    }

    pub(super) fn is_writable(&self) -> bool {
        self.room > 0 || self.reset || self.refuses
    }

    pub(super) fn is_in_use(&self) -> bool {
        self.receive.is_some() || self.send.is_some() || self.poll.is_some()
    }

    /// Something can be read that could not be before: an edge, also when there was something already.
    pub(super) fn readable_edge(&mut self) {
        let broken = self.reset || self.refuses;
        self.report(Readiness {
            readable: true,
            writable: broken,
            ..Readiness::default()
        });
    }

    /// There is room again. Edge-triggered polls only hear of it if a writer was turned away.
    pub(super) fn writable_edge(&mut self) {
        if std::mem::take(&mut self.was_full) {
            self.report(Readiness {
                readable: false,
                writable: true,
                ..Readiness::default()
            });
        }
    }

    fn report(&mut self, change: Readiness) {
        if let Some(poll) = &mut self.poll {
            let news = poll.news.get_or_insert_default();
            news.readable |= change.readable;
            news.writable |= change.writable;
        }
    }

    pub(super) fn start_poll(&mut self) {
        let known = Readiness {
            readable: self.is_readable(),
            writable: self.is_writable(),
            ..Readiness::default()
        };
        let is_ready = known.readable || known.writable;
        self.was_full = !known.writable;
        self.poll = Some(Poll {
            news: is_ready.then_some(known),
            is_cancelled: false,
        });
    }

    /// The error that reading shows once a reset has come.
    pub(super) fn read_error(&self) -> Option<Errno> {
        self.reset.then_some(Errno(libc::ECONNRESET))
    }

    /// The error that writing shows to a peer that has reset, or refuses.
    pub(super) fn write_error(&self) -> Option<Errno> {
        (self.reset || self.refuses).then_some(Errno(libc::EPIPE))
    }

    /// The kernel takes bytes for the peer.
    pub(super) fn take(&mut self, bytes: u32) {
        assert!(!self.shut, "bytes are sent after the end of the stream");
        assert!(bytes <= self.room, "more is taken than there is room for");
        self.room -= bytes;
        self.taken += u64::from(bytes);
    }
}

/// A pipe that was made, and what is in it.
#[derive(Debug)]
pub(super) struct Piped {
    pub(super) bytes: u32,
    pub(super) is_lent: bool,
}

/// The name of the n-th pipe.
pub(super) fn pipe_name(index: usize) -> Pipe {
    Pipe {
        read: 2 * index as i32,
        write: 2 * index as i32 + 1,
    }
}
