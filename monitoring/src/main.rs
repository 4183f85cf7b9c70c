//! Prints Grafana's dashboard, for `make manifests`.

use std::io::Write;

fn main() -> std::io::Result<()> {
    std::io::stdout().write_all(ringside_monitoring::dashboard::text().as_bytes())
}
