//! What peers do to connections: they connect, send, read, end and reset, and have addresses. What waits on a
//! connection is tried soon after; who does it when is not decided here.

use std::net::SocketAddr;

use super::kernel::{Due, FIRST_SOCKET, Kernel, Slot};
use crate::backend::{Errno, Readiness, SocketId};

impl Kernel {
    /// A client connects to a listener; none if nobody takes it.
    pub fn arrive(&mut self, listener: SocketId, stream: u32) -> Option<usize> {
        let takes = match self.slot(listener) {
            Some(Slot::Listener { backlog, most }) => backlog.len() < *most,
            _ => false,
        };
        if !takes {
            return None;
        }
        let link = self.new_link(stream, true);
        if let Some(Slot::Listener { backlog, .. }) = self.slot(listener) {
            backlog.push_back(link);
        }
        let soon = self.now_nanos + self.random.u64(0..50_000);
        self.due(soon, Due::RunListener(listener));
        Some(link)
    }

    /// Something changed on a link: what waits on it is tried soon, and peers see nothing of that.
    fn stir(&mut self, link: usize, changed: Readiness) {
        self.links[link].stirred_at = self.now_nanos;
        let known = &mut self.links[link].changed;
        known.readable |= changed.readable;
        known.writable |= changed.writable;
        known.broken |= changed.broken;
        let soon = self.now_nanos + self.random.u64(0..30_000);
        self.due(soon, Due::Run(link));
    }

    /// The peer sends at most so many bytes; says how many the kernel took.
    pub fn peer_write(&mut self, link: usize, most: u64) -> u64 {
        let state = &mut self.links[link];
        if state.peer_ended || state.closed.is_some() {
            return 0;
        }
        let bytes = most.min(state.receive_capacity.saturating_sub(state.unread()));
        state.sent += bytes;
        if bytes > 0 {
            self.tell(|| format!("link {link}: the peer sends {bytes} bytes"));
            self.stir(
                link,
                Readiness {
                    readable: true,
                    ..Readiness::default()
                },
            );
        }
        bytes
    }

    /// The peer reads at most so many bytes; says how many there were.
    pub fn peer_read(&mut self, link: usize, most: u64) -> u64 {
        let state = &mut self.links[link];
        let bytes = most.min(state.written - state.read);
        state.read += bytes;
        if bytes > 0 {
            self.stir(
                link,
                Readiness {
                    writable: true,
                    ..Readiness::default()
                },
            );
        }
        bytes
    }

    /// The peer ends its stream.
    pub fn peer_end(&mut self, link: usize) {
        self.links[link].peer_ended = true;
        self.tell(|| format!("link {link}: the peer ends its stream"));
        self.stir(
            link,
            Readiness {
                readable: true,
                ..Readiness::default()
            },
        );
    }

    /// The peer resets the connection.
    pub fn peer_reset(&mut self, link: usize) {
        let dropped = self.random.bool();
        let state = &mut self.links[link];
        state.peer_gone = true;
        // Or its host is gone, which the kernel finds out by itself.
        let errors = [libc::ECONNRESET, libc::ECONNRESET, libc::ETIMEDOUT];
        state.error = Some(Errno(errors[link % 3]));
        if dropped {
            // What had come and was not received goes with the connection, or it stays, as kernels differ.
            state.sent = state.taken;
        }
        self.tell(|| format!("link {link}: the peer resets the connection"));
        self.stir(
            link,
            Readiness {
                readable: true,
                writable: true,
                broken: true,
            },
        );
    }

    /// The address of a client, and where it connected to.
    pub(super) fn addresses(&self, socket: SocketId) -> Option<(SocketAddr, SocketAddr)> {
        let index = usize::try_from(socket.0 - FIRST_SOCKET).ok()?;
        let Some(Slot::Linked(link)) = self.slots.get(index) else {
            return None;
        };
        Some((address_of(*link), SocketAddr::from(([10, 255, 0, 1], 80))))
    }

    /// Where a client's connection was to go, if the kernel redirects and did so with this one.
    pub(super) fn original_destination(&self, socket: SocketId) -> Option<SocketAddr> {
        let index = usize::try_from(socket.0 - FIRST_SOCKET).ok()?;
        match self.slots.get(index) {
            Some(Slot::Linked(link)) if is_redirected(*link) => self.redirects_from,
            _ => None,
        }
    }
}

/// Whether a link is one of those that are redirected, where any are: of eight, one comes to the relay's port by itself.
pub fn is_redirected(link: usize) -> bool {
    link % 8 != 7
}

/// How many hosts clients come from.
const SOURCES: usize = 4;

/// The first port that a client comes from: those of a link come after it.
const FIRST_PORT: usize = 1024;

/// The address of a link's peer: one of a few hosts, and a port that tells which link it is.
pub fn address_of(link: usize) -> SocketAddr {
    let (host, port) = ((1 + link % SOURCES) as u8, (FIRST_PORT + link) as u16);
    if host == 1 {
        let network = [0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, host];
        let mut octets = [0; 16];
        octets[..8].copy_from_slice(&network);
        return SocketAddr::from((octets, port));
    }
    SocketAddr::from(([10, 0, 0, host], port))
}

/// The link of an address that [`address_of`] made.
pub fn link_at(address: SocketAddr) -> Option<usize> {
    usize::from(address.port()).checked_sub(FIRST_PORT)
}
