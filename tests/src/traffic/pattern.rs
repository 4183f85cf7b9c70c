//! Bytes that depend on a seed and on their position, so that one that is lost, doubled or swapped is found, and
//! where it came from can be told.

use std::fmt;

/// An endless sequence of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pattern {
    seed: u64,
}

/// How far around a wrong byte its true position is looked for, in bytes.
const SEARCH: u64 = 4 << 20;

/// How many bytes have to agree to say that a run comes from another position.
const AGREE: usize = 16;

impl Pattern {
    /// The sequence of a seed.
    pub const fn new(seed: u64) -> Self {
        Self { seed }
    }

    /// Eight bytes at once: splitmix64 of the word's number.
    fn word(self, number: u64) -> [u8; 8] {
        let mut z = self
            .seed
            .wrapping_add(number.wrapping_mul(0x9E37_79B9_7F4A_7C15))
            .wrapping_add(0x1234_5678_9ABC_DEF1);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)).to_le_bytes()
    }

    /// Writes the bytes from position `offset` on.
    pub fn fill(self, offset: u64, mut buffer: &mut [u8]) {
        let (mut number, skip) = (offset / 8, (offset % 8) as usize);
        let mut word = &self.word(number)[skip..];
        let mut whole;
        while !buffer.is_empty() {
            let part = word.len().min(buffer.len());
            buffer[..part].copy_from_slice(&word[..part]);
            buffer = &mut buffer[part..];
            number += 1;
            whole = self.word(number);
            word = &whole;
        }
    }

    /// Compares bytes that arrived at position `offset`.
    ///
    /// # Errors
    /// The first byte that is not what it should be.
    pub fn check(self, offset: u64, found: &[u8]) -> Result<(), Mismatch> {
        let mut expected = [0; 4096];
        for (part, chunk) in found.chunks(expected.len()).enumerate() {
            let begin = offset + (part * expected.len()) as u64;
            let expected = &mut expected[..chunk.len()];
            self.fill(begin, expected);
            if expected != chunk {
                let at = expected
                    .iter()
                    .zip(chunk)
                    .position(|(a, b)| a != b)
                    .unwrap_or(0);
                let rest = &found[part * 4096 + at..];
                let offset = begin + at as u64;
                return Err(Mismatch {
                    offset,
                    expected: expected[at],
                    found: chunk[at],
                    really: self.locate(offset, rest),
                });
            }
        }
        Ok(())
    }

    /// The position near `around` where these bytes belong.
    fn locate(self, around: u64, bytes: &[u8]) -> Option<u64> {
        let needle = bytes.get(..AGREE)?;
        let begin = around.saturating_sub(SEARCH);
        let mut near = vec![0; (around - begin + SEARCH) as usize];
        self.fill(begin, &mut near);
        near.windows(AGREE)
            .position(|window| window == needle)
            .map(|at| begin + at as u64)
    }
}

/// A byte that is not what it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mismatch {
    /// Its position in the stream.
    pub offset: u64,
    /// What belongs there.
    pub expected: u8,
    /// What was there.
    pub found: u8,
    /// The position where what was found belongs, if it is near.
    pub really: Option<u64>,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            offset,
            expected,
            found,
            really,
        } = self;
        write!(
            f,
            "byte {offset} is {found:#04x} and should be {expected:#04x}; "
        )?;
        match really {
            Some(really) if really > offset => {
                write!(f, "{} bytes were lost there", really - offset)
            }
            Some(really) => write!(f, "bytes from {really} on came again there"),
            None => write!(f, "what follows it belongs nowhere near"),
        }
    }
}

impl std::error::Error for Mismatch {}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(offset: u64, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        Pattern::new(7).fill(offset, &mut bytes);
        bytes
    }

    #[test]
    fn any_cut_gives_the_same_bytes() {
        let whole = bytes(0, 1000);
        for from in [0, 1, 7, 8, 9, 63, 500] {
            for count in [0, 1, 7, 8, 9, 100, 400] {
                assert_eq!(
                    bytes(from as u64, count),
                    whole[from..from + count],
                    "{from} {count}"
                );
            }
        }
        assert_eq!(Pattern::new(7).check(3, &whole[3..]), Ok(()));
        assert!(Pattern::new(8).check(3, &whole[3..]).is_err());
    }

    #[test]
    fn a_lost_byte_is_located() {
        let mut stream = bytes(0, 10_000);
        stream.remove(5000);
        let mismatch = Pattern::new(7).check(0, &stream).unwrap_err();
        assert_eq!((mismatch.offset, mismatch.really), (5000, Some(5001)));
        assert!(
            mismatch.to_string().ends_with("1 bytes were lost there"),
            "{mismatch}"
        );
    }

    #[test]
    fn a_doubled_run_is_located() {
        let mut stream = bytes(0, 10_000);
        stream.splice(6000..6000, bytes(5900, 100));
        let mismatch = Pattern::new(7).check(0, &stream).unwrap_err();
        assert_eq!((mismatch.offset, mismatch.really), (6000, Some(5900)));
    }

    #[test]
    fn a_swapped_and_a_foreign_byte_are_found() {
        let mut stream = bytes(0, 10_000);
        stream.swap(4095, 4096);
        assert_eq!(Pattern::new(7).check(0, &stream).unwrap_err().offset, 4095);
        let mut stream = bytes(0, 100);
        stream[99] ^= 1;
        let mismatch = Pattern::new(7).check(0, &stream).unwrap_err();
        assert_eq!((mismatch.offset, mismatch.really), (99, None));
    }
}
