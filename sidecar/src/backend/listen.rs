//! Listening sockets: one per worker for each address, sharing it by SO_REUSEPORT.
//!
//! It owns how an address is bound and kept; it never accepts. A port that is still held by a ring being torn down
//! (which the kernel does a few milliseconds after its process is gone) is tried again for a moment.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::fd::IntoRawFd;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use super::{SocketId, SocketOptions};

/// How long a bind is tried again while the address is in use.
const BIND_PATIENCE: Duration = Duration::from_millis(1000);
const BIND_PAUSE: Duration = Duration::from_millis(10);

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {source}{hint}")]
pub struct ListenError {
    address: SocketAddr,
    source: std::io::Error,
    hint: &'static str,
}

impl ListenError {
    fn of(address: SocketAddr, source: std::io::Error) -> Self {
        ListenError {
            address,
            hint: hint(&source),
            source,
        }
    }
}

/// A listening socket, closed when the last one who knows it drops it.
#[derive(Debug)]
pub struct ListenSocket {
    socket: SocketId,
    is_retired: AtomicBool,
}

#[cfg(any(test, feature = "simulation"))]
impl ListenSocket {
    /// A listener of the simulated kernel, which this does not close.
    pub(crate) fn simulated(socket: SocketId) -> Self {
        ListenSocket::of(socket)
    }
}

impl ListenSocket {
    fn of(socket: SocketId) -> Self {
        ListenSocket {
            socket,
            is_retired: AtomicBool::new(false),
        }
    }

    /// The socket.
    pub fn id(&self) -> SocketId {
        self.socket
    }

    /// Nobody is to begin to accept from it any more.
    pub fn retire(&self) {
        self.is_retired.store(true, Ordering::SeqCst);
    }

    /// Whether nobody is to begin to accept from it any more.
    pub fn is_retired(&self) -> bool {
        self.is_retired.load(Ordering::SeqCst)
    }

    /// Changes how many arrivals the kernel holds, which listen(2) allows at any time.
    pub fn set_backlog(&self, backlog: u32) {
        let _ = super::sockets::reference(self.socket)
            .listen(i32::try_from(backlog).unwrap_or(i32::MAX));
    }

    /// Changes what the sockets that are accepted from now on are set to: they inherit it from the listener.
    pub fn set_options(&self, options: &SocketOptions) {
        let socket = super::sockets::reference(self.socket);
        let address = socket.local_addr().ok().and_then(|own| own.as_socket());
        options.apply(&socket, address.is_some_and(|own| own.ip().is_loopback()));
    }
}

#[cfg(test)]
impl ListenSocket {
    /// Whether it sends at once, whether it probes, and for how long sent bytes may stay unacknowledged.
    pub(crate) fn options(&self) -> (bool, bool, Option<Duration>) {
        let socket = super::sockets::reference(self.socket);
        (
            socket.tcp_nodelay().unwrap(),
            socket.keepalive().unwrap(),
            socket.tcp_user_timeout().unwrap(),
        )
    }
}

impl Drop for ListenSocket {
    fn drop(&mut self) {
        #[cfg(any(test, feature = "simulation"))]
        if super::simulated::is_simulated(self.socket) {
            return;
        }
        super::sockets::close(self.socket, false);
    }
}

/// An address that is this process's, whether or not anybody listens there at the moment: a socket that is bound and
/// never listens. Without a listener beside it the kernel answers whoever connects with a reset.
#[derive(Debug)]
pub struct Reservation {
    socket: Socket,
    address: SocketAddr,
}

impl Reservation {
    /// Takes an address; port 0 is the kernel's choice.
    ///
    /// # Errors
    /// The address is in use by someone else, not of this machine, or not allowed.
    pub fn take(address: SocketAddr, options: &SocketOptions) -> Result<Self, ListenError> {
        let fail = |source| ListenError::of(address, source);
        // Bound without SO_REUSEPORT, so that another program's port is an error and not shared.
        let (socket, address) = patiently(address, options).map_err(fail)?;
        let bound = socket.local_addr().map_err(fail)?;
        let reservation = Reservation {
            socket,
            address: bound.as_socket().unwrap_or(address),
        };
        reservation.keep_others_out().map_err(fail)?;
        Ok(reservation)
    }

