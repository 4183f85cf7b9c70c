//! What happens to connections, in plain atomics that whoever exports metrics reads; and the log's share of it, once a second per kind.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use tracing::{debug, warn};

/// Why a handshake failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandshakeFailure {
    /// It took too long.
    Slow,
    /// The peer went away before its end.
    Gone,
    /// What came is no TLS that is spoken here, or the peer refused the certificate.
    Tls,
    /// There is no certificate to show yet.
    NoCertificate,
}

impl HandshakeFailure {
    /// All of them, in the order of their counts.
    pub const ALL: [Self; 4] = [Self::Slow, Self::Gone, Self::Tls, Self::NoCertificate];

    /// The word for it in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Slow => "slow",
            Self::Gone => "gone",
            Self::Tls => "tls",
            Self::NoCertificate => "no_certificate",
        }
    }
}

impl fmt::Display for HandshakeFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Slow => "it took too long",
            Self::Gone => "the client went away",
            Self::Tls => "what came is no TLS 1.3, or the client does not trust the certificate",
            Self::NoCertificate => "there is no certificate to show yet",
        })
    }
}

/// What happened since the start. Each but `open` only grows.
#[derive(Debug)]
pub struct Counts {
    open: AtomicU64,
    accepted: AtomicU64,
    refused: AtomicU64,
    sent_away: AtomicU64,
    accept_failures: AtomicU64,
    handshakes: AtomicU64,
    handshake_failures: [AtomicU64; 4],
    idle_closed: AtomicU64,
    requests: AtomicU64,
    told: Told<7>,
}

impl Default for Counts {
    fn default() -> Self {
        Self {
            open: AtomicU64::default(),
            accepted: AtomicU64::default(),
            refused: AtomicU64::default(),
            sent_away: AtomicU64::default(),
            accept_failures: AtomicU64::default(),
            handshakes: AtomicU64::default(),
            handshake_failures: Default::default(),
            idle_closed: AtomicU64::default(),
            requests: AtomicU64::default(),
            told: Told::new(Instant::now()),
        }
    }
}

impl Counts {
    /// Connections open now, those in their handshake among them.
    pub fn open(&self) -> u64 {
        self.open.load(Relaxed)
    }

    /// Connections taken.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Relaxed)
    }

    /// Connections closed at once because as many as may be were open, and something was asked on each.
    pub fn refused(&self) -> u64 {
        self.refused.load(Relaxed)
    }

    /// Connections on which nothing was asked, closed for a newcomer because as many as may be were open.
    pub fn sent_away(&self) -> u64 {
        self.sent_away.load(Relaxed)
    }

    /// Accepts that failed for want of something here, such as descriptors.
    pub fn accept_failures(&self) -> u64 {
        self.accept_failures.load(Relaxed)
    }

    /// Handshakes that went well.
    pub fn handshakes(&self) -> u64 {
        self.handshakes.load(Relaxed)
    }

    /// Handshakes that failed for a reason.
    pub fn handshakes_failed(&self, why: HandshakeFailure) -> u64 {
        self.handshake_failures[why as usize].load(Relaxed)
    }

    /// Connections closed because there was no request for too long.
    pub fn idle_closed(&self) -> u64 {
        self.idle_closed.load(Relaxed)
    }

    /// Requests begun.
    pub fn requests(&self) -> u64 {
        self.requests.load(Relaxed)
    }

    pub(crate) fn connection_opened(self: Arc<Self>) -> Open {
        self.accepted.fetch_add(1, Relaxed);
        self.open.fetch_add(1, Relaxed);
        Open(self)
    }

    pub(crate) fn connection_refused(&self, most: usize) {
        self.refused.fetch_add(1, Relaxed);
        if let Some(more) = self.told.tell(4, Instant::now()) {
            warn!(
                more,
                "a connection was closed at once: {most} are open, which is the limit"
            );
        }
    }

    pub(crate) fn connection_sent_away(&self, most: usize) {
        self.sent_away.fetch_add(1, Relaxed);
        if let Some(more) = self.told.tell(6, Instant::now()) {
            warn!(
                more,
                "a connection on which nothing was asked was closed for a newcomer: {most} are open, which is the limit"
            );
        }
    }

    pub(crate) fn accept_failed(&self, error: &io::Error) {
        self.accept_failures.fetch_add(1, Relaxed);
        if let Some(more) = self.told.tell(5, Instant::now()) {
            warn!(
                more,
                "no connection can be taken: {error}; it is tried again (is the limit of open files too low?)"
            );
        }
    }

    pub(crate) fn handshake_done(&self) {
        self.handshakes.fetch_add(1, Relaxed);
    }

    pub(crate) fn handshake_failed(&self, why: HandshakeFailure, detail: &dyn fmt::Display) {
        self.handshake_failures[why as usize].fetch_add(1, Relaxed);
        if let Some(more) = self.told.tell(why as usize, Instant::now()) {
            // Probes of ports and clients that give up are no news.
            if why == HandshakeFailure::Gone {
                debug!(more, "a handshake failed: {why}: {detail}");
            } else {
                warn!(more, "a handshake failed: {why}: {detail}");
            }
        }
    }

    pub(crate) fn closed_idle(&self) {
        self.idle_closed.fetch_add(1, Relaxed);
    }

    pub(crate) fn request_begun(&self) {
        self.requests.fetch_add(1, Relaxed);
    }
}

/// A connection that counts as open until it is dropped.
pub(crate) struct Open(Arc<Counts>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Relaxed);
    }
}

/// Lets each of `N` kinds be told once a second.
#[derive(Debug)]
struct Told<const N: usize> {
    start: Instant,
    /// By kind: the second, counted from 1, in which it was told last, and how often it was not told since.
    kinds: [(AtomicU64, AtomicU64); N],
}

impl<const N: usize> Told<N> {
    fn new(start: Instant) -> Self {
        let kinds = std::array::from_fn(|_| Default::default());
        Self { start, kinds }
    }

    /// Whether `kind` may be told at `now`; then how many there were since it was told last.
    fn tell(&self, kind: usize, now: Instant) -> Option<u64> {
        let (last, untold) = self.kinds.get(kind)?;
        let second = now.saturating_duration_since(self.start).as_secs() + 1;
        let before = last.load(Relaxed);
        let first = before < second
            && last
                .compare_exchange(before, second, Relaxed, Relaxed)
                .is_ok();
        if first {
            return Some(untold.swap(0, Relaxed));
        }
        untold.fetch_add(1, Relaxed);
        None
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn each_kind_is_told_once_a_second_with_how_many_more_there_were() {
        let start = Instant::now();
        let told: Told<2> = Told::new(start);
        assert_eq!(told.tell(0, start), Some(0));
        for millis in [0, 1, 999] {
            assert_eq!(told.tell(0, start + Duration::from_millis(millis)), None);
        }
        assert_eq!(told.tell(1, start), Some(0));
        assert_eq!(told.tell(0, start + Duration::from_secs(1)), Some(3));
        assert_eq!(told.tell(2, start), None);
    }

    #[test]
    fn reasons_are_counted_in_the_order_that_they_are_listed_in() {
        for (index, why) in HandshakeFailure::ALL.into_iter().enumerate() {
            assert_eq!(why as usize, index);
        }
    }
}
