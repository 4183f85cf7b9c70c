//! Churn: connect, one request, one reply, close, and again, with a fixed number under way at a time.
//!
//! Owns its connections; a connection that fails is counted and replaced, so that a relay that refuses is measured too.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use mio::{Events, Poll, Token};

use crate::endpoint::{Endpoint, Stream, attempt};
use crate::latency::Histogram;
use crate::wire::{self, CHURN_BYTES, Purpose};

const EVENTS_PER_TURN: usize = 1024;
const PATIENCE: Duration = Duration::from_secs(30);

struct Connection {
    stream: Stream,
    request: [u8; CHURN_BYTES],
    requested: bool,
    /// One byte more than a reply has, so that a reply that is too long shows.
    reply: [u8; CHURN_BYTES + 1],
    received: usize,
    started: Instant,
}

/// What came of one attempt to go on.
enum Progress {
    Waiting,
    Finished,
}

/// Short connections, `concurrency` at a time.
pub(crate) struct Churn {
    target: Endpoint,
    purpose: Purpose,
    poll: Poll,
    slots: Vec<Option<Connection>>,
    serial: u64,
    completed: u64,
    errors: u64,
    first_error: Option<String>,
    latencies: Histogram,
}

impl Churn {
    /// Prepares, connecting nothing yet. `client_closes` says who ends a connection first.
    pub(crate) fn new(
        target: &Endpoint,
        concurrency: usize,
        client_closes: bool,
    ) -> anyhow::Result<Self> {
        Ok(Self {
            target: target.clone(),
            purpose: if client_closes {
                Purpose::ChurnClientCloses
            } else {
                Purpose::ChurnServerCloses
            },
            poll: Poll::new().context("cannot create an epoll instance")?,
            slots: (0..concurrency).map(|_| None).collect(),
            serial: 0,
            completed: 0,
            errors: 0,
            first_error: None,
            latencies: Histogram::default(),
        })
    }

    /// Runs for `duration`, and until one connection has come to its end; returns connections completed, failed, and the time it took.
    pub(crate) fn run(&mut self, duration: Duration) -> anyhow::Result<(u64, u64, Duration)> {
        self.completed = 0;
        self.errors = 0;
        self.latencies = Histogram::default();
        let begin = Instant::now();
        for index in 0..self.slots.len() {
            if self.slots[index].is_none() {
                self.open(index);
            }
        }
        let mut events = Events::with_capacity(EVENTS_PER_TURN);
        while begin.elapsed() < duration || self.completed + self.errors == 0 {
            // A place that could not even begin to connect is tried again soon, and raises no event.
            let vacant = self.slots.iter().any(Option::is_none);
            let patience = if vacant {
                Duration::from_millis(1)
            } else {
                PATIENCE
            };
            match self.poll.poll(&mut events, Some(patience)) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                other => other.context("waiting for events failed")?,
            }
            if events.is_empty() && !vacant {
                bail!("no connection advanced for {} s", PATIENCE.as_secs());
            }
            for event in &events {
                self.drive(event.token().0);
            }
            for index in 0..self.slots.len() {
                if self.slots[index].is_none() {
                    self.open(index);
                }
            }
            if self.completed == 0 && self.errors > 10_000 {
                bail!(
                    "not one connection succeeded: {}",
                    self.first_error.as_deref().unwrap_or("no reason was given")
                );
            }
        }
        Ok((self.completed, self.errors, begin.elapsed()))
    }

    /// Latencies of the last run, from connect to the end of the reply's stream.
    pub(crate) fn latencies(&self) -> &Histogram {
        &self.latencies
    }

    /// What the first failure was, if any.
    pub(crate) fn first_error(&self) -> Option<&str> {
        self.first_error.as_deref()
    }

    fn open(&mut self, index: usize) {
        self.serial += 1;
        let request = wire::churn_request(
            self.purpose,
            self.serial.wrapping_mul(0x9e37_79b9_7f4a_7c15),
        );
        let started = Instant::now();
        let opened = self.target.start_connect().and_then(|mut stream| {
            stream.register(self.poll.registry(), Token(index))?;
            Ok(stream)
        });
        match opened {
            Ok(stream) => {
                self.slots[index] = Some(Connection {
                    stream,
                    request,
                    requested: false,
                    reply: [0; CHURN_BYTES + 1],
                    received: 0,
                    started,
                });
            }
            Err(error) => self.fail(&error.into()),
        }
    }

    fn drive(&mut self, index: usize) {
        let Some(connection) = &mut self.slots[index] else {
            return;
        };
        match connection.go_on(self.purpose == Purpose::ChurnClientCloses) {
            Ok(Progress::Waiting) => return,
            Ok(Progress::Finished) => {
                self.completed += 1;
                self.latencies
                    .record(connection.started.elapsed().as_nanos() as u64);
            }
            Err(error) => self.fail(&error),
        }
        self.slots[index] = None;
    }

    fn fail(&mut self, error: &anyhow::Error) {
        self.errors += 1;
        self.first_error.get_or_insert_with(|| format!("{error:#}"));
    }
}

impl Connection {
    fn go_on(&mut self, client_closes: bool) -> anyhow::Result<Progress> {
        if !self.requested {
            match attempt(|| self.stream.write(&self.request)) {
                Ok(Some(CHURN_BYTES)) => self.requested = true,
                Ok(Some(n)) => bail!("a new connection took {n} of {CHURN_BYTES} bytes"),
                // Not connected yet: the next event tells.
                Ok(None) => return Ok(Progress::Waiting),
                Err(error) if error.kind() == std::io::ErrorKind::NotConnected => {
                    return Ok(Progress::Waiting);
                }
                Err(error) => {
                    return Err(self
                        .stream
                        .take_error()
                        .ok()
                        .flatten()
                        .unwrap_or(error)
                        .into());
                }
            }
            return Ok(Progress::Waiting);
        }
        loop {
            match attempt(|| self.stream.read(&mut self.reply[self.received..]))? {
                None => return Ok(Progress::Waiting),
                Some(0) if self.received == CHURN_BYTES => return self.verify(),
                Some(0) => bail!(
                    "the connection ended after {} of {CHURN_BYTES} bytes",
                    self.received
                ),
                Some(n) => self.received += n,
            }
            if self.received > CHURN_BYTES {
                bail!("the reply is longer than {CHURN_BYTES} bytes");
            }
            if client_closes && self.received == CHURN_BYTES {
                return self.verify();
            }
        }
    }

    fn verify(&self) -> anyhow::Result<Progress> {
        if self.reply[..CHURN_BYTES] != wire::churn_reply(&self.request) {
            bail!("the reply is not that of this request");
        }
        Ok(Progress::Finished)
    }
}
