//! What the application does with one connection: echo, sink, source, or one request and its reply.
//!
//! Owns a connection's progress; is handed the socket and a scratch buffer. Must never wait.

use std::io::Read;

use anyhow::bail;

use crate::application::write_some;
use crate::endpoint::{Stream, attempt};
use crate::wire::{self, CHURN_BYTES, HEADER_BYTES, Purpose};

/// Size of the buffer that [`Service::step`] works in, in bytes.
pub(crate) const SCRATCH_BYTES: usize = 256 * 1024;
/// Reads or writes of bulk per step, so that one stream does not keep the others waiting.
const BULK_OPERATIONS_PER_STEP: usize = 4;

/// What a connection needs next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// An event.
    Wait,
    /// Another turn soon: it stopped for fairness.
    Again,
    /// To be closed.
    Close,
    /// To be moved to the thread that handles bulk.
    BecameBulk,
}

/// A connection's purpose and how far it has come.
#[derive(Debug)]
pub(crate) struct Service {
    state: State,
    /// The peer has ended its stream: no further event will say so, read until the end.
    read_closed: bool,
}

impl Default for Service {
    fn default() -> Self {
        Self {
            state: State::Opening {
                header: [0; HEADER_BYTES],
                filled: 0,
            },
            read_closed: false,
        }
    }
}

#[derive(Debug)]
enum State {
    Opening {
        header: [u8; HEADER_BYTES],
        filled: usize,
    },
    Echo {
        unsent: Vec<u8>,
        sent: usize,
    },
    Sink {
        received: u64,
    },
    Source {
        position: u64,
        end: u64,
    },
    Churn {
        request: [u8; CHURN_BYTES],
        filled: usize,
        server_closes: bool,
    },
}

impl Service {
    /// Remembers that the peer ended its stream.
    pub(crate) fn note_read_closed(&mut self) {
        self.read_closed = true;
    }

    /// Does what can be done without waiting.
    pub(crate) fn step(&mut self, stream: &mut Stream, scratch: &mut [u8]) -> anyhow::Result<Step> {
        if let State::Opening { header, filled } = &mut self.state {
            while *filled < HEADER_BYTES {
                match attempt(|| stream.read(&mut header[*filled..]))? {
                    None => return Ok(Step::Wait),
                    Some(0) => return Ok(Step::Close),
                    Some(n) => *filled += n,
                }
            }
            let bulk;
            (self.state, bulk) = match Purpose::parse(header)? {
                Purpose::Echo => (
                    State::Echo {
                        unsent: Vec::new(),
                        sent: 0,
                    },
                    false,
                ),
                Purpose::Sink => (State::Sink { received: 0 }, true),
                Purpose::Source(end) => (State::Source { position: 0, end }, true),
                purpose @ (Purpose::ChurnServerCloses | Purpose::ChurnClientCloses) => {
                    let mut request = [0; CHURN_BYTES];
                    request[..HEADER_BYTES].copy_from_slice(header);
                    let server_closes = purpose == Purpose::ChurnServerCloses;
                    (
                        State::Churn {
                            request,
                            filled: HEADER_BYTES,
                            server_closes,
                        },
                        false,
                    )
                }
            };
            if bulk {
                return Ok(Step::BecameBulk);
            }
        }
        match &mut self.state {
            State::Opening { .. } => Ok(Step::Wait),
            State::Echo { unsent, sent } => echo(stream, unsent, sent, self.read_closed, scratch),
            State::Sink { received } => sink(stream, received, scratch),
            State::Source { position, end } => source(stream, position, *end, scratch),
            State::Churn {
                request,
                filled,
                server_closes,
            } => reply(stream, request, filled, *server_closes),
        }
    }
}

fn echo(
    stream: &mut Stream,
    unsent: &mut Vec<u8>,
    sent: &mut usize,
    read_closed: bool,
    scratch: &mut [u8],
) -> anyhow::Result<Step> {
    loop {
        if !unsent.is_empty() {
            *sent += write_some(stream, &unsent[*sent..])?;
            if *sent < unsent.len() {
                return Ok(Step::Wait);
            }
            unsent.clear();
            *sent = 0;
        }
        let Some(n) = attempt(|| stream.read(scratch))? else {
            return Ok(Step::Wait);
        };
        if n == 0 {
            return Ok(Step::Close);
        }
        let written = write_some(stream, &scratch[..n])?;
        unsent.extend_from_slice(&scratch[written..n]);
        // A short read means the socket is empty, and saves the call that would say so; but the end of the stream may
        // have been told in the same event.
        if n < scratch.len() && unsent.is_empty() && !read_closed {
            return Ok(Step::Wait);
        }
    }
}

fn sink(stream: &mut Stream, received: &mut u64, scratch: &mut [u8]) -> anyhow::Result<Step> {
    for _ in 0..BULK_OPERATIONS_PER_STEP {
        let Some(n) = attempt(|| stream.read(scratch))? else {
            return Ok(Step::Wait);
        };
        if n == 0 {
            let count = received.to_le_bytes();
            if write_some(stream, &count)? < count.len() {
                bail!("the count of a bulk transfer did not fit an empty socket buffer");
            }
            return Ok(Step::Close);
        }
        wire::check_stamps(&scratch[..n], *received)?;
        *received += n as u64;
    }
    Ok(Step::Again)
}

fn source(
    stream: &mut Stream,
    position: &mut u64,
    end: u64,
    scratch: &mut [u8],
) -> anyhow::Result<Step> {
    for _ in 0..BULK_OPERATIONS_PER_STEP {
        let Some(n) = send_bulk(stream, *position, end, scratch)? else {
            return Ok(Step::Wait);
        };
        *position += n;
        if *position == end {
            return Ok(Step::Close);
        }
    }
    Ok(Step::Again)
}

/// Sends bulk data from `position` on, up to `end`. `None` when the socket takes nothing now.
pub(crate) fn send_bulk(
    stream: &mut Stream,
    position: u64,
    end: u64,
    scratch: &mut [u8],
) -> std::io::Result<Option<u64>> {
    let start = position - position % wire::STAMP_EVERY_BYTES;
    wire::stamp(scratch, start);
    let from = (position - start) as usize;
    let to = scratch
        .len()
        .min(usize::try_from(end - start).unwrap_or(usize::MAX));
    let sent = attempt(|| std::io::Write::write(stream, &scratch[from..to]))?;
    Ok(sent.map(|n| n as u64))
}

fn reply(
    stream: &mut Stream,
    request: &mut [u8; CHURN_BYTES],
    filled: &mut usize,
    server_closes: bool,
) -> anyhow::Result<Step> {
    while *filled < CHURN_BYTES {
        match attempt(|| stream.read(&mut request[*filled..]))? {
            None => return Ok(Step::Wait),
            Some(0) => return Ok(Step::Close),
            Some(n) => *filled += n,
        }
        if *filled == CHURN_BYTES {
            if write_some(stream, &wire::churn_reply(request))? < CHURN_BYTES {
                bail!("a reply of {CHURN_BYTES} bytes did not fit an empty socket buffer");
            }
            if server_closes {
                return Ok(Step::Close);
            }
        }
    }
    match attempt(|| stream.read(&mut [0; 1]))? {
        None => Ok(Step::Wait),
        Some(0) => Ok(Step::Close),
        Some(_) => bail!("a churn client sent more than its request"),
    }
}
