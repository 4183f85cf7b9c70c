//! What is compared: each workload with its size, its figure and the figure's unit.
//!
//! Owns the names on the command line and the order in the table; running is for `workload`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use anyhow::bail;

use crate::bulk::Way;
use crate::report::Report;
use crate::workload::Aim;

const MESSAGE_BYTES: usize = 64;
const IDLE_FEW: usize = 1000;
/// Below 95 % of Ringside's default limit of 4096 connections, at which its gate pauses.
const IDLE_MANY: usize = 3500;

/// A workload of the comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Work {
    /// Ping-pong of 64 bytes on so many connections: CPU per request.
    Ping(usize),
    /// Upload over so many connections: CPU per gigabyte.
    Bulk(usize),
    /// Download over so many connections: CPU per gigabyte.
    BulkReverse(usize),
    /// Short connections, so many at a time: CPU per connection.
    Churn(usize),
    /// One ping beside 8 streams: its latency.
    Mixed,
    /// Memory per idle connection.
    Idle,
    /// Resident memory of a relay that has done nothing yet.
    Rss,
    /// Time from start to the first byte through.
    Ready,
}

/// How much of each is done in a run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Amounts {
    /// Measured time of the workloads of time.
    pub duration: Duration,
    /// Bytes of the workloads of bulk.
    pub bulk_bytes: u64,
}

/// The comparison's default.
pub(crate) const ALL: &str =
    "ping1,ping64,ping1000,bulk1,bulk8,bulk64,churn32,mixed,idle,rss,ready";

impl FromStr for Work {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(text.len());
        let (name, number) = text.split_at(digits);
        Ok(match (name, number.parse::<usize>()) {
            ("ping", Ok(n @ 1..=8000)) => Self::Ping(n),
            ("bulk", Ok(n @ 1..=8000)) => Self::Bulk(n),
            ("bulk-reverse", Ok(n @ 1..=8000)) => Self::BulkReverse(n),
            ("churn", Ok(n @ 1..=8000)) => Self::Churn(n),
            ("churn", Err(_)) if number.is_empty() => Self::Churn(32),
            ("mixed", Err(_)) if number.is_empty() => Self::Mixed,
            ("idle", Err(_)) if number.is_empty() => Self::Idle,
            ("rss", Err(_)) if number.is_empty() => Self::Rss,
            ("ready", Err(_)) if number.is_empty() => Self::Ready,
            _ => bail!(
                "`{text}` is no workload: give pingN, bulkN, bulk-reverseN, churnN (N connections, 1 to 8000), mixed, \
                 idle, rss or ready"
            ),
        })
    }
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ping(n) => write!(
                f,
                "ping-pong {MESSAGE_BYTES} B, {}: us/request",
                connections(*n)
            ),
            Self::Bulk(n) => write!(f, "bulk, {}: s/GB", connections(*n)),
            Self::BulkReverse(n) => write!(f, "bulk to the client, {}: s/GB", connections(*n)),
            Self::Churn(n) => write!(f, "churn, {n} at a time: us/connection"),
            Self::Mixed => write!(f, "a ping beside 8 streams: p50 in us"),
            Self::Idle => write!(f, "idle connection: KiB of user memory"),
            Self::Rss => write!(f, "idle process: MiB resident"),
            Self::Ready => write!(f, "start to first byte through: ms"),
        }
    }
}

fn connections(n: usize) -> String {
    if n == 1 {
        "1 connection".into()
    } else {
        format!("{n} connections")
    }
}

impl Work {
    /// Runs it once. [`Rss`](Self::Rss) and [`Ready`](Self::Ready) have no load: the start says it all.
    pub(crate) fn run(self, aim: &Aim, amounts: Amounts) -> anyhow::Result<Option<Report>> {
        let Amounts {
            duration,
            bulk_bytes,
        } = amounts;
        Ok(Some(match self {
            Self::Ping(n) => aim.ping(n, MESSAGE_BYTES, duration)?,
            Self::Bulk(n) => aim.bulk(n, bulk_bytes, Way::Upload)?,
            Self::BulkReverse(n) => aim.bulk(n, bulk_bytes, Way::Download)?,
            Self::Churn(n) => aim.churn(n, duration, false)?,
            Self::Mixed => aim.mixed(1, MESSAGE_BYTES, duration)?,
            Self::Idle => aim.idle_growth(IDLE_FEW, IDLE_MANY, MESSAGE_BYTES)?,
            Self::Rss | Self::Ready => return Ok(None),
        }))
    }

    /// The figure that is compared, in the unit that the name gives; none where the run has none (no relay, no CPU).
    pub(crate) fn figure(self, report: &Report) -> Option<f64> {
        match self {
            Self::Ping(_) | Self::Churn(_) => report.relay_cpu_us_per_unit,
            Self::Bulk(_) | Self::BulkReverse(_) => report.relay_cpu_us_per_unit.map(|us| us / 1e6),
            Self::Mixed => report.latency.map(|latency| latency.p50_us),
            Self::Idle => report
                .relay_bytes_per_connection
                .map(|bytes| bytes / 1024.0),
            Self::Rss | Self::Ready => None,
        }
    }

    /// True when it says something without a relay.
    pub(crate) fn runs_direct(self) -> bool {
        !matches!(self, Self::Idle | Self::Rss | Self::Ready)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_list_is_understood() {
        let works: Vec<Work> = ALL.split(',').map(|name| name.parse().unwrap()).collect();
        assert_eq!(works.len(), 11);
        assert_eq!(
            "bulk-reverse8".parse::<Work>().unwrap(),
            Work::BulkReverse(8)
        );
    }

    #[test]
    fn an_unknown_workload_is_answered_with_what_there_is() {
        for text in ["pong", "ping", "ping0", "ping9000", "idle5", ""] {
            let error = text.parse::<Work>().unwrap_err().to_string();
            assert!(error.contains("pingN"), "{text}: {error}");
        }
    }
}
