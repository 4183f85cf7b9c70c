//! How many connections each source address has open, and whether one more may be.
//!
//! Owns the counts of those sources that have connections, and of no other, so that its memory follows what is open and
//! not what has ever come. It must never look an address up or end a connection: it is told, and answers. A set of its
//! own for each part of the sources keeps workers out of each other's way; who shares them is the worker's concern.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use crate::time::Time;

/// Who counts as one: an IPv4 address, or the /64 that an IPv6 address is of, because whoever has one address there has
/// them all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Source {
    /// An address, also one that came as `::ffff:a.b.c.d` through a listener for both families.
    V4([u8; 4]),
    /// The first 64 bits of an address.
    V6([u8; 8]),
}

impl Source {
    /// The source that this address counts for.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Source::V4(address.octets()),
            IpAddr::V6(address) => {
                let mut network = [0; 8];
                network.copy_from_slice(&address.octets()[..8]);
                Source::V6(network)
            }
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::V4(octets) => IpAddr::from(*octets).fmt(f),
            Source::V6(network) => {
                let mut octets = [0; 16];
                octets[..8].copy_from_slice(network);
                write!(f, "{}/64", Ipv6Addr::from(octets))
            }
        }
    }
}

/// Room that is kept although nobody needs it, in sources.
const ROOM_KEPT: usize = 64;

/// The open connections of each source. The map's hash is keyed at random, as strangers choose what goes in.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    open: HashMap<Source, u32>,
}

impl Sources {
    /// Counts one more connection of `source`, unless it has `limit` open already (0: no limit). Says whether it did.
    pub fn admit(&mut self, source: Source, limit: u32) -> bool {
        let open = self.open.get(&source).copied().unwrap_or(0);
        let admits = limit == 0 || open < limit;
        if admits {
            self.open.insert(source, open.saturating_add(1));
        }
        admits
    }

    /// A connection that was admitted has ended.
    pub fn release(&mut self, source: Source) {
        let Some(open) = self.open.get_mut(&source) else {
            return;
        };
        *open -= 1;
        if *open > 0 {
            return;
        }
        self.open.remove(&source);
        // Halved at a quarter, so that a source that comes and goes at the mark moves nothing.
        if self.open.capacity() > ROOM_KEPT.max(4 * self.open.len()) {
            self.open.shrink_to(ROOM_KEPT.max(2 * self.open.len()));
        }
    }

    /// Connections of this source that are open.
    #[must_use]
    pub fn of(&self, source: Source) -> u32 {
        self.open.get(&source).copied().unwrap_or(0)
    }

    /// Sources with connections.
    #[must_use]
    pub fn len(&self) -> usize {
        self.open.len()
    }

    /// Whether nobody has a connection.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// The most connections that any source has open. Looks at all of them.
    #[must_use]
    pub fn most(&self) -> u32 {
        self.open.values().copied().max().unwrap_or(0)
    }
}

/// Refusals that are further apart than this are told of as separate.
const QUIET: Duration = Duration::from_secs(10);

/// What is to be told of refusals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// They have begun.
    Begun,
    /// None came for a while; so many there were.
    Ended {
        /// Connections refused since it was told that they had begun.
        refused: u64,
    },
}

/// When to tell of refusals: once as they begin and once when they are over, however many there are.
#[derive(Clone, Copy, Debug, Default)]
pub struct Telling {
    seen_total: u64,
    /// How many there were when the last ones were over.
    total_before: u64,
    last_at: Option<Time>,
}

impl Telling {
    /// Looks at how many there were since the process began.
    pub fn look(&mut self, total: u64, now: Time) -> Option<Told> {
        let came = total > std::mem::replace(&mut self.seen_total, total);
        match self.last_at {
            None if came => {
                self.last_at = Some(now);
                Some(Told::Begun)
            }
            Some(_) if came => {
                self.last_at = Some(now);
                None
            }
            Some(last) if now >= last.saturating_add(QUIET) => {
                self.last_at = None;
                let refused = total.saturating_sub(self.total_before);
                self.total_before = total;
                Some(Told::Ended { refused })
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
