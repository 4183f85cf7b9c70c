//! The thread that writes the access log.
//!
//! Workers hand it lines and never wait for it; a slow log costs lines, which are counted, and never traffic.

use std::sync::mpsc::Receiver;
use std::thread::JoinHandle;

use crate::worker::access_log::Line;

/// Writes lines until the last worker is gone.
///
/// # Errors
/// The thread cannot be started.
pub fn start(lines: Receiver<Line>) -> std::io::Result<JoinHandle<()>> {
    let thread = std::thread::Builder::new().name("access-log".to_owned());
    thread.spawn(move || lines.iter().for_each(|line| write(&line)))
}

fn write(line: &Line) {
    let client = line
        .client
        .map_or_else(|| "-".to_owned(), |client| client.to_string());
    tracing::info!(
        target: "access",
        relay = line.relay.name,
        client,
        reason = line.reason.label(),
        ms = line.lasted.as_millis() as u64,
        from_client_bytes = line.from_client_bytes,
        from_upstream_bytes = line.from_upstream_bytes,
        "closed"
    );
}
