//! The memory that received bytes lie in: large entries that are filled from front to back, cut into chunks.
//!
//! It owns the entries, counts who uses them and grows region by region up to its limit. It never hands an
//! entry out again while a chunk of it is in use. Who fills an entry (the kernel through a buffer ring, or a
//! plain receive) is not its business.

use std::ptr::NonNull;

use super::Errno;

/// Bytes of one entry. Large enough for a large receive, small enough that a forgotten chunk pins little.
pub const ENTRY_BYTES: u32 = 64 * 1024;

/// Entries by which the pool grows: 1 MiB.
const REGION_ENTRIES: usize = 16;

/// The smallest number of entries: one being filled, one on the way out.
const ENTRIES_LEAST: usize = 2;

/// The largest number of entries: the kernel numbers buffers with 16 bits. 4 GiB.
const ENTRIES_MOST: usize = 1 << 16;

/// An entry with less room than this is not filled by plain receives any more.
const ROOM_LEAST_BYTES: u32 = 4 * 1024;

/// Marks a chunk whose bytes are not in an entry but in memory of its own.
const PRIVATE: u32 = 1 << 31;

/// A run of received bytes. Whoever holds it must release it exactly once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunk {
    place: u32,
    offset: u32,
    /// How many bytes.
    pub len: u32,
}

impl Chunk {
    /// A chunk of a backend that keeps its bytes elsewhere, by that backend's own numbers.
    pub fn of_place(place: u32, offset: u32, len: u32) -> Self {
        Chunk { place, offset, len }
    }

    /// Where it lies, in its backend's own numbers.
    pub fn place(self) -> u32 {
        self.place
    }

    /// Where in its place it begins.
    pub fn offset(self) -> u32 {
        self.offset
    }

    /// Whether its bytes have memory of their own, and so keep no entry from being filled.
    pub fn is_private(self) -> bool {
        self.place & PRIVATE != 0
    }

    /// Drops the first `bytes` from the front. The rest is still the same chunk, to be released once.
    #[must_use]
    pub fn advanced(self, bytes: u32) -> Self {
        debug_assert!(bytes <= self.len, "advanced past the end of a chunk");
        Chunk {
            place: self.place,
            offset: self.offset + bytes,
            len: self.len - bytes,
        }
    }

    /// Whether `next` follows right behind this chunk in the same memory.
    pub fn is_followed_by(self, next: Chunk) -> bool {
        self.place == next.place
            && self.place & PRIVATE == 0
            && self.offset + self.len == next.offset
    }
}

/// How full a pool is, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PoolUse {
    /// The most that it may take.
    pub limit_bytes: usize,
    /// What it has taken so far.
    pub allocated_bytes: usize,
    /// What cannot be filled before a chunk of the same entry is released, and private memory.
    pub pinned_bytes: usize,
    /// What can still be filled before the pool has to refuse, growth included.
    pub free_bytes: usize,
}

/// Entries, chunks and who uses them.
#[derive(Debug)]
pub(crate) struct Pool {
    regions: Vec<Region>,
    entries: Vec<Entry>,
    /// Entries that nobody fills or uses; the last one freed is the next one filled, as it is still in the cache.
    free: Vec<u32>,
    private: Vec<Option<Box<[u8]>>>,
    private_free: Vec<u32>,
    private_bytes: usize,
    pinned_entries: usize,
    /// What is filled of the entries being filled.
    filled_bytes: usize,
    limit_bytes: usize,
    /// The system had no memory for another region.
    cannot_grow: bool,
}

#[derive(Debug)]
struct Entry {
    base: NonNull<u8>,
    filled: u32,
    chunks: u32,
    filling: bool,
    is_resident: bool,
}

impl Pool {
    pub(crate) fn new(limit_bytes: usize) -> Self {
        Pool {
            regions: Vec::new(),
            entries: Vec::new(),
            free: Vec::new(),
            private: Vec::new(),
            private_free: Vec::new(),
            private_bytes: 0,
            pinned_entries: 0,
            filled_bytes: 0,
            limit_bytes,
            cannot_grow: false,
        }
    }

