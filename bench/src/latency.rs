//! A histogram of latencies: log-linear, one part in 64 exact, constant memory.
//!
//! Owns counts only; must never read a clock.

const SUB_BITS: u32 = 6;
const SUB: u64 = 1 << SUB_BITS;
/// Enough groups for every value of 64 bits.
const BUCKETS: usize = ((64 - SUB_BITS + 1) as usize) << SUB_BITS;

/// Latencies in nanoseconds, counted in buckets no wider than 1/64 of their value.
#[derive(Debug, Clone)]
pub(crate) struct Histogram {
    counts: Vec<u64>,
    total: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            counts: vec![0; BUCKETS],
            total: 0,
        }
    }
}

impl Histogram {
    /// Counts one latency.
    pub(crate) fn record(&mut self, nanos: u64) {
        self.counts[bucket(nanos)] += 1;
        self.total += 1;
    }

    /// The latency in nanoseconds that `per_mille` of 1000 values do not exceed; 0 when nothing was recorded.
    pub(crate) fn quantile(&self, per_mille: u64) -> u64 {
        let rank = (self.total * per_mille).div_ceil(1000).max(1);
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return upper_bound(index);
            }
        }
        0
    }
}

fn bucket(value: u64) -> usize {
    if value < SUB {
        return value as usize;
    }
    let shift = value.ilog2() - SUB_BITS;
    (((shift as u64 + 1) << SUB_BITS) + ((value >> shift) - SUB)) as usize
}

fn upper_bound(bucket: usize) -> u64 {
    let (group, rest) = (bucket as u64 >> SUB_BITS, bucket as u64 & (SUB - 1));
    if group == 0 {
        return rest;
    }
    let width = 1_u64 << (group - 1);
    ((SUB + rest) * width) + (width - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_lands_in_a_bucket_that_ends_at_most_a_64th_above_it() {
        for value in (0..70)
            .chain((6..63).flat_map(|bit| [(1_u64 << bit) - 1, 1 << bit, (1 << bit) + 1]))
            .chain([u64::MAX])
        {
            let bound = upper_bound(bucket(value));
            assert!(
                bound >= value && bound - value <= value / 64,
                "{value} -> {bound}"
            );
        }
    }

    #[test]
    fn quantiles_are_those_of_the_sorted_values() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.quantile(500), 0);
        for value in 1..=50 {
            histogram.record(value);
        }
        assert_eq!(histogram.quantile(500), 25);
        assert_eq!(histogram.quantile(1000), 50);
    }
}
