//! The access log: a line per connection that ended, written by another thread.
//!
//! A worker only puts a value into a bounded queue, and never waits for it: what does not fit, or comes faster
//! than `accessLog.maxPerSecond`, is dropped and counted.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use ringside_api::settings::AccessLogMode;
use socket2::SockAddr;

use super::Connection;
use super::shared::Relay;
use crate::flow::{CloseReason, Side};
use crate::pressure::rate::Rate;
use crate::time::Time;

/// Lines that wait for the thread that writes them.
const LINES_WAITING: usize = 1024;

/// A connection that ended.
#[derive(Debug, Clone)]
pub struct Line {
    /// The relay that accepted it.
    pub relay: Arc<Relay>,
    /// Why it ended.
    pub reason: CloseReason,
    /// The client's address.
    pub client: Option<SocketAddr>,
    /// The addresses of the target, and which of them it was connected to; `None` of one that was connected to none.
    pub upstream: Option<(Arc<Vec<SockAddr>>, usize)>,
    /// When it was accepted.
    pub opened: Time,
    /// When it ended.
    pub closed: Time,
    /// How long it took to be connected to the target, all attempts together.
    pub connect: Option<Duration>,
    /// Bytes passed on from the client.
    pub from_client_bytes: u64,
    /// Bytes passed on from the target.
    pub from_upstream_bytes: u64,
    /// Lines that were dropped since the one before this.
    pub left_out: u64,
}

impl Line {
    pub(super) fn of(connection: &Connection, reason: CloseReason, now: Time) -> Self {
        let flow = &connection.flow;
        let connect = connection.connect_micros;
        let upstream = connection.addresses.clone().filter(|_| connect > 0);
        Line {
            relay: connection.relay.clone(),
            reason,
            client: connection.client,
            upstream: upstream.map(|addresses| {
                let index = connection.address_index(addresses.len());
                (addresses, index)
            }),
            opened: flow.opened(),
            closed: now,
            connect: (connect > 0).then(|| Duration::from_micros(u64::from(connect))),
            from_client_bytes: flow.relayed_bytes(Side::Client),
            from_upstream_bytes: flow.relayed_bytes(Side::Upstream),
            left_out: 0,
        }
    }
}

/// Where workers put lines.
#[derive(Debug, Clone)]
pub struct AccessLog {
    lines: SyncSender<Line>,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    paid_until_nanos: AtomicU64,
    left_out: AtomicU64,
}

impl AccessLog {
    /// A log and the end that its lines come out of.
    pub fn new() -> (Self, Receiver<Line>) {
        let (lines, written) = sync_channel(LINES_WAITING);
        (
            AccessLog {
                lines,
                shared: Arc::default(),
            },
            written,
        )
    }

    /// Whether a connection that ended so is to be logged.
    pub(super) fn wants(&self, mode: AccessLogMode, reason: CloseReason) -> bool {
        match mode {
            AccessLogMode::Off => false,
            AccessLogMode::Errors => !reason.is_ordinary(),
            AccessLogMode::All => true,
        }
    }

    /// Puts a line into the queue; false if it was dropped.
    pub(super) fn write(&self, mut line: Line, most_per_second: u32, now: Time) -> bool {
        let Shared {
            paid_until_nanos,
            left_out,
        } = &*self.shared;
        let rate = Rate::per_second(most_per_second);
        let paid = Time::from_nanos(paid_until_nanos.load(Ordering::Relaxed));
        if !rate.has_token(paid, now) {
            left_out.fetch_add(1, Ordering::Relaxed);
            return false;
        }
        paid_until_nanos.store(rate.spend(paid, 1, now).as_nanos(), Ordering::Relaxed);
        line.left_out = left_out.swap(0, Ordering::Relaxed);
        let Err(refused) = self.lines.try_send(line) else {
            return true;
        };
        let (TrySendError::Full(line) | TrySendError::Disconnected(line)) = refused;
        left_out.fetch_add(line.left_out + 1, Ordering::Relaxed);
        false
    }
}
