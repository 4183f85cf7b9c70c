//! What the simulation may see of a worker: what is left in it. Only for tests.

use std::net::SocketAddr;

use super::{Worker, completions};
use crate::backend::Backend;
use crate::flow::{CloseReason, Side};

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

/// A connection of a worker's.
#[derive(Debug, Clone, Copy)]
pub struct Connected {
    /// Whose, where that was looked up.
    pub client: Option<SocketAddr>,
    /// The key of its connects' tokens.
    pub connect_key: u64,
    /// Why it is being ended, if it is.
    pub closing: Option<CloseReason>,
    /// Bytes that wait to be sent, both ways.
    pub held_bytes: u64,
}

/// The limits of connections that a worker obeys.
#[derive(Debug, Clone, Copy)]
pub struct AcceptLimits {
    /// `accept.maxConnections`, or what it was when an accept began that still runs.
    pub max_connections: u32,
    /// `accept.perSource`; 0 is none.
    pub per_source: u32,
}

impl<B: Backend> Worker<B> {
    /// Its connections.
    pub fn connected(&mut self) -> Vec<Connected> {
        let ids = self.connections.ids().into_iter();
        let each = ids.filter_map(|id| {
            let connection = self.connections.get_mut(id)?;
            let flow = &connection.flow;
            Some(Connected {
                client: connection.client,
                connect_key: completions::key(id, Side::Upstream),
                closing: flow.closing(),
                held_bytes: Side::BOTH
                    .map(|from| u64::from(flow.queue(from).bytes()))
                    .iter()
                    .sum(),
            })
        });
        each.collect()
    }

    /// The limits that it obeys now.
    pub fn accept_limits(&mut self) -> AcceptLimits {
        let of_accepts = self
            .listeners
            .values_mut()
            .map(|listening| listening.limit());
        let of_accepts = of_accepts.max().unwrap_or(0);
        AcceptLimits {
            max_connections: self.limits.gate.max_connections.max(of_accepts),
            per_source: self.limits.per_source,
        }
    }

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
