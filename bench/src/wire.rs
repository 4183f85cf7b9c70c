//! What the load tool's client and application say to each other.
//!
//! A connection begins with a header of 16 bytes that names its purpose; everything after it belongs to that purpose.
//! Bulk data carries its own position every 4 KiB, so that a lost, doubled or misplaced byte shows without a checksum
//! that would cost more than the transfer. Must never know about sockets.

use anyhow::{Context, bail};

/// Bytes of the header that opens every connection.
pub(crate) const HEADER_BYTES: usize = 16;
/// Bytes of a request and of a reply of the churn workload; the request includes the header.
pub(crate) const CHURN_BYTES: usize = 64;
/// Distance between two stamps in bulk data.
pub(crate) const STAMP_EVERY_BYTES: u64 = 4096;
/// Bytes of the count that the application sends back once it has received a whole bulk transfer.
pub(crate) const COUNT_BYTES: usize = 8;
const STAMP_BYTES: u64 = 8;
const MAGIC: [u8; 4] = *b"RSL1";

/// Why a connection exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Every byte comes back.
    Echo,
    /// Bytes are counted and checked; at the end of the stream their number comes back.
    Sink,
    /// The application sends this many bytes, then ends the stream.
    Source(u64),
    /// One request, one reply, then the application closes first (as HTTP/1.0 does).
    ChurnServerCloses,
    /// One request, one reply, then the client closes first.
    ChurnClientCloses,
}

impl Purpose {
    /// The header that opens a connection for this purpose.
    pub(crate) fn header(self) -> [u8; HEADER_BYTES] {
        let (kind, value) = match self {
            Self::Echo => (b'e', 0),
            Self::Sink => (b's', 0),
            Self::Source(bytes) => (b'g', bytes),
            Self::ChurnServerCloses => (b'c', 0),
            Self::ChurnClientCloses => (b'C', 0),
        };
        let mut header = [0; HEADER_BYTES];
        header[..4].copy_from_slice(&MAGIC);
        header[4] = kind;
        header[8..].copy_from_slice(&value.to_le_bytes());
        header
    }

    /// Reads a header. Fails when the bytes are not one.
    pub(crate) fn parse(header: &[u8; HEADER_BYTES]) -> anyhow::Result<Self> {
        if header[..4] != MAGIC {
            bail!(
                "a connection did not begin with the load tool's header; is something else calling this port?"
            );
        }
        let value = u64::from_le_bytes(header[8..].try_into().context("a header is 16 bytes")?);
        Ok(match header[4] {
            b'e' => Self::Echo,
            b's' => Self::Sink,
            b'g' => Self::Source(value),
            b'c' => Self::ChurnServerCloses,
            b'C' => Self::ChurnClientCloses,
            other => bail!("a connection asked for the unknown purpose {other:#04x}"),
        })
    }
}

/// The request of the churn workload: header, then bytes derived from `serial`; the reply is the same bytes inverted.
pub(crate) fn churn_request(purpose: Purpose, serial: u64) -> [u8; CHURN_BYTES] {
    let mut request = [0; CHURN_BYTES];
    request[..HEADER_BYTES].copy_from_slice(&purpose.header());
    for (index, word) in request[HEADER_BYTES..].chunks_exact_mut(8).enumerate() {
        word.copy_from_slice(&serial.rotate_left(index as u32 * 8).to_le_bytes());
    }
    request
}

/// The reply that belongs to a churn request.
pub(crate) fn churn_reply(request: &[u8; CHURN_BYTES]) -> [u8; CHURN_BYTES] {
    request.map(|byte| !byte)
}

/// Writes the stamps that belong into `chunk`, which begins at `position` of the stream. The other bytes stay.
/// `position` must be a multiple of [`STAMP_EVERY_BYTES`].
pub(crate) fn stamp(chunk: &mut [u8], position: u64) {
    debug_assert!(position.is_multiple_of(STAMP_EVERY_BYTES));
    for (index, page) in chunk.chunks_mut(STAMP_EVERY_BYTES as usize).enumerate() {
        let at = position + index as u64 * STAMP_EVERY_BYTES;
        if let Some(place) = page.get_mut(..STAMP_BYTES as usize) {
            place.copy_from_slice(&at.to_le_bytes());
        }
    }
}

/// Checks the stamps that lie wholly in `chunk`, which begins at `position` of the stream (any value).
pub(crate) fn check_stamps(chunk: &[u8], position: u64) -> anyhow::Result<()> {
    let mut at = position.next_multiple_of(STAMP_EVERY_BYTES);
    let end = position + chunk.len() as u64;
    while at + STAMP_BYTES <= end {
        let from = (at - position) as usize;
        let found = u64::from_le_bytes(chunk[from..from + STAMP_BYTES as usize].try_into()?);
        if found != at {
            bail!("bulk data is wrong: byte {at} of the stream carries the stamp {found}");
        }
        at += STAMP_EVERY_BYTES;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_says_what_was_meant() {
        for purpose in [
            Purpose::Echo,
            Purpose::Sink,
            Purpose::Source(1 << 40),
            Purpose::ChurnServerCloses,
            Purpose::ChurnClientCloses,
        ] {
            assert_eq!(Purpose::parse(&purpose.header()).unwrap(), purpose);
        }
    }

    #[test]
    fn a_foreign_caller_is_refused_with_a_reason() {
        let error = Purpose::parse(b"GET / HTTP/1.1\r\n")
            .unwrap_err()
            .to_string();
        assert!(error.contains("header"), "{error}");
    }

    #[test]
    fn a_missing_byte_is_noticed_wherever_the_stream_is_cut() {
        let mut stream = vec![7; 64 * 1024];
        stamp(&mut stream, 0);
        for cut in [0, 1, 100, 4095, 4096, 4097, 9000] {
            check_stamps(&stream[..cut], 0).unwrap();
            check_stamps(&stream[cut..], cut as u64).unwrap();
            assert!(
                check_stamps(&stream[cut + 1..], cut as u64).is_err(),
                "cut at {cut}"
            );
        }
    }
}
