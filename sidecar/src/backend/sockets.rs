//! Sockets: thin wrappers over the system calls that real backends make alike.
//! It owns no socket; who made one closes it. Nothing here waits.

use std::mem::ManuallyDrop;
use std::net::SocketAddr;
use std::os::fd::{FromRawFd, IntoRawFd};
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket, TcpKeepalive, Type};

use super::Errno;
use super::pool::Pool;

/// A socket of some backend; for the real ones its descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SocketId(pub i32);

impl SocketId {
    /// No socket.
    pub const NONE: SocketId = SocketId(-1);

    /// Whether there is a socket.
    pub fn is_some(self) -> bool {
        self.0 >= 0
    }
}

/// What relayed connections' sockets are set to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SocketOptions {
    /// Send small segments at once (TCP_NODELAY).
    pub no_delay: bool,
    /// Idle time before the kernel probes the other end; zero is never.
    pub keepalive: Duration,
    /// How long sent bytes may stay unacknowledged before the kernel gives up (TCP_USER_TIMEOUT); zero is
    /// the kernel's own rule.
    pub user_timeout: Duration,
}

impl SocketOptions {
    /// Sets them on a TCP socket, also one that had others before. An option that is refused is no reason to
    /// refuse the connection.
    pub(crate) fn apply(&self, socket: &Socket, local_peer: bool) {
        let _ = socket.set_tcp_nodelay(self.no_delay);
        // A peer on this machine cannot vanish without the kernel knowing: no probes, three calls saved.
        if local_peer {
            return;
        }
        if self.keepalive.is_zero() {
            let _ = socket.set_keepalive(false);
        } else {
            let seconds = Duration::from_secs(self.keepalive.as_secs().max(1));
            let _ = socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(seconds));
        }
        // Zero is the kernel's own rule for it, too.
        let _ = socket.set_tcp_user_timeout(Some(self.user_timeout));
    }
}

/// The socket as `socket2` sees it, without closing it when that is dropped.
pub(super) fn reference(socket: SocketId) -> ManuallyDrop<Socket> {
    // SAFETY: the worker's loop closes a socket only after its last use, and nobody else closes it, so the
    // descriptor is open for as long as this is used, which is one call; and it is never dropped.
    ManuallyDrop::new(unsafe { Socket::from_raw_fd(socket.0) })
}

/// A stream socket of the address's family.
pub(super) fn stream(
    address: &SockAddr,
    options: &SocketOptions,
    non_blocking: bool,
) -> Result<SocketId, Errno> {
    let domain = Domain::from(i32::from(address.family()));
    let kind = if non_blocking {
        Type::STREAM.nonblocking()
    } else {
        Type::STREAM
    };
    let socket = Socket::new(domain, kind.cloexec(), None).map_err(|error| Errno::of(&error))?;
    if let Some(inet) = address.as_socket() {
        options.apply(&socket, inet.ip().is_loopback());
    }
    Ok(SocketId(socket.into_raw_fd()))
}

/// The other end's address, of an Internet socket that is still connected.
pub(super) fn peer(socket: SocketId) -> Option<SocketAddr> {
    reference(socket).peer_addr().ok()?.as_socket()
}

/// The other end's address and our own, of an Internet socket.
pub(super) fn addresses(socket: SocketId) -> Option<(SocketAddr, SocketAddr)> {
    let socket = reference(socket);
    Some((
        socket.peer_addr().ok()?.as_socket()?,
        socket.local_addr().ok()?.as_socket()?,
    ))
}

/// Where a connection was to go before this machine's kernel redirected it here. None where nothing did: also without
/// connection tracking, which redirects.
pub(super) fn original_destination(socket: SocketId) -> Option<SocketAddr> {
    let socket = reference(socket);
    let local = socket.local_addr().ok()?.as_socket()?;
    // A dual-stack listener sees IPv4 as mapped addresses, and the kernel tracks it as what it is.
    let (local_ip, is_v4) = (
        local.ip().to_canonical(),
        local.ip().to_canonical().is_ipv4(),
    );
    let found = if is_v4 {
        socket.original_dst_v4()
    } else {
        socket.original_dst_v6()
    };
    let original = found.ok()?.as_socket()?;
    let came_here = (original.ip().to_canonical(), original.port()) == (local_ip, local.port());
    (!came_here).then_some(original)
}

pub(super) fn shutdown_write(socket: SocketId) {
    // ENOTCONN says that the other end is gone already; its reset is seen by the receive.
    let _ = reference(socket).shutdown(std::net::Shutdown::Write);
}

/// Closes a socket; with `reset` by a reset instead of a FIN.
pub(super) fn close(socket: SocketId, reset: bool) {
    if reset {
        let _ = reference(socket).set_linger(Some(Duration::ZERO));
    }
    // SAFETY: the caller owns the descriptor and never uses it again.
    unsafe { libc::close(socket.0) };
}

pub(super) fn set_non_blocking(socket: SocketId, non_blocking: bool) {
    let _ = reference(socket).set_nonblocking(non_blocking);
}

/// Accepts a connection, if one has arrived at the non-blocking listener.
pub(super) fn accept(listener: SocketId, non_blocking: bool) -> Result<SocketId, Errno> {
    let more = if non_blocking { libc::SOCK_NONBLOCK } else { 0 };
    let (no_address, no_length) = (std::ptr::null_mut(), std::ptr::null_mut());
    // SAFETY: no address is asked for.
    let fd = unsafe { libc::accept4(listener.0, no_address, no_length, libc::SOCK_CLOEXEC | more) };
    Errno::check(fd).map(SocketId)
}

/// Receives into the unfilled part of an entry, at most `most` bytes, which it has room for. Does not wait.
pub(super) fn receive(socket: SocketId, pool: &Pool, entry: u32, most: u32) -> Result<u32, Errno> {
    let most = most.min(pool.room(entry));
    // SAFETY: the entry has room for `most` bytes at its tail, which nobody else reads or writes.
    let got = unsafe {
        libc::recv(
            socket.0,
            pool.tail(entry).cast(),
            most as usize,
            libc::MSG_DONTWAIT,
        )
    };
    u32::try_from(got).map_err(|_| Errno::last())
}

/// Ends a connection for its other end, by a reset or in good order, and keeps its descriptor. Whoever polls it is
/// told.
#[cfg_attr(target_env = "musl", expect(dead_code, reason = "for tokio-uring"))]
pub(super) fn end(socket: SocketId, reset: bool) {
    let nowhere = libc::sockaddr {
        sa_family: libc::AF_UNSPEC as u16,
        sa_data: [0; 14],
    };
    let length = size_of::<libc::sockaddr>() as libc::socklen_t;
    // SAFETY: the address lives through the call and is as long as it says. Connecting a TCP socket to no
    // address is how one is disconnected, which sends a reset; a Unix socket refuses it.
    let is_reset = reset && unsafe { libc::connect(socket.0, &raw const nowhere, length) } == 0;
    if !is_reset {
        let _ = reference(socket).shutdown(std::net::Shutdown::Both);
    }
}
