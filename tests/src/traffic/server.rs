//! A server of the test's own: one thread per connection runs what the test says. It owns its listener and ends with
//! all its connections when dropped.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::{self, JoinHandle};

use super::{Stream, Trouble};
use crate::await_that;

/// Small, because a thousand connections are a thousand threads.
const STACK_BYTES: usize = 96 << 10;

/// How many connections are kept in mind before those that ended are forgotten.
const LEAST_KEPT: usize = 1024;

/// What a connection does; its number counts from 0.
type Serve = dyn Fn(&Stream, u64) -> Result<(), Trouble> + Send + Sync;

enum Listener {
    Tcp(TcpListener, SocketAddr),
    Unix(UnixListener, PathBuf),
}

impl Listener {
    fn accept(&self) -> io::Result<Stream> {
        match self {
            Self::Tcp(listener, _) => Stream::Tcp(listener.accept()?.0).bounded(),
            Self::Unix(listener, _) => Stream::Unix(listener.accept()?.0).bounded(),
        }
    }

    /// Makes a waiting accept return.
    fn wake(&self) {
        match self {
            Self::Tcp(_, address) => drop(TcpStream::connect(address)),
            Self::Unix(_, path) => drop(UnixStream::connect(path)),
        }
    }
}

struct Shared {
    listener: Listener,
    serve: Box<Serve>,
    stop: AtomicBool,
    accepted: AtomicU64,
    open: Mutex<Vec<Weak<Stream>>>,
    troubles: Mutex<Vec<String>>,
}

/// A running server.
pub struct Server {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Serves TCP at `address` (port 0: the kernel's choice).
    #[track_caller]
    pub fn tcp(
        address: &str,
        serve: impl Fn(&Stream, u64) -> Result<(), Trouble> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address)
            .unwrap_or_else(|error| panic!("no listener at {address}: {error}"));
        // Thousands may come at once.
        socket2::SockRef::from(&listener)
            .listen(4096)
            .expect("a longer backlog");
        let local = listener
            .local_addr()
            .expect("a bound listener has an address");
        Self::start(Listener::Tcp(listener, local), Box::new(serve))
    }

    /// Serves TCP on 127.0.0.1.
    #[track_caller]
    pub fn local(
        serve: impl Fn(&Stream, u64) -> Result<(), Trouble> + Send + Sync + 'static,
    ) -> Self {
        Self::tcp("127.0.0.1:0", serve)
    }

    /// Serves a Unix socket.
    #[track_caller]
    pub fn unix(
        path: &Path,
        serve: impl Fn(&Stream, u64) -> Result<(), Trouble> + Send + Sync + 'static,
    ) -> Self {
        let listener = UnixListener::bind(path)
            .unwrap_or_else(|error| panic!("no listener at {path:?}: {error}"));
        socket2::SockRef::from(&listener)
            .listen(4096)
            .expect("a longer backlog");
        Self::start(Listener::Unix(listener, path.to_owned()), Box::new(serve))
    }

    fn start(listener: Listener, serve: Box<Serve>) -> Self {
        let shared = Arc::new(Shared {
            listener,
            serve,
            stop: AtomicBool::new(false),
            accepted: AtomicU64::new(0),
            open: Mutex::default(),
            troubles: Mutex::default(),
        });
        let accepting = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("server".to_owned())
            .spawn(move || accept_all(&accepting));
        Self {
            shared,
            thread: Some(thread.expect("a thread for a server")),
        }
    }

    /// Where it is, as a relay's target is written.
    pub fn target(&self) -> String {
        match &self.shared.listener {
            Listener::Tcp(_, address) => address.to_string(),
            Listener::Unix(_, path) => format!("unix:{}", path.display()),
        }
    }

    /// The address of a TCP server.
    #[track_caller]
    pub fn address(&self) -> SocketAddr {
        match &self.shared.listener {
            Listener::Tcp(_, address) => *address,
            Listener::Unix(path, _) => panic!("{path:?} has no IP address"),
        }
    }

    /// How many connections it has accepted.
    pub fn accepted(&self) -> u64 {
        self.shared.accepted.load(Ordering::Acquire)
    }

    /// Waits until all connections have ended, and panics if any met trouble.
    #[track_caller]
    pub fn settle(&self) {
        await_that("the server's connections to end", || {
            let mut open = self
                .shared
                .open
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            open.retain(|stream| stream.strong_count() > 0);
            open.is_empty()
        });
        self.check();
    }

    /// Panics if any connection met trouble so far.
    #[track_caller]
    pub fn check(&self) {
        let troubles = self
            .shared
            .troubles
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        assert!(
            troubles.is_empty(),
            "{} connections met trouble at the server, such as: {}",
            troubles.len(),
            troubles[0]
        );
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        self.shared.listener.wake();
        if let Some(thread) = self.thread.take() {
            // A panic of that thread was already printed.
            let _ = thread.join();
        }
    }
}

