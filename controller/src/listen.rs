//! The controller's listeners: how they are opened, and what `[::]` means where there is no IPv6.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Context;
use rustix::io::Errno;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpSocket};

/// Connections that wait to be accepted at most, if the kernel allows as many (`somaxconn`): a restart brings all sidecars at once, and who
/// finds no place tries again only after a second.
const BACKLOG: u32 = 4_096;

/// Listens at `address` for `what`, which a failure names. `[::]` takes IPv4 as well, and is 0.0.0.0 where there is no IPv6: it is the
/// default, and so on every node, while any other address is one that somebody wants.
pub(crate) fn listen(address: SocketAddr, what: &str) -> anyhow::Result<TcpListener> {
    let listening = open(address).or_else(|error| {
        let is_any = address.ip().is_unspecified() && address.is_ipv6();
        let no_ipv6 = [Errno::AFNOSUPPORT, Errno::ADDRNOTAVAIL].map(Errno::raw_os_error);
        if is_any
            && error
                .raw_os_error()
                .is_some_and(|errno| no_ipv6.contains(&errno))
        {
            tracing::info!("there is no IPv6 here ({error}): 0.0.0.0 takes the place of [::]");
            return open((Ipv4Addr::UNSPECIFIED, address.port()).into());
        }
        Err(error)
    });
    listening.with_context(|| format!("the listener for {what} cannot be opened at {address}"))
}

fn open(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    if address.ip().is_unspecified() && address.is_ipv6() {
        SockRef::from(&socket).set_only_v6(false)?;
    }
    // Where connections of the one before linger still.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}
