//! Submission queue entries: how each operation is spelled for the kernel.
//!
//! It owns the spelling and the memory that an entry points at until the kernel has taken it; what happens
//! then is not its business.

use std::os::fd::RawFd;

use io_uring::opcode;
use io_uring::squeue::{Entry, Flags};
use io_uring::types::{CancelBuilder, Fd};
use socket2::SockAddr;

use crate::backend::pool::Pool;
use crate::backend::{Chunk, GATHER_MOST, Token};

const SEND_FLAGS: i32 = libc::MSG_WAITALL | libc::MSG_NOSIGNAL;

/// IORING_RECVSEND_BUNDLE: one receive may fill several entries. Kernel 6.10.
const BUNDLE: u16 = 1 << 4;

/// Where `ioprio` and `optlen` lie in a submission queue entry (include/uapi/linux/io_uring.h).
const PRIORITY_AT: usize = 2;
const OPTION_LENGTH_AT: usize = 44;

/// Where an entry has the most bytes of each receive (`len`).
const LENGTH_AT: usize = 24;

/// What entries point at until they are taken: a place for each entry of the queue. The kernel copies
/// addresses and message headers when it takes an entry (IORING_FEAT_SUBMIT_STABLE), so that a place is free
/// again when the queue comes round to it.
pub(super) struct Arena {
    places: Vec<Place>,
}

struct Place {
    header: libc::msghdr,
    vectors: [libc::iovec; GATHER_MOST],
    address: Option<SockAddr>,
}

impl Arena {
    pub(super) fn new(entries: u32) -> Self {
        let empty = || Place {
            // SAFETY: a message header of zeroes is valid: no name, no vectors, no control data.
            header: unsafe { std::mem::zeroed() },
            vectors: [libc::iovec {
                iov_base: std::ptr::null_mut(),
                iov_len: 0,
            }; GATHER_MOST],
            address: None,
        };
        Arena {
            places: (0..entries).map(|_| empty()).collect(),
        }
    }

    /// A connect from this place.
    pub(super) fn connect(&mut self, place: usize, socket: RawFd, address: &SockAddr) -> Entry {
        let address = self.places[place].address.insert(address.clone());
        opcode::Connect::new(Fd(socket), address.as_ptr().cast(), address.len()).build()
    }

    /// A send from this place: plain for one chunk, gathered for several.
    pub(super) fn send(
        &mut self,
        place: usize,
        socket: RawFd,
        chunks: &[Chunk],
        pool: &Pool,
    ) -> Entry {
        if let [chunk] = chunks {
            return opcode::Send::new(Fd(socket), pool.start(*chunk), chunk.len)
                .flags(SEND_FLAGS)
                .build();
        }
        let place = &mut self.places[place];
        for (vector, chunk) in place.vectors.iter_mut().zip(chunks) {
            vector.iov_base = pool.start(*chunk).cast_mut().cast();
            vector.iov_len = chunk.len as usize;
        }
        place.header.msg_iov = place.vectors.as_mut_ptr();
        place.header.msg_iovlen = chunks.len().min(GATHER_MOST) as _;
        opcode::SendMsg::new(Fd(socket), &raw const place.header)
            .flags(SEND_FLAGS as u32)
            .build()
    }
}

pub(super) fn accept(listener: RawFd, once: bool) -> Entry {
    if once {
        let (address, length) = (std::ptr::null_mut(), std::ptr::null_mut());
        return opcode::Accept::new(Fd(listener), address, length)
            .flags(libc::SOCK_CLOEXEC)
            .build();
    }
    opcode::AcceptMulti::new(Fd(listener))
        .flags(libc::SOCK_CLOEXEC)
        .build()
}

/// A multishot receive into the buffer group, which ends at `limit_bytes` in all where that is not 0. Without a bundle
/// the kernel ends it once so many have come and fills the buffer all the same, so that each of its receives is limited
/// too; the last may still bring up to `limit_bytes` though fewer were left.
pub(super) fn receive(socket: RawFd, group: u16, limit_bytes: u32, bundle: bool) -> Entry {
    let entry = opcode::RecvMulti::new(Fd(socket), group).build();
    if limit_bytes == 0 && !bundle {
        return entry;
    }
    const { assert!(size_of::<Entry>() == 64) };
    // SAFETY: an entry is 64 bytes of plain integers, in the layout that the kernel's header fixes.
    let mut bytes: [u8; 64] = unsafe { std::mem::transmute(entry) };
    if bundle {
        let flags = u16::from_ne_bytes([bytes[PRIORITY_AT], bytes[PRIORITY_AT + 1]]) | BUNDLE;
        bytes[PRIORITY_AT..PRIORITY_AT + 2].copy_from_slice(&flags.to_ne_bytes());
    }
    bytes[OPTION_LENGTH_AT..OPTION_LENGTH_AT + 4].copy_from_slice(&limit_bytes.to_ne_bytes());
    bytes[LENGTH_AT..LENGTH_AT + 4].copy_from_slice(&limit_bytes.to_ne_bytes());
    // SAFETY: as above, the other way.
    unsafe { std::mem::transmute(bytes) }
}

pub(super) fn poll(socket: RawFd, readable: bool, writable: bool) -> Entry {
    let mut mask = 0;
    if readable {
        mask |= libc::POLLIN | libc::POLLRDHUP;
    }
    if writable {
        mask |= libc::POLLOUT;
    }
    opcode::PollAdd::new(Fd(socket), mask as u32)
        .multi(true)
        .build()
}

/// A poll that asks for nothing tells of errors and ends all the same.
pub(super) fn watch(socket: RawFd) -> Entry {
    opcode::PollAdd::new(Fd(socket), 0).build()
}

pub(super) fn cancel(target: Token) -> Entry {
    let cancel = opcode::AsyncCancel2::new(CancelBuilder::user_data(target.to_bits())).build();
    cancel.flags(Flags::SKIP_SUCCESS)
}
