//! What the demo sees of its sidecar: the same metrics and probe that Prometheus and the kubelet would read.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;

use crate::admin::ask;

/// How long the admin port may take to answer. It has a thread of its own, whatever the workers go through.
const PATIENCE: Duration = Duration::from_secs(5);

/// One look at a sidecar; counters are totals since its start.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Measurement {
    pub(super) submissions: u64,
    pub(super) refused: u64,
    pub(super) backoffs: u64,
    pub(super) batch_limit: u64,
    pub(super) accept_paused: bool,
    pub(super) connections: u64,
    pub(super) ready: bool,
    pub(super) reason: String,
}

impl Measurement {
    pub(super) fn take(admin: SocketAddr) -> anyhow::Result<Self> {
        let (_, metrics) = get(admin, "/metrics")?;
        let (status, reason) = get(admin, "/readyz")?;
        let mut measured = Measurement {
            ready: status == 200,
            reason: reason.trim().to_owned(),
            ..Self::of(&metrics)
        };
        if measured.ready {
            measured.reason.clear();
        }
        Ok(measured)
    }

    /// Reads Prometheus' text format, as far as this is about the numbers above.
    fn of(metrics: &str) -> Self {
        let mut measured = Measurement::default();
        for line in metrics.lines().filter(|line| !line.starts_with('#')) {
            let Some((series, value)) = line.rsplit_once(' ') else {
                continue;
            };
            let value = value.parse::<f64>().unwrap_or(0.0) as u64;
            match series.split('{').next().unwrap_or(series) {
                "ringside_submissions_total" if series.contains("\"nothing\"") => {}
                "ringside_submissions_total" => {
                    measured.submissions += value;
                    if series.contains("\"eagain\"") {
                        measured.refused += value;
                    }
                }
                "ringside_submission_backoff_seconds_count" => measured.backoffs += value,
                "ringside_submission_batch_limit" => {
                    measured.batch_limit = measured.batch_limit.max(value);
                }
                "ringside_accept_paused" => measured.accept_paused |= value > 0,
                "ringside_connections_open" => measured.connections += value,
                _ => {}
            }
        }
        measured
    }
}

/// The sidecar's status document.
pub(super) fn status(admin: SocketAddr) -> anyhow::Result<serde_json::Value> {
    serde_json::from_str(&get(admin, "/statusz")?.1).context("the sidecar's status is no JSON")
}

/// One request to the admin port: its status and its body.
fn get(admin: SocketAddr, path: &str) -> anyhow::Result<(u16, String)> {
    ask::get(&admin.to_string(), path, PATIENCE)
        .with_context(|| format!("the sidecar's admin port {admin} did not answer GET {path}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_in_the_text_format() {
        let text = "# HELP ringside_submissions_total Submissions.\n\
                    ringside_submissions_total{outcome=\"all\",worker=\"0\"} 90\n\
                    ringside_submissions_total{outcome=\"eagain\",worker=\"0\"} 10\n\
                    ringside_submissions_total{outcome=\"nothing\",worker=\"0\"} 5\n\
                    ringside_submission_backoff_seconds_count{worker=\"0\"} 10\n\
                    ringside_submission_batch_limit{worker=\"0\"} 8\n\
                    ringside_accept_paused{worker=\"0\"} 1\n";
        let measured = Measurement::of(text);
        assert_eq!(
            (measured.submissions, measured.refused, measured.backoffs),
            (100, 10, 10)
        );
        assert_eq!((measured.batch_limit, measured.accept_paused), (8, true));
    }
}
