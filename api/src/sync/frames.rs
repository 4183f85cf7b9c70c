//! What goes over a connection that a sidecar's first call has upgraded: calls up and replies down, each in a frame.
//!
//! A frame is a length in four bytes, big-endian, and so many bytes. HTTP has one call at a time on a connection, and a server of it holds 16 KiB
//! of buffers for each; here a call with newer state overtakes the one that is held, and nothing is held but the call. It owns the layout
//! of both kinds of frame. It reads and writes nothing.

use serde::{Deserialize, Serialize};

use super::{REPORT_BYTES_MOST, Report};

/// What a first call asks to upgrade to.
pub const PROTOCOL: &str = "ringside-sync";

/// The most bytes of a call: a report, and its token.
pub const CALL_BYTES_MOST: usize = REPORT_BYTES_MOST + (8 << 10);

/// Bytes of a reply before its body.
pub const REPLY_HEAD_BYTES: usize = 8;

/// A call after the first, as JSON in a frame.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Call {
    /// Which of the connection's calls, counted from 0 for the one that was its request. A reply repeats it.
    pub number: u32,
    /// The token, as it is now.
    pub token: String,
    /// What is said.
    pub report: Report,
}

/// A reply: which call it is for, how that came out as a status of HTTP, and a body as HTTP's would be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply<'b> {
    /// The call's number.
    pub number: u32,
    /// 200, or that of a refusal, after which the connection ends.
    pub status: u16,
    /// After how many seconds to call again, where it says so; else 0.
    pub retry_after_seconds: u16,
    /// An [`Answer`](super::Answer) or a [`Refusal`](super::Refusal), as JSON.
    pub body: &'b [u8],
}

impl<'b> Reply<'b> {
    /// As a whole frame.
    pub fn encode(&self) -> Vec<u8> {
        let head = [
            &self.number.to_be_bytes()[..],
            &self.status.to_be_bytes(),
            &self.retry_after_seconds.to_be_bytes(),
        ];
        frame(&[&head.concat(), self.body])
    }

    /// From a frame without its length; `None` of one that is too short.
    pub fn decode(frame: &'b [u8]) -> Option<Self> {
        let (head, body) = frame.split_at_checked(REPLY_HEAD_BYTES)?;
        let (number, rest) = head.split_first_chunk()?;
        let (status, rest) = rest.split_first_chunk()?;
        let (retry_after, _) = rest.split_first_chunk()?;
        Some(Self {
            number: u32::from_be_bytes(*number),
            status: u16::from_be_bytes(*status),
            retry_after_seconds: u16::from_be_bytes(*retry_after),
            body,
        })
    }
}

/// A whole frame of these parts, which are far below 4 GiB.
pub fn frame(parts: &[&[u8]]) -> Vec<u8> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let length = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
    [&[&length[..]], parts].concat().concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_comes_out_as_it_went_in() {
        let reply = Reply {
            number: 7,
            status: 503,
            retry_after_seconds: 2,
            body: b"{}",
        };
        let bytes = reply.encode();
        let (length, rest) = bytes.split_first_chunk().unwrap();
        assert_eq!(u32::from_be_bytes(*length) as usize, rest.len());
        assert_eq!(Reply::decode(rest), Some(reply));
        for short in 0..REPLY_HEAD_BYTES {
            assert_eq!(Reply::decode(&rest[..short]), None);
        }
        let empty = Reply::decode(&rest[..REPLY_HEAD_BYTES]).unwrap();
        assert!(empty.body.is_empty());
    }
}
