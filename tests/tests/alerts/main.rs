//! What is said to whoever keeps a cluster: the alert rules and their runbooks, judged by promtool; the sidecar's metrics, too; and one
//! alert from its first pushback to its end, by a real Prometheus that scrapes a real sidecar.

mod firing;
mod metrics;
mod rules;
mod runbooks;
