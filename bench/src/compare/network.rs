//! The network that the comparison runs in: a namespace of its own, with a known congestion control.
//!
//! Owns nothing outside that namespace; must never change the machine's own settings.

use std::fs;

use anyhow::Context;

use crate::system;

const CONGESTION_CONTROL: &str = "/proc/sys/net/ipv4/tcp_congestion_control";
/// Ports for outgoing connections, so wide that churn does not run out of them and clear of the fixed ports below.
const OUTGOING_PORTS: &str = "10000 65000";
/// The first of the fixed ports. Each start of a relay takes the next two: the port of an io_uring process that has
/// been killed is busy for some milliseconds more.
const FIRST_FIXED_PORT: u16 = 2000;
const FIXED_PORTS: u16 = 7000;

/// A network of our own.
#[derive(Debug)]
pub(crate) struct OwnNetwork {
    next: u16,
}

impl OwnNetwork {
    /// Enters a new network namespace with loopback up and `reno`. Must come before any thread is started.
    pub(crate) fn enter() -> anyhow::Result<Self> {
        system::enter_own_network().context(
            "cannot enter a network namespace of its own: run as root, or allow user namespaces \
             (sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone)",
        )?;
        system::bring_up_loopback()
            .context("cannot bring up loopback in the new network namespace")?;
        // BBR, the default of some machines, paces on loopback too: it makes bulk two to three times as dear and
        // flatters whoever moves it in large pieces. Reno is the one that every new namespace has.
        fs::write(CONGESTION_CONTROL, "reno")
            .context("cannot choose reno as the congestion control")?;
        fs::write("/proc/sys/net/ipv4/ip_local_port_range", OUTGOING_PORTS)
            .context("cannot widen the range of outgoing ports")?;
        Ok(Self { next: 0 })
    }

    /// A port that nothing has used for a while.
    pub(crate) fn port(&mut self) -> u16 {
        let port = FIRST_FIXED_PORT + self.next;
        self.next = (self.next + 1) % FIXED_PORTS;
        port
    }

    /// The congestion control in use, as the kernel says it.
    pub(crate) fn congestion_control() -> String {
        fs::read_to_string(CONGESTION_CONTROL)
            .unwrap_or_default()
            .trim()
            .to_owned()
    }
}
