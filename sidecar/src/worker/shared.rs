//! What the workers of a process share: the counts that limits of the whole process are about, and the
//! relays. Touched once per connection, never per message.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};

use arc_swap::ArcSwap;
use socket2::SockAddr;

use super::sources::SharedSources;
use super::stats::RelayStats;
use super::sync::{AtomicU32, AtomicU64};
use crate::flow::CloseReason;
use crate::pressure::rate::Rate;
use crate::time::Time;

/// Counts of the whole process.
#[derive(Debug, Default)]
pub struct Shared {
    /// Connections open in all workers.
    pub connections_open: AtomicU32,
    /// Descriptors that the process holds: those at start, then two a connection, and pipes.
    pub descriptors_open: AtomicU32,
    /// What RLIMIT_NOFILE allows.
    pub descriptor_limit: AtomicU32,
    /// Connections by source, while there is a limit for them.
    pub sources: SharedSources,
    /// The bucket of `accept.maxPerSecond`, which all workers share.
    paid_until_nanos: AtomicU64,
}

impl Shared {
    /// A process with these descriptors open and allowed.
    pub fn new(descriptors_open: u32, descriptor_limit: u32) -> Self {
        Shared {
            descriptors_open: AtomicU32::new(descriptors_open),
            descriptor_limit: AtomicU32::new(descriptor_limit),
            ..Shared::default()
        }
    }

    /// How far the bucket is paid.
    pub fn paid_until(&self) -> Time {
        Time::from_nanos(self.paid_until_nanos.load(Ordering::Relaxed))
    }

    /// Takes tokens for connections that were accepted.
    pub fn spend(&self, rate: Rate, connections: u32, now: Time) {
        let spend = |paid| {
            Some(
                rate.spend(Time::from_nanos(paid), connections, now)
                    .as_nanos(),
            )
        };
        let _ = self
            .paid_until_nanos
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, spend);
    }

    /// Counts descriptors made or, where negative, closed.
    pub fn count_descriptors(&self, change: i32) {
        self.descriptors_open
            .fetch_add(change as u32, Ordering::Relaxed);
    }
}

/// One relay, as the workers see it.
#[derive(Debug)]
pub struct Relay {
    /// Its name, a label of metrics.
    pub name: String,
    /// What it relays to, as it is written in the settings.
    pub target: ArcSwap<String>,
    /// The target's addresses of the moment; empty while its name has none.
    pub addresses: ArcSwap<Vec<SockAddr>>,
    /// The port whose redirected connections go where they were to go; 0 where connections go to `addresses`, which
    /// otherwise are only those that are checked.
    pub original_port: AtomicU16,
    /// Whether the target is told who the client is.
    pub proxy_protocol: AtomicBool,
    /// Where to begin with the target's addresses, so that several share the load.
    pub next_address: std::sync::atomic::AtomicU32,
    /// What each worker publishes of it.
    pub stats: Vec<Arc<RelayStats>>,
}

impl Relay {
    /// Connections that have ended because the target refused them.
    pub fn connections_refused(&self) -> u64 {
        let refused =
            |stats: &Arc<RelayStats>| stats.closed[CloseReason::ConnectRefused.index()].get();
        self.stats.iter().map(refused).sum()
    }
}