    pub(crate) fn set_limit(&mut self, limit_bytes: usize) {
        self.limit_bytes = limit_bytes;
        self.cannot_grow = false;
    }

    pub(crate) fn usage(&self) -> PoolUse {
        let entry = ENTRY_BYTES as usize;
        let limit_bytes = self.limit();
        let used_bytes = self.pinned_entries * entry + self.filled_bytes;
        let pinned_bytes = used_bytes + self.private_bytes;
        // The least number of entries stays, whatever lies in private memory.
        let least_free = (ENTRIES_LEAST * entry).saturating_sub(used_bytes);
        PoolUse {
            limit_bytes,
            allocated_bytes: self.entries.len() * entry + self.private_bytes,
            pinned_bytes,
            free_bytes: limit_bytes.saturating_sub(pinned_bytes).max(least_free),
        }
    }

    /// The most that it may take, as far as it can be had.
    fn limit(&self) -> usize {
        let entry = ENTRY_BYTES as usize;
        if self.cannot_grow {
            self.entries.len().max(ENTRIES_LEAST) * entry
        } else {
            self.limit_bytes
                .clamp(ENTRIES_LEAST * entry, ENTRIES_MOST * entry)
        }
    }

    /// An entry to fill, growing if the limit allows; none if every entry is in use.
    pub(crate) fn begin_filling(&mut self) -> Option<u32> {
        let in_use = self.entries.len() - self.free.len();
        let taken_bytes = (in_use + 1) * ENTRY_BYTES as usize + self.private_bytes;
        if in_use >= ENTRIES_LEAST && taken_bytes > self.limit() {
            return None;
        }
        if self.free.is_empty() {
            self.grow();
        }
        let id = self.free.pop()?;
        let entry = &mut self.entries[id as usize];
        debug_assert!(
            !entry.filling && entry.chunks == 0,
            "a free entry is in use"
        );
        entry.filled = 0;
        entry.filling = true;
        Some(id)
    }

    /// Says that the next `len` bytes of an entry have been filled, and makes a chunk of them.
    pub(crate) fn filled(&mut self, id: u32, len: u32) -> Chunk {
        let entry = &mut self.entries[id as usize];
        let offset = entry.filled;
        assert!(
            entry.filling && offset + len <= ENTRY_BYTES,
            "more was filled than an entry holds"
        );
        entry.filled += len;
        entry.chunks += 1;
        self.filled_bytes += len as usize;
        Chunk {
            place: id,
            offset,
            len,
        }
    }

    /// How many bytes of an entry being filled are still free.
    pub(crate) fn room(&self, id: u32) -> u32 {
        ENTRY_BYTES - self.entries[id as usize].filled
    }

    /// Says that an entry will not be filled any further.
    pub(crate) fn end_filling(&mut self, id: u32) {
        let entry = &mut self.entries[id as usize];
        debug_assert!(entry.filling, "filling ended twice");
        entry.filling = false;
        self.filled_bytes -= entry.filled as usize;
        if entry.chunks == 0 {
            self.free.push(id);
        } else {
            self.pinned_entries += 1;
        }
    }

    /// The entry that plain receives fill at the moment, or the next one once that is nearly full.
    pub(crate) fn keep_filling(&mut self, filling: &mut Option<u32>) -> Option<u32> {
        if let Some(entry) = *filling {
            if self.room(entry) >= ROOM_LEAST_BYTES {
                return Some(entry);
            }
            self.end_filling(entry);
        }
        *filling = self.begin_filling();
        *filling
    }

    /// Has all of an entry's pages there before the kernel fills it. Where one cannot be had as a receive copies, the
    /// kernel may stop in the middle and bring less than there is.
    ///
    /// # Errors
    /// The kernel has no memory for them.
    pub(crate) fn make_resident(&mut self, id: u32) -> Result<(), Errno> {
        let entry = &mut self.entries[id as usize];
        if !entry.is_resident {
            let (base, bytes) = (entry.base.as_ptr(), ENTRY_BYTES as usize);
            // SAFETY: the pages are the entry's own, and stay what they are.
            let failed = unsafe { libc::madvise(base.cast(), bytes, libc::MADV_POPULATE_WRITE) };
            let errno = (failed != 0).then(Errno::last);
            if let Some(Errno(libc::ENOMEM | libc::EFAULT | libc::EAGAIN)) = errno {
                return Err(Errno(libc::ENOMEM));
            }
            // Kernels before 5.14 do not know how.
            entry.is_resident = true;
        }
        Ok(())
    }

