//! Ping-pong: each connection sends a message, waits until the whole of it came back, and sends the next.
//!
//! Owns its connections and the latencies seen; every byte that comes back is compared with what was sent.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use mio::{Events, Poll, Token};

use crate::endpoint::{Endpoint, Stream, attempt};
use crate::latency::Histogram;
use crate::wire::{HEADER_BYTES, Purpose};

const EVENTS_PER_TURN: usize = 1024;
/// How long a reply may take before the run is called broken.
const PATIENCE: Duration = Duration::from_secs(30);

struct Connection {
    stream: Stream,
    message: Vec<u8>,
    serial: u64,
    sent: usize,
    received: usize,
    started: Instant,
}

/// Standing connections in a closed loop.
pub(crate) struct Ping {
    poll: Poll,
    events: Events,
    connections: Vec<Connection>,
    scratch: Vec<u8>,
    replies: u64,
    latencies: Histogram,
}

impl Ping {
    /// Opens `connections` and exchanges one message on each, so that the relay's other side stands too.
    pub(crate) fn open(
        target: &Endpoint,
        connections: usize,
        message_bytes: usize,
    ) -> anyhow::Result<Self> {
        let mut ping = Self {
            poll: Poll::new().context("cannot create an epoll instance")?,
            events: Events::with_capacity(EVENTS_PER_TURN),
            connections: Vec::with_capacity(connections),
            scratch: vec![0; message_bytes.max(4096) + 1],
            replies: 0,
            latencies: Histogram::default(),
        };
        for index in 0..connections {
            let mut stream = target.connect()?;
            stream
                .register(ping.poll.registry(), Token(index))
                .context("registering a connection failed")?;
            let mut message = vec![0; message_bytes];
            let serial = index as u64;
            fill(&mut message, serial);
            // The header and the first message leave together, as a request would.
            let first = [&Purpose::Echo.header()[..], &message].concat();
            let sent = attempt(|| stream.write(&first))?.unwrap_or(0);
            if sent < HEADER_BYTES {
                bail!("a new connection did not take the {HEADER_BYTES} bytes of its header");
            }
            let started = Instant::now();
            ping.connections.push(Connection {
                stream,
                message,
                serial,
                sent: sent - HEADER_BYTES,
                received: 0,
                started,
            });
            // Each is answered before the next is opened: no backlog is outrun, and memory does not hold a burst.
            while ping.replies <= index as u64 {
                ping.turn(false)?;
            }
        }
        Ok(ping)
    }

    /// Runs the closed loop for `duration`, and until one reply has come, and returns how many replies came and how long it really took.
    pub(crate) fn run(&mut self, duration: Duration) -> anyhow::Result<(u64, Duration)> {
        self.replies = 0;
        self.latencies = Histogram::default();
        let begin = Instant::now();
        for index in 0..self.connections.len() {
            if self.connections[index].received == self.connections[index].message.len() {
                self.next(index)?;
            }
        }
        while begin.elapsed() < duration || self.replies == 0 {
            self.turn(true)?;
        }
        Ok((self.replies, begin.elapsed()))
    }

    /// Latencies of the last [`run`](Self::run).
    pub(crate) fn latencies(&self) -> &Histogram {
        &self.latencies
    }

    fn turn(&mut self, go_on: bool) -> anyhow::Result<()> {
        let mut events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        match self.poll.poll(&mut events, Some(PATIENCE)) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            other => other.context("waiting for events failed")?,
        }
        if events.is_empty() {
            bail!("no reply came for {} s", PATIENCE.as_secs());
        }
        for event in &events {
            let index = event.token().0;
            self.drive(index, go_on)
                .with_context(|| format!("connection {index} of the ping-pong"))?;
        }
        self.events = events;
        Ok(())
    }

    fn drive(&mut self, index: usize, go_on: bool) -> anyhow::Result<()> {
        let connection = &mut self.connections[index];
        loop {
            if connection.sent < connection.message.len() {
                let unsent = &connection.message[connection.sent..];
                connection.sent += attempt(|| connection.stream.write(unsent))?.unwrap_or(0);
            }
            let Some(n) = attempt(|| connection.stream.read(&mut self.scratch))? else {
                return Ok(());
            };
            if n == 0 {
                bail!("the other side ended the connection");
            }
            let end = connection.received + n;
            if connection.message.get(connection.received..end) != Some(&self.scratch[..n]) {
                bail!(
                    "{n} bytes came back that differ from what was sent ({} of {} had come)",
                    connection.received,
                    connection.message.len()
                );
            }
            connection.received = end;
            if end == connection.message.len() {
                self.latencies
                    .record(connection.started.elapsed().as_nanos() as u64);
                self.replies += 1;
                return if go_on { self.next(index) } else { Ok(()) };
            }
        }
    }

    fn next(&mut self, index: usize) -> anyhow::Result<()> {
        let connection = &mut self.connections[index];
        connection.serial = connection.serial.wrapping_add(1 << 32);
        fill(&mut connection.message, connection.serial);
        connection.received = 0;
        connection.started = Instant::now();
        connection.sent = attempt(|| connection.stream.write(&connection.message))?.unwrap_or(0);
        Ok(())
    }
}

/// A message that differs from connection to connection and from round to round, in every word.
fn fill(message: &mut [u8], serial: u64) {
    for (index, word) in message.chunks_mut(8).enumerate() {
        let value = serial
            .wrapping_add(index as u64)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15);
        word.copy_from_slice(&value.to_le_bytes()[..word.len()]);
    }
}