    /// SO_REUSEADDR, which the bind needs where connections of an earlier process are not forgotten yet, would let any
    /// program have the port while nobody listens.
    fn keep_others_out(&self) -> std::io::Result<()> {
        self.socket.set_reuse_port(true)?;
        self.socket.set_reuse_address(false)?;
        // The kernel believes what it noted of the port at the first bind until a socket without the option is bound.
        let domain = Domain::for_address(self.address);
        let note = Socket::new(domain, Type::STREAM.cloexec(), None)?;
        note.set_reuse_port(true)?;
        if is_both_families(self.address) {
            note.set_only_v6(false)?;
        }
        // Connections of another program's may forbid it; then the first listener does the same.
        let _ = note.bind(&self.address.into());
        Ok(())
    }

    /// The address, with the port that the kernel chose where none was given.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Makes `count` sockets listen at the address.
    ///
    /// # Errors
    /// No descriptor or no memory is left.
    pub fn listen(
        &self,
        count: usize,
        backlog: u32,
        options: &SocketOptions,
    ) -> Result<Vec<ListenSocket>, ListenError> {
        let fail = |source| ListenError::of(self.address, source);
        let mut sockets = Vec::with_capacity(count);
        for _ in 0..count {
            let socket = open(self.address, options).map_err(fail)?;
            socket.set_reuse_port(true).map_err(fail)?;
            socket.bind(&self.address.into()).map_err(fail)?;
            sockets.push(socket);
        }
        let backlog = i32::try_from(backlog).unwrap_or(i32::MAX);
        for socket in &sockets {
            socket.listen(backlog).map_err(fail)?;
        }
        let ids = sockets.into_iter().map(IntoRawFd::into_raw_fd);
        Ok(ids.map(|id| ListenSocket::of(SocketId(id))).collect())
    }
}

/// Listeners that are there for good, and where.
#[cfg(test)]
#[derive(Debug)]
pub(crate) struct Listeners {
    pub(crate) sockets: Vec<ListenSocket>,
    pub(crate) address: SocketAddr,
}

#[cfg(test)]
pub(crate) fn listen(
    address: SocketAddr,
    count: usize,
    backlog: u32,
    options: &SocketOptions,
) -> Result<Listeners, ListenError> {
    let reservation = Reservation::take(address, options)?;
    Ok(Listeners {
        sockets: reservation.listen(count, backlog, options)?,
        address: reservation.address(),
    })
}

/// A socket that is bound and not waited for, and that is to listen at once, as the admin listener's.
///
/// # Errors
/// What the kernel answered.
pub fn plain(address: SocketAddr, backlog: i32) -> std::io::Result<TcpListener> {
    let options = SocketOptions {
        no_delay: true,
        keepalive: Duration::ZERO,
        user_timeout: Duration::ZERO,
    };
    let (socket, _) = bind(address, &options)?;
    socket.listen(backlog)?;
    Ok(socket.into())
}

fn patiently(
    address: SocketAddr,
    options: &SocketOptions,
) -> std::io::Result<(Socket, SocketAddr)> {
    let mut waited = Duration::ZERO;
    loop {
        match bind(address, options) {
            Err(error)
                if error.raw_os_error() == Some(libc::EADDRINUSE) && waited < BIND_PATIENCE =>
            {
                std::thread::sleep(BIND_PAUSE);
                waited += BIND_PAUSE;
            }
            other => return other,
        }
    }
}

