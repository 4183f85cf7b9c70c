//! A connection between the relay and a peer: what is on its way each way, and how it ends.
//!
//! It owns the content of streams. Bytes are never stored: byte `n` of stream `s` is always the same, so that each
//! byte that the relay passes on can be checked where it comes out.

use crate::backend::{Errno, Readiness};

/// The first bytes of a stream say whose it is.
pub const NAME_BYTES: u64 = 4;

/// Byte `at` of stream `stream`.
pub fn byte_of(stream: u32, at: u64) -> u8 {
    if at < NAME_BYTES {
        return stream.to_le_bytes()[at as usize];
    }
    let mixed = (at ^ u64::from(stream) << 7).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 56) as u8
}

/// How the relay closed its end.
#[derive(Debug, Clone, Copy)]
pub struct Closed {
    /// By a reset.
    pub reset: bool,
    /// Bytes that had come and were not received.
    pub unread: u64,
    /// Room for more towards the peer.
    pub room: u64,
    /// When, in nanoseconds.
    pub at: u64,
}

/// One connection.
#[derive(Debug)]
pub struct Link {
    /// The stream that the peer sends.
    pub stream: u32,
    /// Whether the relay accepted it, and did not make it.
    pub is_client: bool,
    /// What the peer has sent.
    pub sent: u64,
    /// What the relay has received of that.
    pub taken: u64,
    /// What the kernel holds of the peer's bytes at most.
    pub receive_capacity: u64,
    /// The peer has ended its stream.
    pub peer_ended: bool,
    /// The relay was told so.
    pub end_was_told: bool,
    /// The connection broke.
    pub error: Option<Errno>,
    /// What the relay has sent, a PROXY header included.
    pub written: u64,
    /// What the peer has read of that.
    pub read: u64,
    /// What the kernel holds of the relay's bytes at most.
    pub send_capacity: u64,
    /// The relay has ended its stream.
    pub is_shut: bool,
    /// It did so before it closed it.
    pub was_shut: bool,
    /// The relay has closed it.
    pub closed: Option<Closed>,
    /// The sockets do not block.
    pub splices: bool,
    /// Something changed that a poll tells of.
    pub changed: Readiness,
    /// What came out of the relay.
    pub checker: Checker,
    /// When the peer last did something, in nanoseconds.
    pub stirred_at: u64,
    /// The peer has let go of it.
    pub peer_gone: bool,
}

impl Link {
    /// Bytes that wait to be received.
    pub fn unread(&self) -> u64 {
        self.sent - self.taken
    }

    /// How much the relay can send at once.
    pub fn room(&self) -> u64 {
        self.send_capacity.saturating_sub(self.written - self.read)
    }

    /// As poll(2) would tell.
    pub fn readiness(&self) -> Readiness {
        let broken = self.error.is_some();
        Readiness {
            readable: self.unread() > 0 || self.peer_ended || broken,
            writable: self.room() > 0 || broken,
            broken,
        }
    }

    /// The next `len` bytes of what the peer sent.
    pub fn take(&mut self, len: u64) -> Vec<u8> {
        let bytes = (self.taken..self.taken + len)
            .map(|at| byte_of(self.stream, at))
            .collect();
        self.taken += len;
        bytes
    }
}

/// Checks the bytes that the relay passes on: after a header, if one is expected, one stream from its first byte on.
#[derive(Debug, Default)]
pub struct Checker {
    expects_header: bool,
    header: Vec<u8>,
    header_left: usize,
    /// Whose bytes they are, once that is known.
    pub stream: Option<u32>,
    name: [u8; NAME_BYTES as usize],
    /// Bytes of the stream that came out.
    pub bytes: u64,
}

/// What a PROXY header begins with, up to its length.
const HEADER_START: usize = 16;

impl Checker {
    /// A checker of what the relay sends to a target, with a header or without.
    pub fn new(expects_header: bool) -> Self {
        Checker {
            expects_header,
            header_left: HEADER_START,
            ..Checker::default()
        }
    }

    /// Bytes of the header that came out.
    pub fn header_bytes(&self) -> u64 {
        self.header.len() as u64
    }

    /// Takes the next bytes; or says what is wrong with them.
    pub fn check(&mut self, bytes: &[u8]) -> Result<(), String> {
        for &byte in bytes {
            if self.expects_header && self.header_left > 0 {
                self.header.push(byte);
                self.header_left -= 1;
                if self.header.len() == HEADER_START {
                    if self.header[..12] != *b"\r\n\r\n\0\r\nQUIT\n" {
                        return Err(format!("{:x?} is no PROXY header", self.header));
                    }
                    self.header_left =
                        usize::from(u16::from_be_bytes([self.header[14], self.header[15]]));
                }
                continue;
            }
            if self.bytes < NAME_BYTES {
                self.name[self.bytes as usize] = byte;
                if self.bytes + 1 == NAME_BYTES {
                    self.stream = Some(u32::from_le_bytes(self.name));
                }
            } else if let Some(stream) = self.stream
                && byte != byte_of(stream, self.bytes)
            {
                return Err(format!(
                    "byte {} of stream {stream} is {byte}, and should be {}",
                    self.bytes,
                    byte_of(stream, self.bytes)
                ));
            }
            self.bytes += 1;
        }
        Ok(())
    }
}
