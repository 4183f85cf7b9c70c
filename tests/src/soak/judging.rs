//! Whether a relay holds as much at the end of its life as after its warm-up. Pure: readings in, sentences out.
//!
//! Readings are taken at calm points: no connection open, the first settings in effect, no fault. Each process is
//! compared with itself alone.

use std::time::Duration;

/// The fewest calm points that belong to a warm-up, of which there are more in a long life: a third of all. Meanwhile the pool of
/// buffers grows to what the traffic needs at its peaks, and faults make code run for the first time. With two, a first storm
/// after them looked like growth. A life that is no longer than its warm-up is not compared.
pub const WARM_UP: usize = 5;

/// How much more may be held at the end, in percent.
pub const TOLERANCE_PERCENT: u64 = 5;

/// Less than this is no growth after a proper warm-up, in bytes: a few pages of an allocator's.
pub const FLOOR_BYTES: u64 = 512 << 10;

/// The limit of a worker's pool of buffers in a soak, in bytes.
pub const POOL_BYTES: u64 = 2 << 20;

/// Less than this is none either, in descriptors: the reading itself takes one.
pub const FLOOR_DESCRIPTORS: u64 = 2;

/// What a relay held at a calm point.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Reading {
    /// Which process, from 1 on.
    pub life: u32,
    /// When, since the soak began.
    #[serde(skip)]
    pub at: Duration,
    /// Its resident memory, in bytes.
    pub resident_bytes: u64,
    /// What of that its pools of buffers have allocated, at most; for the reader alone.
    pub pool_bytes: u64,
    /// Its open descriptors.
    pub descriptors: u64,
}

/// One process's comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Comparison {
    /// The most that it held at a calm point of its warm-up, at the end of that.
    pub begin: Reading,
    /// At its last calm point.
    pub end: Reading,
}

impl Comparison {
    /// What is wrong with it.
    fn problems(&self, floor_bytes: u64) -> Vec<String> {
        let Self { begin, end } = self;
        let mut problems = Vec::new();
        let mut check = |what: &str, begin: u64, end: u64, floor: u64| {
            let most = begin + (begin * TOLERANCE_PERCENT / 100).max(floor);
            if end > most {
                problems.push(format!(
                    "process {} held {begin} {what} after warm-up and {end} at its last calm point; at most {most} are allowed",
                    self.begin.life
                ));
            }
        };
        check(
            "bytes of memory",
            begin.resident_bytes,
            end.resident_bytes,
            floor_bytes,
        );
        check(
            "descriptors",
            begin.descriptors,
            end.descriptors,
            FLOOR_DESCRIPTORS,
        );
        problems
    }
}

/// Compares each process with itself; those with too few readings are left out. Less than `floor_bytes` is no growth of
/// memory, and a warm-up has at least `least` calm points. Returns the comparisons, and what is wrong.
pub fn compare(
    readings: &[Reading],
    least: usize,
    floor_bytes: u64,
) -> (Vec<Comparison>, Vec<String>) {
    let comparisons: Vec<Comparison> = readings
        .chunk_by(|a, b| a.life == b.life)
        .filter(|life| life.len() > least)
        .map(|life| {
            let warm_up = &life[..least.max(life.len() / 3)];
            let most = |of: fn(&Reading) -> u64| warm_up.iter().map(of).max().unwrap_or(0);
            Comparison {
                begin: Reading {
                    resident_bytes: most(|reading| reading.resident_bytes),
                    descriptors: most(|reading| reading.descriptors),
                    ..warm_up[warm_up.len() - 1]
                },
                end: life[life.len() - 1],
            }
        })
        .collect();
    let mut problems: Vec<String> = comparisons
        .iter()
        .flat_map(|comparison| comparison.problems(floor_bytes))
        .collect();
    if comparisons.is_empty() {
        problems.push(format!(
            "no process lived for more than {least} calm points, so that nothing was compared: let the soak run longer"
        ));
    }
    (comparisons, problems)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    /// A life whose calm points held so many MiB and descriptors.
    fn life(life: u32, held: &[(u64, u64)]) -> Vec<Reading> {
        let readings = held.iter().zip(0..);
        readings
            .map(|((mib, descriptors), at)| Reading {
                life,
                at: Duration::from_secs(at),
                resident_bytes: mib * MIB,
                pool_bytes: 0,
                descriptors: *descriptors,
            })
            .collect()
    }

    fn judged(readings: &[Reading]) -> (Vec<Comparison>, Vec<String>) {
        compare(readings, 2, FLOOR_BYTES)
    }

    #[test]
    fn a_steady_life_is_well() {
        let (compared, problems) = judged(&life(1, &[(10, 20), (40, 40), (41, 41), (42, 42)]));
        assert_eq!((compared.len(), problems), (1, Vec::new()));
        // Growth during warm-up is none, and less is better.
        let (_, problems) = judged(&life(1, &[(1, 1), (40, 40), (80, 80), (30, 30)]));
        assert_eq!(problems, Vec::<String>::new());
    }

    #[test]
    fn a_leak_of_memory_is_found() {
        let (_, problems) = judged(&life(1, &[(40, 40), (40, 40), (41, 40), (43, 40)]));
        assert!(problems[0].contains("bytes of memory"), "{problems:?}");
        assert_eq!(problems.len(), 1);
    }

    #[test]
    fn a_leak_of_descriptors_is_found() {
        let (_, problems) = judged(&life(1, &[(40, 20), (40, 20), (40, 23)]));
        assert!(problems[0].contains("descriptors"), "{problems:?}");
        let (_, problems) = judged(&life(1, &[(40, 20), (40, 20), (40, 22)]));
        assert_eq!(problems, Vec::<String>::new());
    }

    #[test]
    fn a_slow_leak_is_found_in_a_long_life() {
        // A quarter of a MiB and a descriptor for each fifth calm point.
        let leaking: Vec<Reading> = (0..60)
            .map(|number| Reading {
                life: 1,
                at: Duration::from_secs(20 * number),
                resident_bytes: 20 * MIB + number * MIB / 20,
                pool_bytes: 0,
                descriptors: 40 + number / 10,
            })
            .collect();
        let (compared, problems) = judged(&leaking);
        assert_eq!(compared[0].begin.at, Duration::from_secs(20 * 19));
        assert_eq!(problems.len(), 2, "{problems:?}");
    }

    #[test]
    fn each_process_is_compared_with_itself() {
        let mut readings = life(1, &[(40, 40), (40, 40), (40, 40)]);
        readings.extend(life(2, &[(60, 60), (60, 60), (60, 60)]));
        assert_eq!(judged(&readings).1, Vec::<String>::new());
        readings.extend(life(3, &[(10, 10), (10, 10), (20, 20)]));
        assert_eq!(judged(&readings).1.len(), 2);
    }

    #[test]
    fn nothing_compared_is_not_well() {
        for readings in [Vec::new(), life(1, &[(40, 40), (40, 40)])] {
            let (compared, problems) = judged(&readings);
            assert!(compared.is_empty());
            assert!(problems[0].contains("nothing was compared"), "{problems:?}");
        }
    }
}
