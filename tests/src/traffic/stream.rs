//! One end of a connection, TCP or Unix: sends and checks patterns, ends in every way there is. All waiting is bounded.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::ops::Range;
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Duration;

use socket2::{Domain, SockRef, Socket, Type};

use super::{Mismatch, Pattern};
use crate::PATIENCE;

/// What went wrong on a stream.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// A byte is lost, doubled, swapped or foreign.
    #[error("{0}")]
    Mismatch(#[from] Mismatch),
    /// The stream ended before all had arrived.
    #[error("the stream ended after {arrived} bytes; {expected} were to come")]
    EndedEarly {
        /// Bytes that came.
        arrived: u64,
        /// Bytes that should have come.
        expected: u64,
    },
    /// More came than should have.
    #[error("the stream went on after byte {0}")]
    WentOn(u64),
    /// The kernel's answer, such as a reset or a timeout.
    #[error("{doing} failed after {after} bytes: {source}")]
    Io {
        /// Sending or receiving.
        doing: &'static str,
        /// Bytes that went well.
        after: u64,
        /// The kernel's answer.
        source: io::Error,
    },
}

impl Trouble {
    /// Whether the peer reset the connection.
    pub fn is_reset(&self) -> bool {
        // Ending a stream that was reset before says that it is not connected.
        use io::ErrorKind::{BrokenPipe, ConnectionReset, NotConnected};
        matches!(self, Self::Io { source, .. } if matches!(source.kind(), ConnectionReset | BrokenPipe | NotConnected))
    }
}

/// One end of a connection.
#[derive(Debug)]
pub enum Stream {
    /// Over TCP.
    Tcp(TcpStream),
    /// Over a Unix socket.
    Unix(UnixStream),
}

impl Read for &Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => (&mut &*stream).read(buffer),
            Stream::Unix(stream) => (&mut &*stream).read(buffer),
        }
    }
}

impl Write for &Stream {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => (&mut &*stream).write(buffer),
            Stream::Unix(stream) => (&mut &*stream).write(buffer),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Stream {
    /// Connects over TCP.
    ///
    /// # Errors
    /// What the kernel answered, or that it took longer than the tests' patience.
    pub fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        Self::Tcp(stream).bounded()
    }

