//! Where the model's bytes lie. A byte is known by its position in the stream that it belongs to, so that
//! order and completeness can be checked without any bytes.

use crate::backend::Chunk;
use crate::flow::Side;

#[derive(Debug)]
struct Place {
    from: Side,
    /// Position in the stream of the first byte.
    position: u64,
    filled: u32,
    /// Chunks of this place that are not released.
    live: u32,
}

/// Places that chunks are cut from, as a backend's pool has them.
#[derive(Debug, Default)]
pub(super) struct Memory {
    places: Vec<Place>,
    filling: [Option<usize>; 2],
}

impl Memory {
    /// The next bytes of a stream as a chunk; with `adjacent` right behind the last one, if that is possible.
    pub(super) fn fill(&mut self, from: Side, position: u64, len: u32, adjacent: bool) -> Chunk {
        let last = self.filling[from as usize].filter(|&place| {
            let place = &self.places[place];
            adjacent
                && place.position + u64::from(place.filled) == position
                && place.filled + len <= 65_536
        });
        let index = last.unwrap_or_else(|| {
            self.places.push(Place {
                from,
                position,
                filled: 0,
                live: 0,
            });
            self.places.len() - 1
        });
        self.filling[from as usize] = Some(index);
        let place = &mut self.places[index];
        let offset = place.filled;
        place.filled += len;
        place.live += 1;
        Chunk::of_place(index as u32, offset, len)
    }

    /// Bytes moved to memory of their own.
    pub(super) fn own(&mut self, from: Side, position: u64, len: u32) -> Chunk {
        self.places.push(Place {
            from,
            position,
            filled: len,
            live: 1,
        });
        Chunk::of_place((self.places.len() - 1) as u32, 0, len)
    }

    /// Where a chunk's bytes are in the stream from `from`. It has to be live.
    pub(super) fn position(&self, from: Side, chunk: Chunk) -> u64 {
        let place = &self.places[chunk.place() as usize];
        assert!(place.live > 0, "a released chunk is used: {chunk:?}");
        assert_eq!(
            place.from, from,
            "bytes of one direction are sent in the other"
        );
        let offset = chunk.offset();
        assert!(
            offset + chunk.len <= place.filled,
            "a chunk longer than its place"
        );
        place.position + u64::from(offset)
    }

    pub(super) fn release(&mut self, chunk: Chunk) {
        let place = &mut self.places[chunk.place() as usize];
        assert!(place.live > 0, "a chunk is released twice: {chunk:?}");
        place.live -= 1;
    }

    /// Chunks that are out.
    pub(super) fn live(&self) -> u32 {
        self.places.iter().map(|place| place.live).sum()
    }
}