    /// Where the unfilled part of an entry begins.
    pub(crate) fn tail(&self, id: u32) -> *mut u8 {
        let entry = &self.entries[id as usize];
        // SAFETY: `filled` is at most ENTRY_BYTES, so the result is in the entry or one past its end.
        unsafe { entry.base.as_ptr().add(entry.filled as usize) }
    }

    /// Where a chunk's bytes begin. They stay there until the chunk is released.
    pub(crate) fn start(&self, chunk: Chunk) -> *const u8 {
        if chunk.place & PRIVATE != 0 {
            let bytes = self.private[(chunk.place & !PRIVATE) as usize].as_deref();
            bytes.map_or(std::ptr::null(), |bytes| {
                bytes[chunk.offset as usize..][..chunk.len as usize].as_ptr()
            })
        } else {
            let entry = &self.entries[chunk.place as usize];
            assert!(
                chunk.offset + chunk.len <= entry.filled,
                "a chunk that was never filled"
            );
            // SAFETY: the chunk lies within the filled part of its entry.
            unsafe { entry.base.as_ptr().add(chunk.offset as usize) }
        }
    }

    pub(crate) fn bytes(&self, chunk: Chunk) -> &[u8] {
        let start = self.start(chunk);
        assert!(!start.is_null(), "a released chunk was read");
        // SAFETY: the bytes of a chunk were filled before it was made, lie in one entry or one private
        // box, and nobody writes to them before it is released, which takes `&mut self`.
        unsafe { std::slice::from_raw_parts(start, chunk.len as usize) }
    }

    /// A chunk in memory of its own.
    pub(crate) fn own(&mut self, bytes: &[u8]) -> Chunk {
        let slot = self.private_free.pop().unwrap_or_else(|| {
            self.private.push(None);
            (self.private.len() - 1) as u32
        });
        self.private[slot as usize] = Some(bytes.into());
        self.private_bytes += bytes.len();
        Chunk {
            place: PRIVATE | slot,
            offset: 0,
            len: bytes.len() as u32,
        }
    }

    /// Gives a chunk back; says whether an entry became free by it.
    pub(crate) fn release(&mut self, chunk: Chunk) -> bool {
        if chunk.place & PRIVATE != 0 {
            let slot = chunk.place & !PRIVATE;
            let bytes = self.private[slot as usize].take();
            self.private_bytes -= bytes.expect("a private chunk is released once").len();
            self.private_free.push(slot);
            return false;
        }
        let entry = &mut self.entries[chunk.place as usize];
        entry.chunks = entry
            .chunks
            .checked_sub(1)
            .expect("a chunk is released once");
        let free = entry.chunks == 0 && !entry.filling;
        if free {
            self.pinned_entries -= 1;
            self.free.push(chunk.place);
        }
        free
    }

    fn grow(&mut self) {
        let most = self.limit() / ENTRY_BYTES as usize;
        let more = most.saturating_sub(self.entries.len()).min(REGION_ENTRIES);
        if more == 0 {
            return;
        }
        // No memory for a region is the same to the caller as a pool at its limit: it waits for chunks.
        let Ok(region) = Region::new(more * ENTRY_BYTES as usize) else {
            self.cannot_grow = true;
            return;
        };
        for index in (0..more).rev() {
            // SAFETY: the region is `more` entries long.
            let base = unsafe { region.base.add(index * ENTRY_BYTES as usize) };
            self.free.push(self.entries.len() as u32);
            self.entries.push(Entry {
                base,
                filled: 0,
                chunks: 0,
                filling: false,
                is_resident: false,
            });
        }
        self.regions.push(region);
    }

