//! A flood of half-open connections: arrivals of which nothing but the first packet ever comes, from addresses that answer
//! nothing. Made of raw packets, which stay on the loopback of the test's own namespace.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ringside_tests::processes::{command, installed};
use ringside_tests::relay::{Kind, Setup};
use ringside_tests::skip::skip;
use socket2::{Domain, Protocol, Socket, Type};

use crate::attackers::{Busy, Passed, application};
use crate::trial::Attack;

ringside_tests::instances! {
    everywhere: [],
    ringside: [half_open_connections],
}

/// Packets sent in one go, between two looks at whether to stop.
const BURST: u32 = 16;

/// The first of a network for documentation, which no machine has an address of.
const NOWHERE: [u8; 4] = [198, 51, 100, 0];

fn half_open_connections(kind: Kind) {
    let test = "half_open_connections";
    if !installed(test, &["ip"]) {
        return;
    }
    // What is sent there comes back to this machine, which does not forward it: it is lost, and nobody answers.
    let routed = command("ip")
        .args(["route", "add", "198.51.100.0/24", "dev", "lo"])
        .status();
    if !routed.is_ok_and(|status| status.success()) {
        return skip(test, "no route can be added in the test's namespace");
    }
    let raw = || {
        Socket::new(
            Domain::IPV4,
            Type::RAW,
            Some(Protocol::from(libc::IPPROTO_RAW)),
        )
    };
    if let Err(error) = raw() {
        return skip(test, &format!("no raw socket: {error}"));
    }
    let (server, _) = application();
    let relay = Setup::new(kind).to(&server).start();
    let SocketAddr::V4(to) = relay.address() else {
        panic!("the relay listens at IPv4");
    };
    let sent = Arc::new(AtomicU64::new(0));
    let attack = Attack {
        kind,
        what: "half-open connections",
        relay: &relay,
        server: &server,
        // Not one of them ever was a connection.
        passed: Passed::default(),
        fair: 0,
    };
    let victims = attack.withstood(|| {
        let sent = Arc::clone(&sent);
        let busy = Busy::start(
            1,
            move |_| (raw().unwrap(), 0),
            move |(socket, number)| {
                for _ in 0..BURST {
                    *number += 1;
                    let packet = syn(*number, *to.ip(), to.port());
                    let to = SocketAddr::from((*to.ip(), 0)).into();
                    // A full queue drops it, as the way here would.
                    if socket.send_to(&packet, &to).is_ok() {
                        sent.fetch_add(1, Ordering::Relaxed);
                    }
                }
            },
        );
        ringside_tests::await_that("half-open connections", || half_open(to.port()) > 20);
        busy
    });
    let sent = sent.load(Ordering::Relaxed);
    assert!(sent > 1000, "a flood of {sent} packets is none");
    let opened = relay.metric("connections_opened_total", &[]);
    assert!(
        opened <= victims as f64,
        "{opened} of {victims} connections"
    );
}

/// Arrivals at `port` of which the rest is waited for, by the kernel's table.
fn half_open(port: u16) -> usize {
    let table = std::fs::read_to_string("/proc/thread-self/net/tcp").unwrap_or_default();
    let end = format!(":{port:04X}");
    let rows = table
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>());
    rows.filter(|words| words.len() > 3 && words[1].ends_with(&end) && words[3] == "03")
        .count()
}

/// The first packet of a connection from somewhere in [`NOWHERE`].
fn syn(number: u32, to: Ipv4Addr, port: u16) -> Vec<u8> {
    let [a, b, c, _] = NOWHERE;
    let from = [a, b, c, 1 + (number % 250) as u8];
    let from_port = 1024 + (number / 250 % 60_000) as u16;
    let mut packet = vec![0_u8; 40];
    packet[0] = 0x45; // Version 4, a header of five words.
    packet[2..4].copy_from_slice(&40_u16.to_be_bytes());
    packet[8] = 64; // Hops.
    packet[9] = libc::IPPROTO_TCP as u8;
    packet[12..16].copy_from_slice(&from);
    packet[16..20].copy_from_slice(&to.octets());
    packet[20..22].copy_from_slice(&from_port.to_be_bytes());
    packet[22..24].copy_from_slice(&port.to_be_bytes());
    packet[24..28].copy_from_slice(&number.wrapping_mul(0x9E37_79B9).to_be_bytes());
    packet[32] = 5 << 4; // A header of five words.
    packet[33] = 0x02; // SYN.
    packet[34..36].copy_from_slice(&u16::MAX.to_be_bytes());
    // The sum also covers the addresses, the protocol and the length.
    let pseudo = [
        &packet[12..20],
        &[0, libc::IPPROTO_TCP as u8, 0, 20],
        &packet[20..40],
    ]
    .concat();
    let checksum = checksum(&pseudo);
    packet[36..38].copy_from_slice(&checksum.to_be_bytes());
    packet
}

/// The Internet's checksum of an even number of bytes.
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes
        .chunks(2)
        .map(|two| u32::from(two[0]) << 8 | u32::from(two[1]));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
