//! The application side: what stands behind the relay (or is called directly, to see what no relay at all would do).
//!
//! Two threads with a loop each: one answers small messages, one moves bulk, so that a ping never waits in the
//! application for a stream. Owns the application's connections; must never measure.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use anyhow::Context;
use mio::{Events, Poll, Token, Waker};

use crate::endpoint::{Endpoint, Listener, Stream, attempt};
use crate::service::{Service, Step};

const LISTENER: Token = Token(usize::MAX);
const WAKER: Token = Token(usize::MAX - 1);
const EVENTS_PER_TURN: usize = 1024;

/// Listens on `endpoint`, says so on standard output, and serves until the process is ended.
pub(crate) fn serve(endpoint: &Endpoint) -> anyhow::Result<()> {
    let mut listener = endpoint.listen()?;
    println!("listening {}", listener.endpoint()?);

    let small_poll = Poll::new().context("cannot create an epoll instance")?;
    let bulk_poll = Poll::new().context("cannot create an epoll instance")?;
    listener.register(small_poll.registry(), LISTENER)?;
    let (to_bulk, from_small) = channel();
    let waker = Arc::new(Waker::new(bulk_poll.registry(), WAKER)?);

    let bulk = thread::Builder::new()
        .name("bulk".into())
        .spawn(move || Loop::new(bulk_poll, None, None).run(Some(&from_small)))?;
    Loop::new(
        small_poll,
        Some(listener),
        Some(Handover { to: to_bulk, waker }),
    )
    .run(None)?;
    match bulk.join() {
        Ok(result) => result,
        Err(_) => anyhow::bail!("the application's bulk thread panicked"),
    }
}

/// A connection on its way to the thread that moves bulk.
type Moved = (Stream, Service);

struct Handover {
    to: Sender<Moved>,
    waker: Arc<Waker>,
}

struct Connection {
    stream: Stream,
    service: Service,
}

struct Loop {
    poll: Poll,
    listener: Option<Listener>,
    handover: Option<Handover>,
    connections: Vec<Option<Connection>>,
    free: Vec<usize>,
    /// Connections that stopped for fairness, not for want of readiness: no event will come for them.
    again: Vec<usize>,
    scratch: Vec<u8>,
}

impl Loop {
    fn new(poll: Poll, listener: Option<Listener>, handover: Option<Handover>) -> Self {
        let scratch = vec![0; crate::service::SCRATCH_BYTES];
        Self {
            poll,
            listener,
            handover,
            connections: Vec::new(),
            free: Vec::new(),
            again: Vec::new(),
            scratch,
        }
    }

    fn run(mut self, inbox: Option<&Receiver<Moved>>) -> anyhow::Result<()> {
        let mut events = Events::with_capacity(EVENTS_PER_TURN);
        loop {
            let timeout = (!self.again.is_empty()).then_some(std::time::Duration::ZERO);
            match self.poll.poll(&mut events, timeout) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                other => other.context("waiting for events failed")?,
            }
            for index in std::mem::take(&mut self.again) {
                self.drive(index, false);
            }
            for event in &events {
                match event.token() {
                    LISTENER => self.accept()?,
                    WAKER => {
                        for (stream, service) in inbox.into_iter().flat_map(Receiver::try_iter) {
                            self.adopt(stream, service)?;
                        }
                    }
                    Token(index) => self.drive(index, event.is_read_closed()),
                }
            }
        }
    }

    fn accept(&mut self) -> anyhow::Result<()> {
        let Some(listener) = self.listener.take() else {
            return Ok(());
        };
        loop {
            match listener.accept() {
                Ok(stream) => self.adopt(stream, Service::default())?,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
                // A client that gave up while it waited in the backlog is its own affair.
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionAborted => {}
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context("accepting a connection failed"),
            }
        }
        self.listener = Some(listener);
        Ok(())
    }

    fn adopt(&mut self, mut stream: Stream, service: Service) -> anyhow::Result<()> {
        let index = self.free.pop().unwrap_or_else(|| {
            self.connections.push(None);
            self.connections.len() - 1
        });
        stream
            .register(self.poll.registry(), Token(index))
            .context("registering a connection failed")?;
        self.connections[index] = Some(Connection { stream, service });
        // Bytes that arrived before the registration may raise no event of their own.
        self.drive(index, false);
        Ok(())
    }

    fn drive(&mut self, index: usize, read_closed: bool) {
        let Some(Some(connection)) = self.connections.get_mut(index) else {
            return;
        };
        let Connection { stream, service } = connection;
        if read_closed {
            service.note_read_closed();
        }
        match service.step(stream, &mut self.scratch) {
            Ok(Step::Wait) => {}
            Ok(Step::Again) => self.again.push(index),
            Ok(Step::Close) => self.close(index),
            Ok(Step::BecameBulk) => self.hand_over(index),
            Err(error) => {
                // A peer that resets is ordinary in a benchmark; wrong content is not, and must be seen.
                if error.downcast_ref::<std::io::Error>().is_none() {
                    eprintln!("application: {error:#}");
                }
                self.close(index);
            }
        }
    }

    fn close(&mut self, index: usize) {
        self.connections[index] = None;
        self.free.push(index);
    }

    fn hand_over(&mut self, index: usize) {
        let Some(Connection {
            mut stream,
            service,
        }) = self.connections[index].take()
        else {
            return;
        };
        self.free.push(index);
        let Some(handover) = &self.handover else {
            return;
        };
        if stream.deregister(self.poll.registry()).is_ok()
            && handover.to.send((stream, service)).is_ok()
        {
            let _ = handover.waker.wake();
        }
    }
}

/// Writes as much of `bytes` as the socket takes.
pub(crate) fn write_some(stream: &mut Stream, bytes: &[u8]) -> std::io::Result<usize> {
    Ok(attempt(|| std::io::Write::write(stream, bytes))?.unwrap_or(0))
}
