//! What the simulation may see of a worker: what is left in it. Only for tests.

use super::Worker;
use crate::backend::Backend;

/// What a worker holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Holdings {
    /// Connections.
    pub connections: usize,
    /// Listeners.
    pub listeners: usize,
    /// Timers that are set.
    pub timers: usize,
    /// Bytes that wait to be sent.
    pub queued_bytes: u64,
    /// Places among the pipes that streams hold.
    pub pipes_held: u32,
    /// Pipes that exist and are not free.
    pub pipes_used: u32,
    /// Pipes that exist.
    pub pipes_made: u32,
    /// Connections that wait for buffers.
    pub starved: usize,
}

impl<B: Backend> Worker<B> {
    /// What it holds now.
    pub fn holdings(&self) -> Holdings {
        Holdings {
            connections: self.connections.len(),
            listeners: self.listeners.len(),
            timers: self.timers.len(),
            queued_bytes: self.chunks.queued_bytes(),
            pipes_held: self.pipes.held,
            pipes_used: self.pipes.made - self.pipes.free.len() as u32,
            pipes_made: self.pipes.made,
            starved: self.starved.len(),
        }
    }

    /// Its backend, to look at.
    pub fn backend(&self) -> &B {
        &self.backend
    }
}
