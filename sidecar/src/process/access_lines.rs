//! The thread that writes the access log.
//!
//! Workers hand it lines and never wait for it; a slow log costs lines, which are counted, and never traffic.

use std::sync::mpsc::Receiver;
use std::thread::JoinHandle;
use std::time::{Instant, SystemTime};

use jiff::Timestamp;
use socket2::SockAddr;

use crate::time::Time;
use crate::worker::access_log::Line;

/// Writes lines until the last worker is gone. `epoch` is when the workers' time began.
///
/// # Errors
/// The thread cannot be started.
pub fn start(lines: Receiver<Line>, epoch: Instant) -> std::io::Result<JoinHandle<()>> {
    let thread = std::thread::Builder::new().name("access-log".to_owned());
    thread.spawn(move || {
        for line in lines {
            let now = Time::ZERO.saturating_add(epoch.elapsed());
            write(&line, now, SystemTime::now());
        }
    })
}

/// Writes a line, told what time it is by the workers' clock and by everybody's.
fn write(line: &Line, now: Time, wall: SystemTime) {
    // As the wall's clock is now: it may have been put right since the connection was opened.
    let at = |time: Time| format!("{:.3}", stamp(wall - now.saturating_since(time)));
    let shown = |address: Option<String>| address.unwrap_or_else(|| "-".to_owned());
    let upstream = line.upstream.as_ref();
    tracing::info!(
        target: "access",
        relay = line.relay.name,
        client = shown(line.client.map(|client| client.to_string())),
        upstream = shown(upstream.map(|(addresses, index)| name_of(&addresses[*index]))),
        reason = line.reason.label(),
        opened = at(line.opened),
        closed = at(line.closed),
        open_ms = line.closed.saturating_since(line.opened).as_millis() as u64,
        connect_us = line.connect.map(|connect| connect.as_micros() as u64),
        from_client_bytes = line.from_client_bytes,
        from_upstream_bytes = line.from_upstream_bytes,
        left_out = Some(line.left_out).filter(|left_out| *left_out > 0),
        "closed"
    );
}

fn stamp(time: SystemTime) -> Timestamp {
    Timestamp::try_from(time).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// As a target is written: `IP:port`, or `unix:` and the path.
fn name_of(address: &SockAddr) -> String {
    match (address.as_socket(), address.as_pathname()) {
        (Some(address), _) => address.to_string(),
        (None, Some(path)) => format!("unix:{}", path.display()),
        (None, None) => "-".to_owned(),
    }
}
