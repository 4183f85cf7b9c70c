//! Bytes on their way: per direction a queue of chunks, all in one store.
//!
//! The store owns the nodes of every queue of a worker, so that an empty queue costs twelve bytes and a full
//! one no allocation. It never touches the bytes; chunks that are done with are collected for the worker,
//! which gives them back to the backend.

use crate::backend::Chunk;

const NONE: u32 = u32::MAX;

/// A queue of chunks in a [`ChunkStore`].
#[derive(Debug, Clone, Copy)]
pub struct Queue {
    head: u32,
    tail: u32,
    bytes: u32,
}

impl Default for Queue {
    fn default() -> Self {
        Queue {
            head: NONE,
            tail: NONE,
            bytes: 0,
        }
    }
}

impl Queue {
    /// How many bytes are queued.
    pub fn bytes(&self) -> u32 {
        self.bytes
    }

    /// Whether nothing is queued.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }
}

#[derive(Debug, Clone, Copy)]
struct Node {
    chunk: Chunk,
    next: u32,
}

/// The nodes of all queues of a worker.
#[derive(Debug)]
pub struct ChunkStore {
    nodes: Vec<Node>,
    free: u32,
    queued_bytes: u64,
    released: Vec<Chunk>,
}

impl Default for ChunkStore {
    fn default() -> Self {
        ChunkStore {
            nodes: Vec::new(),
            free: NONE,
            queued_bytes: 0,
            released: Vec::new(),
        }
    }
}

impl ChunkStore {
    /// Bytes in all queues.
    pub fn queued_bytes(&self) -> u64 {
        self.queued_bytes
    }

    /// The chunks that are done with since this was last called.
    pub fn take_released(&mut self) -> std::vec::Drain<'_, Chunk> {
        self.released.drain(..)
    }

    /// Gives a chunk back without queueing it.
    pub fn discard(&mut self, chunk: Chunk) {
        self.released.push(chunk);
    }

    /// Appends a chunk; one that follows the last in memory becomes one with it.
    pub fn push(&mut self, queue: &mut Queue, chunk: Chunk) {
        if chunk.len == 0 {
            // It would wait behind a queue that counts as empty.
            return self.discard(chunk);
        }
        queue.bytes += chunk.len;
        self.queued_bytes += u64::from(chunk.len);
        if queue.tail != NONE {
            let last = &mut self.nodes[queue.tail as usize].chunk;
            if last.is_followed_by(chunk) {
                last.len += chunk.len;
                // The two are one now, and one is released twice: once here, once when it has been sent.
                self.released.push(chunk);
                return;
            }
        }
        let index = self.allocate(Node { chunk, next: NONE });
        if queue.tail == NONE {
            queue.head = index;
        } else {
            self.nodes[queue.tail as usize].next = index;
        }
        queue.tail = index;
    }

    /// Copies the queue's first chunks to `out`, as many as fit, and returns how many and their bytes.
    pub fn gather(&self, queue: &Queue, out: &mut [Chunk]) -> (usize, u32) {
        let (mut count, mut bytes, mut at) = (0, 0, queue.head);
        while at != NONE && count < out.len() {
            let node = &self.nodes[at as usize];
            out[count] = node.chunk;
            bytes += node.chunk.len;
            count += 1;
            at = node.next;
        }
        (count, bytes)
    }

    /// Calls `each` for every chunk of a queue, first to last.
    pub fn for_each(&self, queue: &Queue, mut each: impl FnMut(Chunk)) {
        let mut at = queue.head;
        while at != NONE {
            let node = &self.nodes[at as usize];
            each(node.chunk);
            at = node.next;
        }
    }

    /// Whether bytes of a queue lie in the pool's entries, and not all in memory of their own.
    pub fn holds_entries(&self, queue: &Queue) -> bool {
        let mut holds = false;
        self.for_each(queue, |chunk| holds |= !chunk.is_private());
        holds
    }

    /// Removes `bytes` from the queue's front: they have been sent.
    pub fn pop(&mut self, queue: &mut Queue, bytes: u32) {
        let mut left = bytes.min(queue.bytes);
        queue.bytes -= left;
        self.queued_bytes -= u64::from(left);
        while left > 0 {
            let index = queue.head;
            let node = &mut self.nodes[index as usize];
            if node.chunk.len > left {
                node.chunk = node.chunk.advanced(left);
                return;
            }
            left -= node.chunk.len;
            queue.head = node.next;
            self.released.push(node.chunk);
            node.next = self.free;
            self.free = index;
        }
        if queue.head == NONE {
            queue.tail = NONE;
        }
    }

    fn allocate(&mut self, node: Node) -> u32 {
        if self.free == NONE {
            self.nodes.push(node);
            return (self.nodes.len() - 1) as u32;
        }
        let index = self.free;
        self.free = self.nodes[index as usize].next;
        self.nodes[index as usize] = node;
        index
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_in_comes_out_in_order_and_every_chunk_is_released_once() {
        let mut store = ChunkStore::default();
        let mut queue = Queue::default();
        for chunk in [
            Chunk::of_place(1, 0, 10),
            Chunk::of_place(1, 10, 5),
            Chunk::of_place(2, 0, 7),
        ] {
            store.push(&mut queue, chunk);
        }
        let mut out = [Chunk::of_place(0, 0, 0); 4];
        assert_eq!(store.gather(&queue, &mut out), (2, 22));
        assert_eq!(out[0], Chunk::of_place(1, 0, 15));
        store.pop(&mut queue, 12);
        assert_eq!(store.gather(&queue, &mut out), (2, 10));
        assert_eq!(out[0], Chunk::of_place(1, 12, 3));
        store.pop(&mut queue, 10);
        assert!(queue.is_empty());
        assert_eq!(store.take_released().count(), 3);
        assert_eq!(store.queued_bytes(), 0);
    }

    #[test]
    fn an_empty_chunk_is_given_back_at_once() {
        let mut store = ChunkStore::default();
        let mut queue = Queue::default();
        store.push(&mut queue, Chunk::of_place(1, 0, 0));
        assert_eq!(store.gather(&queue, &mut [Chunk::of_place(0, 0, 0)]).0, 0);
        assert_eq!(store.take_released().count(), 1);
    }

    #[test]
    fn nodes_are_used_again() {
        let mut store = ChunkStore::default();
        let mut queue = Queue::default();
        for round in 0..1000 {
            store.push(&mut queue, Chunk::of_place(round, 0, 3));
            store.pop(&mut queue, 3);
            store.take_released();
        }
        assert_eq!(store.nodes.len(), 1);
    }
}
