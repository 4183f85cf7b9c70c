//! The buffer ring: pool entries that the kernel may fill.
//!
//! It owns the ring that is shared with the kernel and knows which entries the kernel holds, in which order.
//! It never gives the kernel an entry that a chunk still uses; [`Pool`] sees to that.

use std::sync::atomic::{AtomicU16, Ordering, fence};

use io_uring::IoUring;
use io_uring::types::BufRingEntry;

use crate::backend::pool::{ENTRY_BYTES, Pool, Region};
use crate::backend::{Chunk, Errno};

/// The buffer group of all receives.
pub(super) const GROUP: u16 = 0;

/// IOU_PBUF_RING_INC, kernel 6.12: an entry is filled piece by piece before the next one is taken.
const INCREMENTAL: u16 = 2;

/// Places in the ring: at most so many entries, 64 MiB, are in the kernel's hands at a time.
const PLACES: u16 = 1024;

/// Entries the kernel holds at first. Few, so that the same memory is used again while it is in the cache.
const WINDOW_AT_FIRST: u16 = 4;

/// Entries of a [`Pool`] in the hands of the kernel.
#[derive(Debug)]
pub(super) struct Buffers {
    memory: Region,
    incremental: bool,
    /// Which entry lies at each place.
    order: Box<[u32]>,
    /// The place of each entry that the kernel holds.
    places: Vec<u16>,
    tail: u16,
    held: u16,
    window: u16,
}

impl Buffers {
    /// Makes a buffer ring and registers it, incremental where that is wanted and the kernel has it.
    pub(super) fn register(ring: &IoUring, want_incremental: bool) -> Result<Self, Errno> {
        let memory = Region::new(usize::from(PLACES) * size_of::<BufRingEntry>())?;
        let register = |flags| {
            // SAFETY: the memory is a page-aligned mapping of PLACES entries, kept until the ring is gone.
            unsafe {
                ring.submitter().register_buf_ring_with_flags(
                    memory.base().as_ptr() as u64,
                    PLACES,
                    GROUP,
                    flags,
                )
            }
        };
        let incremental = want_incremental && register(INCREMENTAL).is_ok();
        if !incremental {
            register(0).map_err(|error| Errno::of(&error))?;
        }
        Ok(Buffers {
            memory,
            incremental,
            order: vec![u32::MAX; usize::from(PLACES)].into(),
            places: Vec::new(),
            tail: 0,
            held: 0,
            window: WINDOW_AT_FIRST,
        })
    }

    pub(super) fn is_incremental(&self) -> bool {
        self.incremental
    }

    /// Gives the kernel free entries until it holds as many as it should.
    pub(super) fn refill(&mut self, pool: &mut Pool) {
        let before = self.tail;
        while self.held < self.window {
            let Some(entry) = pool.begin_filling() else {
                break;
            };
            self.push(entry, pool.tail(entry));
        }
        if self.tail != before {
            self.publish();
        }
    }

    /// Lets the kernel hold twice as many entries: it ran out.
    pub(super) fn widen(&mut self) {
        self.window = (self.window * 2).min(PLACES);
    }

    /// Takes `len` bytes which the kernel says it received, beginning in `entry`, and calls `each` for every
    /// chunk. `goes_on` tells that the last entry is not full yet (IORING_CQE_F_BUF_MORE).
    pub(super) fn take(
        &mut self,
        pool: &mut Pool,
        entry: u32,
        len: u32,
        goes_on: bool,
        mut each: impl FnMut(Chunk, bool),
    ) {
        let mut entry = entry;
        let mut left = len;
        loop {
            let part = left.min(pool.room(entry));
            left -= part;
            let last = left == 0;
            let place = self.places[entry as usize];
            let chunk = pool.filled(entry, part);
            if !(last && goes_on && self.incremental) {
                pool.end_filling(entry);
                self.held -= 1;
            }
            each(chunk, last);
            if last {
                return;
            }
            // A bundle goes on in the entry that was given to the kernel next.
            entry = self.order[usize::from(place.wrapping_add(1) % PLACES)];
        }
    }

    /// Takes back an entry that the kernel consumed without receiving anything into it.
    pub(super) fn take_empty(&mut self, pool: &mut Pool, entry: u32, goes_on: bool) {
        if !(goes_on && self.incremental) {
            pool.end_filling(entry);
            self.held -= 1;
        }
    }

    fn push(&mut self, entry: u32, start: *mut u8) {
        let place = self.tail % PLACES;
        // SAFETY: the place is within the mapping, and the kernel does not read it before `publish` moves
        // the tail past it; what it held before has been consumed, as at most PLACES entries are held.
        let slot = unsafe {
            &mut *self
                .memory
                .base()
                .cast::<BufRingEntry>()
                .as_ptr()
                .add(usize::from(place))
        };
        slot.set_addr(start as u64);
        slot.set_len(ENTRY_BYTES);
        // The kernel's buffer id is 16 bits wide; a pool has at most 65,536 entries, 4 GiB.
        slot.set_bid(entry as u16);
        self.order[usize::from(place)] = entry;
        if self.places.len() <= entry as usize {
            self.places.resize(entry as usize + 1, 0);
        }
        self.places[entry as usize] = place;
        self.tail = self.tail.wrapping_add(1);
        self.held += 1;
    }

    fn publish(&self) {
        let base = self.memory.base().cast::<BufRingEntry>().as_ptr();
        // SAFETY: the first entry of a registered buffer ring has the ring's tail in its reserved field,
        // which is aligned for a u16 and written by this thread alone.
        let tail = unsafe { AtomicU16::from_ptr(BufRingEntry::tail(base).cast_mut()) };
        fence(Ordering::Release);
        tail.store(self.tail, Ordering::Release);
    }
}