fn accept_all(shared: &Arc<Shared>) {
    let mut serving = Vec::new();
    let mut most_kept = LEAST_KEPT;
    loop {
        let stream = match shared.listener.accept() {
            Ok(stream) => Arc::new(stream),
            // A client that was gone before it was accepted.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
            Err(error) => panic!("the server cannot accept: {error}"),
        };
        if shared.stop.load(Ordering::Acquire) {
            break;
        }
        {
            let mut open = shared.open.lock().unwrap_or_else(PoisonError::into_inner);
            // Those that ended are forgotten now and then, so that a server can go on for hours.
            if open.len() >= most_kept {
                open.retain(|stream| stream.strong_count() > 0);
                serving.retain(|thread: &JoinHandle<()>| !thread.is_finished());
                most_kept = LEAST_KEPT.max(2 * open.len());
            }
            open.push(Arc::downgrade(&stream));
        }
        let number = shared.accepted.fetch_add(1, Ordering::AcqRel);
        let serve_one = {
            let shared = Arc::clone(shared);
            move || {
                if let Err(trouble) = (shared.serve)(&stream, number) {
                    let mut troubles = shared
                        .troubles
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner);
                    troubles.push(format!("connection {number}: {trouble}"));
                }
            }
        };
        let thread = thread::Builder::new()
            .stack_size(STACK_BYTES)
            .spawn(serve_one);
        serving.push(thread.expect("a thread for a connection"));
    }
    for stream in shared
        .open
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .iter()
        .filter_map(Weak::upgrade)
    {
        // Its peer may be gone already.
        let _ = stream.shutdown(Shutdown::Both);
    }
    for thread in serving {
        // A panic of that thread was already printed.
        let _ = thread.join();
    }
}

/// Sends back what comes, until the end, which it sends back too.
///
/// # Errors
/// The kernel's answer, such as a reset.
pub fn echo(stream: &Stream, _number: u64) -> Result<(), Trouble> {
    let mut buffer = vec![0; 16 << 10];
    let mut after = 0;
    let trouble = |doing, after| {
        move |source| Trouble::Io {
            doing,
            after,
            source,
        }
    };
    let mut io = stream;
    loop {
        let got = io.read(&mut buffer).map_err(trouble("receiving", after))?;
        if got == 0 {
            return stream.finish().map_err(trouble("finishing", after));
        }
        io.write_all(&buffer[..got])
            .map_err(trouble("sending", after))?;
        after += got as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::super::Pattern;
    use super::*;

    const BYTES: u64 = 1 << 20;
    const PATTERN: Pattern = Pattern::new(11);

    /// An echo whose bytes from the given one on are changed by `spoil`, as a bad relay would.
    fn spoiling(spoil: fn(&mut Vec<u8>)) -> Result<(), Trouble> {
        let server = Server::local(move |stream, _| {
            let mut bytes = vec![0; BYTES as usize];
            let trouble = |source| Trouble::Io {
                doing: "spoiling",
                after: 0,
                source,
            };
            let mut io = stream;
            io.read_exact(&mut bytes).map_err(trouble)?;
            spoil(&mut bytes);
            io.write_all(&bytes).map_err(trouble)
        });
        let stream = Stream::connect(server.address()).unwrap();
        let result = stream
            .exchange(PATTERN, PATTERN, 0..BYTES, 10_000)
            .and_then(|()| stream.receive_end(BYTES));
        drop(stream);
        server.settle();
        result
    }

    #[test]
    fn what_a_bad_relay_does_is_found() {
        assert!(spoiling(|_| {}).is_ok());
        let offset = |result: Result<(), Trouble>| match result {
            Err(Trouble::Mismatch(mismatch)) => mismatch.offset,
            other => panic!("a mismatch was due: {other:?}"),
        };
        assert_eq!(
            offset(spoiling(|bytes| {
                let _ = bytes.remove(700_001);
            })),
            700_001
        );
        assert_eq!(offset(spoiling(|bytes| bytes.insert(3, 0))), 3);
        assert_eq!(offset(spoiling(|bytes| bytes.swap(65_535, 65_536))), 65_535);
        let result = spoiling(|bytes| bytes.truncate(1000));
        assert!(
            matches!(result, Err(Trouble::EndedEarly { arrived: 1000, .. })),
            "{result:?}"
        );
        let result = spoiling(|bytes| bytes.push(0));
        assert!(matches!(result, Err(Trouble::WentOn(BYTES))), "{result:?}");
    }

    #[test]
    fn a_server_that_is_dropped_ends_its_connections() {
        let server = Server::local(echo);
        let stream = Stream::connect(server.address()).unwrap();
        stream.ping(PATTERN, 0, 10).unwrap();
        drop(server);
        stream.await_gone().unwrap();
    }

    #[test]
    #[should_panic(expected = "connection 0: the stream ended after 0 bytes; 10 were to come")]
    fn trouble_at_the_server_is_told() {
        let server = Server::local(|stream, _| stream.receive(PATTERN, 0, 10));
        drop(Stream::connect(server.address()).unwrap());
        await_that("the connection", || server.accepted() == 1);
        server.settle();
    }
}
