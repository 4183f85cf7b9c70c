//! Addresses that the tool listens on and connects to, TCP or Unix, and the streams they give.
//!
//! Owns how a socket is opened and prepared; must never decide what is sent on it.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Context, bail};
use mio::event::Source;
use mio::{Interest, Registry, Token, net};

/// Where the application listens or the client connects: `IP:port` or `unix:/path`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Endpoint {
    /// A TCP address.
    Tcp(SocketAddr),
    /// A Unix socket's path.
    Unix(PathBuf),
}

impl FromStr for Endpoint {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(path) = text.strip_prefix("unix:") {
            if !path.starts_with('/') {
                bail!("`{text}`: a Unix socket is given as unix:/path, with an absolute path");
            }
            return Ok(Self::Unix(path.into()));
        }
        match text.parse() {
            Ok(address) => Ok(Self::Tcp(address)),
            Err(_) => bail!(
                "`{text}` is no address: give IP:port (127.0.0.1:8080, [::1]:8080) or unix:/path"
            ),
        }
    }
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl Endpoint {
    /// Starts to connect and returns at once; the stream is writable when it is done.
    pub(crate) fn start_connect(&self) -> io::Result<Stream> {
        Ok(match self {
            Self::Tcp(address) => {
                let stream = net::TcpStream::connect(*address)?;
                stream.set_nodelay(true)?;
                Stream::Tcp(stream)
            }
            Self::Unix(path) => Stream::Unix(net::UnixStream::connect(path)?),
        })
    }

    /// Connects and waits until it is done. The stream does not block after that.
    pub(crate) fn connect(&self) -> anyhow::Result<Stream> {
        let stream = match self {
            Self::Tcp(address) => std::net::TcpStream::connect(address).and_then(|stream| {
                stream.set_nodelay(true)?;
                stream.set_nonblocking(true)?;
                Ok(Stream::Tcp(net::TcpStream::from_std(stream)))
            }),
            Self::Unix(path) => std::os::unix::net::UnixStream::connect(path).and_then(|stream| {
                stream.set_nonblocking(true)?;
                Ok(Stream::Unix(net::UnixStream::from_std(stream)))
            }),
        };
        stream.with_context(|| format!("cannot connect to {self}"))
    }

    /// Listens with the longest backlog the system grants. An old Unix socket file of that name is replaced.
    pub(crate) fn listen(&self) -> anyhow::Result<Listener> {
        let listener = match self {
            Self::Tcp(address) => std::net::TcpListener::bind(address).and_then(|listener| {
                listener.set_nonblocking(true)?;
                Ok(Listener::Tcp(net::TcpListener::from_std(listener)))
            }),
            Self::Unix(path) => {
                if std::os::unix::net::UnixStream::connect(path).is_ok() {
                    bail!("cannot listen on {self}: another process is listening there");
                }
                let _ = std::fs::remove_file(path);
                std::os::unix::net::UnixListener::bind(path).and_then(|listener| {
                    listener.set_nonblocking(true)?;
                    Ok(Listener::Unix(net::UnixListener::from_std(listener)))
                })
            }
        };
        listener.with_context(|| format!("cannot listen on {self}"))
    }
}

/// A listening socket that does not block.
#[derive(Debug)]
pub(crate) enum Listener {
    /// Of a TCP address.
    Tcp(net::TcpListener),
    /// Of a Unix socket.
    Unix(net::UnixListener),
}

impl Listener {
    /// The address in use: the port that the kernel chose when 0 was asked for.
    pub(crate) fn endpoint(&self) -> io::Result<Endpoint> {
        Ok(match self {
            Self::Tcp(listener) => Endpoint::Tcp(listener.local_addr()?),
            Self::Unix(listener) => Endpoint::Unix(
                listener
                    .local_addr()?
                    .as_pathname()
                    .map(PathBuf::from)
                    .unwrap_or_default(),
            ),
        })
    }

    /// The next connection, or `WouldBlock`.
    pub(crate) fn accept(&self) -> io::Result<Stream> {
        Ok(match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept()?;
                stream.set_nodelay(true)?;
                Stream::Tcp(stream)
            }
            Self::Unix(listener) => Stream::Unix(listener.accept()?.0),
        })
    }

    /// Has `registry` report arrivals under `token`.
    pub(crate) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        match self {
            Self::Tcp(listener) => listener.register(registry, token, Interest::READABLE),
            Self::Unix(listener) => listener.register(registry, token, Interest::READABLE),
        }
    }
}

/// A connected (or connecting) socket that does not block.
#[derive(Debug)]
pub(crate) enum Stream {
    /// Over TCP.
    Tcp(net::TcpStream),
    /// Over a Unix socket.
    Unix(net::UnixStream),
}

impl Stream {
    /// Has `registry` report both readiness to read and to write under `token`, edge-triggered.
    pub(crate) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        let interest = Interest::READABLE | Interest::WRITABLE;
        match self {
            Self::Tcp(stream) => stream.register(registry, token, interest),
            Self::Unix(stream) => stream.register(registry, token, interest),
        }
    }

    /// Takes the stream out of `registry`, so that another thread's can have it.
    pub(crate) fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.deregister(registry),
            Self::Unix(stream) => stream.deregister(registry),
        }
    }

    /// Ends the sending half.
    pub(crate) fn finish(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.shutdown(std::net::Shutdown::Write),
            Self::Unix(stream) => stream.shutdown(std::net::Shutdown::Write),
        }
    }

    /// The error with which an attempt to connect failed, if it did.
    pub(crate) fn take_error(&self) -> io::Result<Option<io::Error>> {
        match self {
            Self::Tcp(stream) => stream.take_error(),
            Self::Unix(stream) => stream.take_error(),
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(buffer),
            Self::Unix(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(buffer),
            Self::Unix(stream) => stream.write(buffer),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads or writes once: `Some(n)`, `None` when it would block; an interrupted call is repeated.
pub(crate) fn attempt(mut call: impl FnMut() -> io::Result<usize>) -> io::Result<Option<usize>> {
    loop {
        match call() {
            Ok(n) => return Ok(Some(n)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_every_kind_are_read_and_shown_alike() {
        for text in ["127.0.0.1:80", "[::1]:8080", "unix:/tmp/app.sock"] {
            assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_bad_address_is_answered_with_what_is_allowed() {
        for text in ["localhost", "unix:app.sock", ""] {
            let error = text.parse::<Endpoint>().unwrap_err().to_string();
            assert!(error.contains("unix:/path"), "{error}");
        }
    }
}
