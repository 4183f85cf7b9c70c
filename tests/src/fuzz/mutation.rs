//! New inputs from old ones: bytes, words, numbers and lines changed, moved, repeated and mixed. Pure, given its seed.

use fastrand::Rng;

/// Numbers at the edges of what fits somewhere.
const NUMBERS: [&str; 16] = [
    "0",
    "1",
    "-1",
    "00",
    "+1",
    "63",
    "64",
    "255",
    "65535",
    "65536",
    "4294967295",
    "4294967296",
    "18446744073709551615",
    "18446744073709551616",
    "1e9",
    "0x10",
];

/// The most changes that one input gets.
const CHANGES_MOST: usize = 6;

pub(super) struct Mutator {
    random: Rng,
    words: &'static [&'static str],
    bytes_max: usize,
}

impl Mutator {
    pub(super) fn new(seed: u64, words: &'static [&'static str], bytes_max: usize) -> Self {
        Self {
            random: Rng::with_seed(seed),
            words,
            bytes_max,
        }
    }

    /// A new input; `corpus` is not empty.
    pub(super) fn next(&mut self, corpus: &[Vec<u8>]) -> Vec<u8> {
        let random = &mut self.random;
        // Half of the time one of the newest, which nothing was made of yet.
        let newest = corpus.len().min(8);
        let from = match random.bool() {
            true => corpus.len() - 1 - random.usize(..newest),
            false => random.usize(..corpus.len()),
        };
        let mut input = corpus[from].clone();
        for _ in 0..random.usize(1..=CHANGES_MOST) {
            let other = &corpus[self.random.usize(..corpus.len())];
            self.change(&mut input, other);
        }
        input.truncate(self.bytes_max);
        input
    }

    fn change(&mut self, input: &mut Vec<u8>, other: &[u8]) {
        let random = &mut self.random;
        let at = random.usize(..=input.len());
        let range = range(random, input.len());
        match random.u8(..12) {
            0 if !input.is_empty() => {
                let last = input.len() - 1;
                input[at.min(last)] ^= 1 << random.u8(..8);
            }
            1 => input.insert(at, random.u8(..)),
            2 => input.insert(at, b" \n\t:,-[]{}'\"#&*!|>%@`=\\\0"[random.usize(..24)]),
            3 => drop(input.drain(range)),
            4 => {
                let piece = input[range].to_vec();
                insert(input, at, &piece);
            }
            5 => {
                let piece = input[range].to_vec();
                let times = 1 << random.u8(..6);
                insert(input, at, &piece.repeat(times));
            }
            6 | 7 if !self.words.is_empty() => {
                let word = self.words[random.usize(..self.words.len())];
                insert(input, at, word.as_bytes());
            }
            8 => {
                let number = NUMBERS[random.usize(..NUMBERS.len())];
                let digits = digits(input, at);
                input.splice(digits, number.bytes());
            }
            9 => {
                let piece = &other[self::range(random, other.len())];
                insert(input, at, piece);
            }
            10 => {
                let rest = &other[random.usize(..=other.len())..];
                input.truncate(at);
                input.extend_from_slice(rest);
            }
            _ => {
                let mut lines: Vec<&[u8]> = input.split_inclusive(|&byte| byte == b'\n').collect();
                if lines.len() > 1 {
                    let (one, two) = (random.usize(..lines.len()), random.usize(..lines.len()));
                    lines.swap(one, two);
                    *input = lines.concat();
                }
            }
        }
    }
}

fn insert(input: &mut Vec<u8>, at: usize, piece: &[u8]) {
    drop(input.splice(at..at, piece.iter().copied()));
}

/// A short range, most of the time.
fn range(random: &mut Rng, len: usize) -> std::ops::Range<usize> {
    let start = random.usize(..=len);
    let most = 1 << random.u8(..10);
    let end = len.min(start + random.usize(..=most));
    start..end
}

/// The first number from `at` on; where there is none, nothing, at `at`.
fn digits(input: &[u8], at: usize) -> std::ops::Range<usize> {
    let found = input[at..].iter().position(u8::is_ascii_digit);
    let Some(start) = found.map(|offset| at + offset) else {
        return at..at;
    };
    let end = input[start..]
        .iter()
        .position(|byte| !byte.is_ascii_digit());
    start..end.map_or(input.len(), |offset| start + offset)
}
