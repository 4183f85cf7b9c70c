//! Limits of the process and the machine that a relay meets under load, beside what its default settings ask for.

use ringside_api::Settings;

use super::{Finding, Machine};

/// Ring memory of one worker, roughly, in bytes.
const RING_BYTES: u64 = 512 << 10;

/// Fewer ports than this to one target are soon used up by short connections, which hold one for a minute each.
const PORTS_FEW: u64 = 16_384;

/// Pipes for streams are asked to hold so much, in pages of 4 KiB.
const PIPE_PAGES: u64 = 256;

pub(super) fn descriptors(machine: &Machine) -> Finding {
    const SUBJECT: &str = "descriptors";
    let settings = Settings::default();
    let Some((soft, hard)) = machine.limits("Max open files") else {
        return unknown(SUBJECT);
    };
    let wanted = 2 * u64::from(settings.accept.max_connections)
        + 2 * u64::from(settings.buffers.pipes)
        + u64::from(settings.accept.descriptor_reserve);
    let connections = hard.saturating_sub(u64::from(settings.accept.descriptor_reserve)) / 2;
    if hard >= wanted {
        return Finding::ok(
            SUBJECT,
            format!("{soft}, which the relay raises to {hard} by itself"),
        );
    }
    Finding::note(
        SUBJECT,
        format!(
            "at most {hard}: enough for about {connections} connections, while accept.maxConnections is {} by default",
            settings.accept.max_connections
        ),
        format!("raise the hard limit (ulimit -Hn) to {wanted}, or lower accept.maxConnections"),
    )
}

pub(super) fn locked_memory(machine: &Machine) -> Finding {
    const SUBJECT: &str = "locked memory";
    match machine.limits("Max locked memory") {
        None => unknown(SUBJECT),
        Some((u64::MAX, _)) => Finding::ok(SUBJECT, "unlimited"),
        Some((soft, _)) => {
            let rings = soft / RING_BYTES;
            let found = format!(
                "{} KiB, enough for about {rings} rings of all processes of this user (since 6.14 rings count)",
                soft >> 10
            );
            if rings >= 4 {
                return Finding::ok(SUBJECT, found);
            }
            Finding::note(
                SUBJECT,
                found,
                "raise the limit (ulimit -l), or give each pod a user of its own; without it the relay makes smaller rings, then falls back to epoll",
            )
        }
    }
}

pub(super) fn backlog(machine: &Machine) -> Finding {
    const SUBJECT: &str = "sysctl net.core.somaxconn";
    let wanted = u64::from(Settings::default().accept.backlog);
    match machine.number("proc/sys/net/core/somaxconn") {
        None => unknown(SUBJECT),
        Some(most) if most >= wanted => Finding::ok(SUBJECT, most.to_string()),
        Some(most) => Finding::note(
            SUBJECT,
            format!("{most} lowers accept.backlog, which is {wanted} by default"),
            format!("set net.core.somaxconn to {wanted} for this network namespace"),
        ),
    }
}

pub(super) fn ports(machine: &Machine) -> Finding {
    const SUBJECT: &str = "ports to targets";
    let range = machine.text("proc/sys/net/ipv4/ip_local_port_range");
    let mut bounds = range
        .iter()
        .flat_map(|text| text.split_whitespace())
        .map(str::parse::<u64>);
    let (Some(Ok(first)), Some(Ok(last))) = (bounds.next(), bounds.next()) else {
        return unknown(SUBJECT);
    };
    let count = (last + 1).saturating_sub(first);
    let found = format!("{count} ({first} to {last}), connections to one target at a time");
    if count >= PORTS_FEW {
        return Finding::ok(SUBJECT, found);
    }
    Finding::note(
        SUBJECT,
        found,
        "widen net.ipv4.ip_local_port_range, or relay to a Unix socket, which needs none",
    )
}

pub(super) fn pipes(machine: &Machine) -> Finding {
    const SUBJECT: &str = "sysctl fs.pipe-user-pages-soft";
    match machine.number("proc/sys/fs/pipe-user-pages-soft") {
        None => unknown(SUBJECT),
        Some(0) => Finding::ok(SUBJECT, "0: no limit"),
        Some(pages) => {
            let pipes = pages / PIPE_PAGES;
            let found = format!(
                "{pages} pages: about {pipes} pipes of 1 MiB for all streams of this user; those beyond are smaller"
            );
            if pipes >= 32 {
                return Finding::ok(SUBJECT, found);
            }
            Finding::note(
                SUBJECT,
                found,
                "raise fs.pipe-user-pages-soft on the node, or set buffers.pipes lower",
            )
        }
    }
}

pub(super) fn congestion_control(machine: &Machine) -> Finding {
    const SUBJECT: &str = "congestion control";
    match machine.text("proc/sys/net/ipv4/tcp_congestion_control") {
        None => unknown(SUBJECT),
        Some(name) if name.starts_with("bbr") => Finding::note(
            SUBJECT,
            format!(
                "{name} paces also on loopback, which makes bulk between relay and application cost two to three times the CPU"
            ),
            "set net.ipv4.tcp_congestion_control to cubic or reno for the pod's network namespace, or relay to a Unix socket",
        ),
        Some(name) => Finding::ok(SUBJECT, name),
    }
}

fn unknown(subject: &'static str) -> Finding {
    Finding::ok(subject, "cannot be read here")
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::super::machine::tests::of;
    use super::*;

    #[test]
    fn few_descriptors_are_told_in_connections() {
        let few = "Max open files            64                   64                   files\n";
        let (_folder, machine) = of(&[("proc/self/limits", few)]);
        let found = descriptors(&machine);
        assert_eq!(found.level, Level::Note);
        assert!(
            found.found.contains("about 16 connections"),
            "{}",
            found.found
        );
    }

    #[test]
    fn what_is_small_is_noted_and_what_is_not_there_is_not() {
        let (_folder, small) = of(&[
            ("proc/sys/net/core/somaxconn", "128\n"),
            ("proc/sys/net/ipv4/ip_local_port_range", "60000\t60999\n"),
            ("proc/sys/fs/pipe-user-pages-soft", "256\n"),
            ("proc/sys/net/ipv4/tcp_congestion_control", "bbr\n"),
            (
                "proc/self/limits",
                "Max locked memory         65536                65536                bytes\n",
            ),
        ]);
        let (_other, nothing) = of(&[]);
        for look in [backlog, ports, pipes, congestion_control, locked_memory] {
            assert_eq!(look(&small).level, Level::Note, "{:?}", look(&small));
            assert!(look(&small).remedy.is_some());
            assert_eq!(look(&nothing).level, Level::Ok);
        }
        let (_backwards, machine) = of(&[("proc/sys/net/ipv4/ip_local_port_range", "9 1")]);
        assert_eq!(ports(&machine).level, Level::Note);
    }
}
