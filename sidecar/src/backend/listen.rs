//! Listening sockets: one per worker for each address, sharing it by SO_REUSEPORT.
//!
//! It owns how an address is bound; it never accepts. A port that is still held by a ring being torn down
//! (which the kernel does a few milliseconds after its process is gone) is tried again for a moment.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::IntoRawFd;
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

/// A listening socket, closed when the last one who knows it drops it.
#[derive(Debug)]
pub struct ListenSocket(SocketId);

#[cfg(any(test, feature = "simulation"))]
impl ListenSocket {
    /// A listener of the simulated kernel, which this does not close.
    pub(crate) fn simulated(socket: SocketId) -> Self {
        ListenSocket(socket)
    }
}

impl ListenSocket {
    /// The socket.
    pub fn id(&self) -> SocketId {
        self.0
    }

    /// Changes how many arrivals the kernel holds, which listen(2) allows at any time.
    pub fn set_backlog(&self, backlog: u32) {
        let _ =
            super::sockets::reference(self.0).listen(i32::try_from(backlog).unwrap_or(i32::MAX));
    }

    /// Changes what the sockets that are accepted from now on are set to: they inherit it from the listener.
    pub fn set_options(&self, options: &SocketOptions) {
        let socket = super::sockets::reference(self.0);
        let address = socket.local_addr().ok().and_then(|own| own.as_socket());
        options.apply(&socket, address.is_some_and(|own| own.ip().is_loopback()));
    }
}

#[cfg(test)]
impl ListenSocket {
    /// Whether it sends at once, whether it probes, and for how long sent bytes may stay unacknowledged.
    pub(crate) fn options(&self) -> (bool, bool, Option<Duration>) {
        let socket = super::sockets::reference(self.0);
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
        if super::simulated::is_simulated(self.0) {
            return;
        }
        super::sockets::close(self.0, false);
    }
}

/// The address's listeners, and the port that the kernel chose where none was given.
#[derive(Debug)]
pub struct Listeners {
    /// One for each worker.
    pub sockets: Vec<ListenSocket>,
    /// Where they listen.
    pub address: SocketAddr,
}

/// Binds `count` listeners to one address.
///
/// # Errors
/// The address is in use by someone else, not of this machine, or not allowed.
pub fn listen(
    address: SocketAddr,
    count: usize,
    backlog: u32,
    options: &SocketOptions,
) -> Result<Listeners, ListenError> {
    let fail = |source: std::io::Error| ListenError {
        address,
        hint: hint(&source),
        source,
    };
    // The first one is bound without SO_REUSEPORT, so that another program's port is an error and not shared.
    let first = patiently(address, options).map_err(fail)?;
    let bound = first
        .local_addr()
        .map_err(fail)?
        .as_socket()
        .unwrap_or(address);
    let mut sockets = vec![first];
    if count > 1 {
        sockets[0].set_reuse_port(true).map_err(fail)?;
        for _ in 1..count {
            let socket = open(bound, options).map_err(fail)?;
            socket.set_reuse_port(true).map_err(fail)?;
            socket.bind(&bound.into()).map_err(fail)?;
            sockets.push(socket);
        }
    }
    let backlog = i32::try_from(backlog).unwrap_or(i32::MAX);
    for socket in &sockets {
        socket.listen(backlog).map_err(fail)?;
    }
    Ok(Listeners {
        sockets: sockets
            .into_iter()
            .map(|s| ListenSocket(SocketId(s.into_raw_fd())))
            .collect(),
        address: bound,
    })
}

fn patiently(address: SocketAddr, options: &SocketOptions) -> std::io::Result<Socket> {
    let mut waited = Duration::ZERO;
    loop {
        let socket = open(address, options)?;
        match socket.bind(&address.into()) {
            Ok(()) => return Ok(socket),
            Err(error)
                if error.raw_os_error() == Some(libc::EADDRINUSE) && waited < BIND_PATIENCE =>
            {
                std::thread::sleep(BIND_PAUSE);
                waited += BIND_PAUSE;
            }
            Err(error) => return Err(error),
        }
    }
}

fn open(address: SocketAddr, options: &SocketOptions) -> std::io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.cloexec(), None)?;
    socket.set_reuse_address(true)?;
    if address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) {
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
