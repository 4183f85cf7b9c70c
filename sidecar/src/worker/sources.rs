//! The limit of connections from one source, as the workers of a process share it.
//!
//! The counts are the whole process's, so that a limit of N means N whatever the number of workers. They are touched
//! twice per connection, and not at all while there is no limit. The decision is `pressure::sources`'.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::pressure::sources::{Source, Sources};

/// Parts that the sources are spread over, so that workers seldom wait for each other, and that none waits long while a
/// large map grows.
const PARTS: usize = 16;

/// The sources of a process's connections.
#[derive(Debug, Default)]
pub struct SharedSources {
    parts: [Mutex<Sources>; PARTS],
    refused_total: AtomicU64,
    last_refused: Mutex<Option<Refused>>,
}

/// A connection that was refused for its source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    /// Whose it was.
    pub source: Source,
    /// How many it might have open at that moment. The setting in effect may be another one by the time it is told of.
    pub limit: u32,
}

impl SharedSources {
    /// Counts a new connection of this client, unless its source has `limit` open already. Says whether it did.
    pub fn admit(&self, client: IpAddr, limit: u32) -> bool {
        let source = Source::of(client);
        let admits = lock(self.part(source)).admit(source, limit);
        if !admits {
            self.refused_total.fetch_add(1, Ordering::Relaxed);
            *lock(&self.last_refused) = Some(Refused { source, limit });
        }
        admits
    }

    /// Counts a connection that is open already, whatever the limit: one that was accepted when there was none.
    pub fn count(&self, client: IpAddr) {
        let source = Source::of(client);
        lock(self.part(source)).admit(source, 0);
    }

    /// A connection that was counted has ended.
    pub fn release(&self, client: IpAddr) {
        let source = Source::of(client);
        lock(self.part(source)).release(source);
    }

    /// Connections refused since the start.
    pub fn refused_total(&self) -> u64 {
        self.refused_total.load(Ordering::Relaxed)
    }

    /// What was refused last.
    pub fn last_refused(&self) -> Option<Refused> {
        *lock(&self.last_refused)
    }

    /// How many sources have connections that are counted, and the most that one of them has.
    pub fn occupancy(&self) -> (usize, u32) {
        let parts = self.parts.iter().map(|part| {
            let part = lock(part);
            (part.len(), part.most())
        });
        parts.fold((0, 0), |(sources, most), (more, of_part)| {
            (sources + more, most.max(of_part))
        })
    }

    fn part(&self, source: Source) -> &Mutex<Sources> {
        // The low bits of what is likely to differ. Whoever aims at one part gains a wait of well under a microsecond.
        let mixed = match source {
            Source::V4(octets) => u32::from_be_bytes(octets),
            Source::V6(network) => {
                let [a, b, c, d, e, f, g, h] = network;
                u32::from_be_bytes([a, b, c, d]) ^ u32::from_be_bytes([e, f, g, h])
            }
        };
        let part = (mixed ^ (mixed >> 8) ^ (mixed >> 16)) as usize % PARTS;
        &self.parts[part]
    }
}

/// A poisoned lock means that a thread died between two plain steps; the counts are whole all the same.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_of_n_is_n_whatever_the_number_of_workers() {
        const LIMIT: u32 = 100;
        let sources = SharedSources::default();
        let clients: Vec<IpAddr> = (0..8_u8).map(|n| IpAddr::from([10, 0, 0, n])).collect();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for turn in 0..1000 {
                        sources.admit(clients[turn % clients.len()], LIMIT);
                    }
                });
            }
        });
        assert_eq!(sources.occupancy(), (clients.len(), LIMIT));
        let refused = 4 * 1000 - u64::from(LIMIT) * clients.len() as u64;
        assert_eq!(sources.refused_total(), refused);
        for client in clients {
            assert!(!sources.admit(client, LIMIT));
            let source = Source::of(client);
            let last = Refused {
                source,
                limit: LIMIT,
            };
            assert_eq!(sources.last_refused(), Some(last));
            sources.release(client);
            assert!(sources.admit(client, LIMIT));
        }
    }
}