    /// Copies bytes into an entry that is being filled.
    #[cfg(any(test, feature = "simulation"))]
    pub(crate) fn fill(&mut self, id: u32, bytes: &[u8]) -> Chunk {
        assert!(
            bytes.len() <= self.room(id) as usize,
            "more than there is room for"
        );
        // SAFETY: the entry has room for the bytes behind what is filled, and nobody else writes there.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.tail(id), bytes.len()) };
        self.filled(id, bytes.len() as u32)
    }

    /// Chunks that nobody has given back.
    #[cfg(any(test, feature = "simulation"))]
    pub(crate) fn chunks_in_use(&self) -> usize {
        let entries: u32 = self.entries.iter().map(|entry| entry.chunks).sum();
        entries as usize + self.private.iter().flatten().count()
    }

    /// Leaves all memory mapped for good. For a backend that broke while the kernel may still use it.
    pub(crate) fn leak(&mut self) {
        self.regions.drain(..).for_each(std::mem::forget);
        std::mem::forget(std::mem::take(&mut self.private));
    }
}

/// Memory from mmap(2): no page of it is resident before it is used.
#[derive(Debug)]
pub(crate) struct Region {
    base: NonNull<u8>,
    bytes: usize,
}

impl Region {
    pub(crate) fn new(bytes: usize) -> Result<Self, Errno> {
        let (protection, flags) = (
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
        );
        // SAFETY: an anonymous mapping at an address of the kernel's choice touches no memory of ours.
        let base = unsafe { libc::mmap(std::ptr::null_mut(), bytes, protection, flags, -1, 0) };
        if base == libc::MAP_FAILED {
            return Err(Errno::last());
        }
        NonNull::new(base.cast())
            .map(|base| Region { base, bytes })
            .ok_or(Errno(libc::ENOMEM))
    }

    pub(crate) fn base(&self) -> NonNull<u8> {
        self.base
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, whole, and whoever drops it has no pointer into it left.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.bytes) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_reused_only_when_every_chunk_of_it_is_back() {
        let mut pool = Pool::new(2 * ENTRY_BYTES as usize);
        let first = pool.begin_filling().unwrap();
        let (a, b) = (pool.filled(first, 10), pool.filled(first, 20));
        assert!(a.is_followed_by(b));
        pool.end_filling(first);
        let second = pool.begin_filling().unwrap();
        assert_ne!(first, second);
        assert_eq!(pool.begin_filling(), None, "the limit is two entries");
        assert!(!pool.release(a));
        assert_eq!(pool.usage().pinned_bytes, ENTRY_BYTES as usize);
        assert!(pool.release(b));
        assert_eq!(pool.begin_filling(), Some(first));
    }

    #[test]
    #[cfg_attr(miri, ignore = "asks the kernel")]
    fn an_entry_is_resident_before_it_is_filled() {
        let mut pool = Pool::new(1 << 20);
        let id = pool.begin_filling().unwrap();
        let mut pages = [0_u8; ENTRY_BYTES as usize / 4096];
        let mut resident = |pool: &Pool| {
            let base = pool.entries[id as usize].base.as_ptr().cast();
            // SAFETY: the entry is mapped, and there is a byte for each of its pages.
            let told = unsafe { libc::mincore(base, ENTRY_BYTES as usize, pages.as_mut_ptr()) };
            assert_eq!(told, 0);
            pages.iter().filter(|page| **page & 1 == 1).count()
        };
        assert_eq!(resident(&pool), 0);
        pool.make_resident(id).unwrap();
        assert_eq!(resident(&pool), ENTRY_BYTES as usize / 4096);
    }

    #[test]
    fn a_private_chunk_has_bytes_of_its_own() {
        let mut pool = Pool::new(0);
        let chunk = pool.own(b"header");
        assert_eq!(pool.bytes(chunk.advanced(2)), b"ader");
        assert_eq!(pool.usage().pinned_bytes, 6);
        pool.release(chunk.advanced(2));
        assert_eq!(pool.usage().pinned_bytes, 0);
    }
}