/// A bound socket, and the address as it was asked for, or as it has to be where there is no IPv6.
///
/// `[::]` asks for every address that there is. An injected sidecar has it everywhere, also on a node without IPv6, where it means
/// every address of IPv4. Any other address of IPv6 is one that somebody wants, and there is none in its place.
fn bind(address: SocketAddr, options: &SocketOptions) -> std::io::Result<(Socket, SocketAddr)> {
    let bind = |address: SocketAddr| {
        let socket = open(address, options)?;
        socket.bind(&address.into())?;
        Ok((socket, address))
    };
    match bind(address) {
        Err(error) if is_both_families(address) && is_without_ipv6(&error) => {
            static TOLD: Once = Once::new();
            TOLD.call_once(|| {
                tracing::info!("there is no IPv6 here ({error}): 0.0.0.0 takes the place of [::]");
            });
            bind((Ipv4Addr::UNSPECIFIED, address.port()).into())
        }
        other => other,
    }
}

fn is_both_families(address: SocketAddr) -> bool {
    address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED)
}

/// No socket of IPv6 can be made, where the kernel was built or started without it; or none bound, as in some sandboxes. Where it is
/// only switched off (`net.ipv6.conf.all.disable_ipv6`), `[::]` can be listened at and takes what comes by IPv4.
fn is_without_ipv6(error: &std::io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL)
    )
}

fn open(address: SocketAddr, options: &SocketOptions) -> std::io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.cloexec(), None)?;
    socket.set_reuse_address(true)?;
    if is_both_families(address) {
        // `[::]` is every address of both families, whatever net.ipv6.bindv6only says.
        socket.set_only_v6(false)?;
    }
    // Accepted sockets inherit these.
    options.apply(&socket, address.ip().is_loopback());
    Ok(socket)
}

fn hint(error: &std::io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EADDRINUSE) => "; another program has this port: stop it, or choose another one",
        Some(libc::EADDRNOTAVAIL) => {
            "; this machine has no such address: use 0.0.0.0 or [::] for all of its own"
        }
        Some(libc::EACCES) => {
            "; ports below net.ipv4.ip_unprivileged_port_start take a privilege: choose a higher one"
        }
        Some(libc::EMFILE | libc::ENFILE) => {
            "; no file descriptor is left: raise the limit (ulimit -n)"
        }
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpStream};

    use super::*;

    const OPTIONS: SocketOptions = SocketOptions {
        no_delay: true,
        keepalive: Duration::ZERO,
        user_timeout: Duration::ZERO,
    };

    fn any_port(ip: impl Into<IpAddr>) -> SocketAddr {
        SocketAddr::new(ip.into(), 0)
    }

    /// What any program may try, with and without SO_REUSEADDR.
    fn assert_kept(address: SocketAddr) {
        for reuse in [false, true] {
            let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
            socket.set_reuse_address(reuse).unwrap();
            let bound = socket.bind(&address.into());
            assert_eq!(
                bound.map_err(|error| error.kind()),
                Err(std::io::ErrorKind::AddrInUse),
                "with SO_REUSEADDR {reuse}"
            );
        }
    }

    #[test]
    fn a_reserved_address_refuses_and_is_kept_whether_or_not_it_is_listened_at() {
        let reservation = Reservation::take(any_port(Ipv4Addr::LOCALHOST), &OPTIONS).unwrap();
        let address = reservation.address();
        for _ in 0..3 {
            assert_kept(address);
            let refused = TcpStream::connect(address).unwrap_err();
            assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
            let listeners = reservation.listen(2, 16, &OPTIONS).unwrap();
            assert_kept(address);
            let client = TcpStream::connect(address).unwrap();
            drop(listeners);
            drop(client);
        }
        assert!(Reservation::take(address, &OPTIONS).is_err());
        drop(reservation);
        Reservation::take(address, &OPTIONS).unwrap();
    }

    #[test]
    fn both_families_are_reserved_together() {
        let Ok(reservation) = Reservation::take(any_port(Ipv6Addr::UNSPECIFIED), &OPTIONS) else {
            // No IPv6 here.
            return;
        };
        let port = reservation.address().port();
        assert_kept(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        let _listeners = reservation.listen(1, 16, &OPTIONS).unwrap();
        TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    }
}
