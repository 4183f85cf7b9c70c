//! The access log: a line per connection that ended, written by another thread.
//!
//! A worker only puts a value into a bounded queue, and never waits for it: what does not fit, or comes faster
//! than `accessLog.maxPerSecond`, is dropped and counted.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use ringside_api::settings::AccessLogMode;

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
    /// How long it was open.
    pub lasted: Duration,
    /// Bytes passed on from the client.
    pub from_client_bytes: u64,
    /// Bytes passed on from the target.
    pub from_upstream_bytes: u64,
}

impl Line {
    pub(super) fn of(connection: &Connection, reason: CloseReason, now: Time) -> Self {
        let flow = &connection.flow;
        Line {
            relay: connection.relay.clone(),
            reason,
            client: connection.client,
            lasted: now.saturating_since(flow.opened()),
            from_client_bytes: flow.relayed_bytes(Side::Client),
            from_upstream_bytes: flow.relayed_bytes(Side::Upstream),
        }
    }
}

/// Where workers put lines.
#[derive(Debug, Clone)]
pub struct AccessLog {
    lines: SyncSender<Line>,
    paid_until_nanos: Arc<AtomicU64>,
}

impl AccessLog {
    /// A log and the end that its lines come out of.
    pub fn new() -> (Self, Receiver<Line>) {
        let (lines, written) = sync_channel(LINES_WAITING);
        (
            AccessLog {
                lines,
                paid_until_nanos: Arc::default(),
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
    pub(super) fn write(&self, line: Line, most_per_second: u32, now: Time) -> bool {
        let rate = Rate::per_second(most_per_second);
        let paid = Time::from_nanos(self.paid_until_nanos.load(Ordering::Relaxed));
        if !rate.has_token(paid, now) {
            return false;
        }
        self.paid_until_nanos
            .store(rate.spend(paid, 1, now).as_nanos(), Ordering::Relaxed);
        self.lines.try_send(line).is_ok()
    }
}