    /// Connects over TCP from an address of this machine, such as another one of the loopback's network.
    ///
    /// # Errors
    /// What the kernel answered, or that it took longer than the tests' patience.
    pub fn connect_from(source: IpAddr, address: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM.cloexec(), None)?;
        socket.bind(&SocketAddr::new(source, 0).into())?;
        socket.connect_timeout(&address.into(), PATIENCE)?;
        Self::Tcp(socket.into()).bounded()
    }

    /// With bounded waiting and without Nagle's delay.
    pub(super) fn bounded(self) -> io::Result<Self> {
        if let Self::Tcp(stream) = &self {
            stream.set_nodelay(true)?;
        }
        self.set_patience(PATIENCE)?;
        Ok(self)
    }

    /// How long a receive or a send may wait.
    ///
    /// # Errors
    /// What the kernel answered.
    pub fn set_patience(&self, patience: Duration) -> io::Result<()> {
        let socket = self.socket();
        socket.set_read_timeout(Some(patience))?;
        socket.set_write_timeout(Some(patience))
    }

    /// The socket, for its options.
    pub fn socket(&self) -> SockRef<'_> {
        match self {
            Self::Tcp(stream) => SockRef::from(stream),
            Self::Unix(stream) => SockRef::from(stream),
        }
    }

    /// This end's address, where it has one.
    pub fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(stream) => stream.local_addr().ok(),
            Self::Unix(_) => None,
        }
    }

    /// Sends the pattern's bytes `from..to`, `piece` bytes at a time.
    ///
    /// # Errors
    /// [`Trouble::Io`], with how far it came.
    pub fn send(&self, pattern: Pattern, from: u64, to: u64, piece: usize) -> Result<(), Trouble> {
        let mut buffer = vec![0; piece];
        let mut at = from;
        while at < to {
            let part = buffer
                .len()
                .min(usize::try_from(to - at).unwrap_or(usize::MAX));
            pattern.fill(at, &mut buffer[..part]);
            let mut writer = self;
            writer
                .write_all(&buffer[..part])
                .map_err(|source| Trouble::Io {
                    doing: "sending",
                    after: at - from,
                    source,
                })?;
            at += part as u64;
        }
        Ok(())
    }

    /// Receives until the pattern's bytes `from..to` have arrived, and not one byte more.
    ///
    /// # Errors
    /// See [`Trouble`].
    pub fn receive(&self, pattern: Pattern, from: u64, to: u64) -> Result<(), Trouble> {
        let arrived = self.receive_some(pattern, from, to)?;
        if arrived < to - from {
            return Err(Trouble::EndedEarly {
                arrived,
                expected: to - from,
            });
        }
        Ok(())
    }

    /// Receives the pattern's bytes `from..to` and then the end of the stream.
    ///
    /// # Errors
    /// See [`Trouble`].
    pub fn receive_to_end(&self, pattern: Pattern, from: u64, to: u64) -> Result<(), Trouble> {
        self.receive(pattern, from, to)?;
        self.receive_end(to - from)
    }

    /// Receives the end of the stream and nothing else.
    ///
    /// # Errors
    /// See [`Trouble`]; `after` is how many bytes came before.
    pub fn receive_end(&self, after: u64) -> Result<(), Trouble> {
        let mut reader = self;
        match reader.read(&mut [0]) {
            Ok(0) => Ok(()),
            Ok(_) => Err(Trouble::WentOn(after)),
            Err(source) => Err(Trouble::Io {
                doing: "waiting for the end",
                after,
                source,
            }),
        }
    }

    /// Receives the pattern from `from` on until the end of the stream or `to`; returns how many bytes came.
    ///
    /// # Errors
    /// A mismatch or the kernel's answer.
    pub fn receive_some(&self, pattern: Pattern, from: u64, to: u64) -> Result<u64, Trouble> {
        let mut buffer = vec![0; 64 << 10];
        let mut at = from;
        while at < to {
            let most = buffer
                .len()
                .min(usize::try_from(to - at).unwrap_or(usize::MAX));
            let mut reader = self;
            let got = match reader.read(&mut buffer[..most]) {
                Ok(0) => break,
                Ok(got) => got,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(source) => {
                    return Err(Trouble::Io {
                        doing: "receiving",
                        after: at - from,
                        source,
                    });
                }
            };
            pattern.check(at, &buffer[..got])?;
            at += got as u64;
        }
        Ok(at - from)
    }

    /// Sends bytes `from..to` of one pattern while it receives those of another. Trouble on one side ends both.
    ///
    /// # Errors
    /// See [`Trouble`]; what was received is told first.
    pub fn exchange(
        &self,
        sent: Pattern,
        received: Pattern,
        range: Range<u64>,
        piece: usize,
    ) -> Result<(), Trouble> {
        thread::scope(|scope| {
            let Range { start, end } = range;
            let sending = scope.spawn(move || {
                let result = self.send(sent, start, end, piece);
                if result.is_err() {
                    // The other side of this end must not wait for an answer to what was never sent.
                    let _ = self.shutdown(Shutdown::Both);
                }
                result
            });
            let result = self.receive(received, start, end);
            if result.is_err() {
                let _ = self.shutdown(Shutdown::Both);
            }
            let sending = sending.join().expect("sending does not panic");
            result.and(sending)
        })
    }

    /// Waits until the peer is gone, by whatever end; what still comes is thrown away.
    ///
    /// # Errors
    /// That it did not come to an end in time.
    pub fn await_gone(&self) -> Result<(), Trouble> {
        let mut reader = self;
        loop {
            match reader.read(&mut [0; 4096]) {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(source) => {
                    let trouble = Trouble::Io {
                        doing: "waiting for the peer to go",
                        after: 0,
                        source,
                    };
                    return if trouble.is_reset() {
                        Ok(())
                    } else {
                        Err(trouble)
                    };
                }
            }
        }
    }

    /// Waits until the peer has reset the connection, and nothing else will do.
    #[track_caller]
    pub fn expect_reset(&self) {
        let mut reader = self;
        match reader.read(&mut [0; 4096]) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
            other => panic!("a reset was due, and there came {other:?}"),
        }
    }

    /// Expects that a connection was accepted and then reset, which may come before the connecting is over.
    #[track_caller]
    pub fn expect_turned_away(connected: io::Result<Self>) {
        match connected {
            Ok(stream) => stream.expect_reset(),
            Err(error) => assert_eq!(
                error.kind(),
                io::ErrorKind::ConnectionReset,
                "a reset was due: {error}"
            ),
        }
    }

    /// Sends the pattern's bytes `from..to` and receives them back.
    ///
    /// # Errors
    /// See [`Trouble`].
    pub fn ping(&self, pattern: Pattern, from: u64, to: u64) -> Result<(), Trouble> {
        self.send(
            pattern,
            from,
            to,
            usize::try_from(to - from)
                .unwrap_or(1 << 16)
                .clamp(1, 1 << 16),
        )?;
        self.receive(pattern, from, to)
    }

    /// Ends this side's sending; receiving goes on.
    ///
    /// # Errors
    /// What the kernel answered.
    pub fn finish(&self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }

    /// Ends both directions, also for whoever waits on this end.
    ///
    /// # Errors
    /// What the kernel answered.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.shutdown(how),
            Self::Unix(stream) => stream.shutdown(how),
        }
    }

    /// From now on closing this end is a reset: the peer gets ECONNRESET, whatever was on the way.
    ///
    /// # Errors
    /// What the kernel answered.
    pub fn reset_on_close(&self) -> io::Result<()> {
        self.socket().set_linger(Some(Duration::ZERO))
    }

    /// Ends the connection by a reset.
    ///
    /// # Errors
    /// What the kernel answered.
    pub fn reset(self) -> io::Result<()> {
        self.reset_on_close()
    }
}
