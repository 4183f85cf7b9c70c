//! Bulk: each connection moves its share of a number of bytes in one direction, as fast as it goes.
//!
//! Owns its connections; what arrives is checked by its stamps and its count. Pauses only for want of readiness.

use std::io::{Read, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use mio::{Events, Poll, Token};

use crate::endpoint::{Endpoint, Stream, attempt};
use crate::service::send_bulk;
use crate::wire::{self, COUNT_BYTES, HEADER_BYTES, Purpose};

/// Bytes offered to the socket in one call, and taken from it in one.
const CALL_BYTES: usize = 128 * 1024;
/// Calls per connection and turn, so that the connections advance together.
const CALLS_PER_TURN: usize = 4;
const EVENTS_PER_TURN: usize = 1024;
const PATIENCE: Duration = Duration::from_secs(30);

/// Which way the bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// From the client to the application.
    Upload,
    /// From the application to the client.
    Download,
}

struct Connection {
    stream: Stream,
    position: u64,
    end: u64,
    count: [u8; COUNT_BYTES],
    count_filled: usize,
    done: bool,
}

/// Connections that carry bulk.
pub(crate) struct Bulk {
    poll: Poll,
    way: Way,
    connections: Vec<Connection>,
    scratch: Vec<u8>,
    open: usize,
}

/// How others watch and end a transfer while it runs in a thread of its own.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    /// Bytes moved so far.
    pub moved: AtomicU64,
    /// Set to have the transfer end where it is.
    pub stop: AtomicBool,
}

impl Bulk {
    /// Opens the connections on which [`run`](Self::run) will move `bytes` in all.
    pub(crate) fn open(
        target: &Endpoint,
        connections: usize,
        bytes: u64,
        way: Way,
    ) -> anyhow::Result<Self> {
        let poll = Poll::new().context("cannot create an epoll instance")?;
        let mut opened = Vec::with_capacity(connections);
        let share = (bytes / connections.max(1) as u64).max(1);
        for index in 0..connections {
            let mut stream = target.connect()?;
            stream
                .register(poll.registry(), Token(index))
                .context("registering a connection failed")?;
            if way == Way::Upload {
                send_header(&mut stream, Purpose::Sink)?;
            }
            opened.push(Connection {
                stream,
                position: 0,
                end: share,
                count: [0; COUNT_BYTES],
                count_filled: 0,
                done: false,
            });
        }
        Ok(Self {
            poll,
            way,
            open: opened.len(),
            connections: opened,
            scratch: vec![0x5a; CALL_BYTES],
        })
    }

    /// Moves everything and waits until the other side has confirmed it (or until `watch` says stop).
    /// Returns the bytes moved and the time it took.
    pub(crate) fn run(&mut self, watch: &Watch) -> anyhow::Result<(u64, Duration)> {
        let begin = Instant::now();
        let mut again: Vec<usize> = (0..self.connections.len()).collect();
        if self.way == Way::Download {
            for connection in &mut self.connections {
                send_header(&mut connection.stream, Purpose::Source(connection.end))?;
            }
        }
        let mut events = Events::with_capacity(EVENTS_PER_TURN);
        while self.open > 0 && !watch.stop.load(Ordering::Relaxed) {
            let mut next = Vec::new();
            for index in again {
                if self
                    .drive(index, watch)
                    .with_context(|| format!("connection {index} of the bulk transfer"))?
                {
                    next.push(index);
                }
            }
            again = next;
            if self.open == 0 {
                break;
            }
            let timeout = if again.is_empty() {
                PATIENCE
            } else {
                Duration::ZERO
            };
            match self.poll.poll(&mut events, Some(timeout)) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                other => other.context("waiting for events failed")?,
            }
            if events.is_empty() && again.is_empty() {
                bail!(
                    "the bulk transfer did not move for {} s",
                    PATIENCE.as_secs()
                );
            }
            for event in &events {
                if !again.contains(&event.token().0) {
                    again.push(event.token().0);
                }
            }
        }
        let moved = self
            .connections
            .iter()
            .map(|connection| connection.position)
            .sum();
        Ok((moved, begin.elapsed()))
    }

    /// Moves what can be moved now; true when it stopped for fairness.
    fn drive(&mut self, index: usize, watch: &Watch) -> anyhow::Result<bool> {
        let Connection {
            stream,
            position,
            end,
            count,
            count_filled,
            done,
        } = &mut self.connections[index];
        if *done {
            return Ok(false);
        }
        for _ in 0..CALLS_PER_TURN {
            let moved = match self.way {
                Way::Upload if *position < *end => {
                    send_bulk(stream, *position, *end, &mut self.scratch)?
                }
                Way::Upload => {
                    match attempt(|| stream.read(&mut count[*count_filled..]))? {
                        None => return Ok(false),
                        Some(0) => bail!("the connection ended before the transfer was confirmed"),
                        Some(n) => *count_filled += n,
                    }
                    if *count_filled == COUNT_BYTES {
                        let confirmed = u64::from_le_bytes(*count);
                        if confirmed != *end {
                            bail!("{end} bytes were sent and {confirmed} arrived");
                        }
                        *done = true;
                        self.open -= 1;
                        return Ok(false);
                    }
                    continue;
                }
                Way::Download => match attempt(|| stream.read(&mut self.scratch))? {
                    Some(0) if *position < *end => {
                        bail!("the stream ended at byte {position} of {end}")
                    }
                    Some(0) => {
                        *done = true;
                        self.open -= 1;
                        return Ok(false);
                    }
                    Some(n) => {
                        wire::check_stamps(&self.scratch[..n], *position)?;
                        Some(n as u64)
                    }
                    None => None,
                },
            };
            let Some(n) = moved else { return Ok(false) };
            *position += n;
            watch.moved.fetch_add(n, Ordering::Relaxed);
            if self.way == Way::Upload && *position == *end {
                stream.finish().context("ending the stream failed")?;
            }
        }
        Ok(true)
    }
}

fn send_header(stream: &mut Stream, purpose: Purpose) -> anyhow::Result<()> {
    if attempt(|| stream.write(&purpose.header()))? != Some(HEADER_BYTES) {
        bail!("a new connection did not take the {HEADER_BYTES} bytes of its header");
    }
    Ok(())
}
