//! The PROXY header, read by the words of its specification: every pair of addresses arrives as what it is.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use ringside::flow::proxy_protocol::header;
use ringside_tests::fuzz::Target;

const TARGET: Target = Target {
    name: "proxy-header",
    words: &["\0\0\0\0\0\0\0\0\0\0\u{ff}\u{ff}", "\u{7f}\0\0\u{1}"],
};

const SIGNATURE: [u8; 12] = [
    0x0D, 0x0A, 0x0D, 0x0A, 0x00, 0x0D, 0x0A, 0x51, 0x55, 0x49, 0x54, 0x0A,
];

/// What a receiver understands: none for a connection without a client.
fn read(bytes: &[u8]) -> Option<(SocketAddr, SocketAddr)> {
    let (head, body) = bytes.split_at(16);
    assert_eq!(head[..12], SIGNATURE);
    let length = usize::from(u16::from_be_bytes([head[14], head[15]]));
    assert_eq!(length, body.len(), "nothing but the header");
    let port = |at: usize| u16::from_be_bytes([body[at], body[at + 1]]);
    match (head[12], head[13], length) {
        (0x20, 0x00, 0) => None,
        (0x21, 0x11, 12) => {
            let ip = |at: usize| IpAddr::from(<[u8; 4]>::try_from(&body[at..at + 4]).unwrap());
            Some((
                SocketAddr::new(ip(0), port(8)),
                SocketAddr::new(ip(4), port(10)),
            ))
        }
        (0x21, 0x21, 36) => {
            let ip = |at: usize| IpAddr::from(<[u8; 16]>::try_from(&body[at..at + 16]).unwrap());
            Some((
                SocketAddr::new(ip(0), port(32)),
                SocketAddr::new(ip(16), port(34)),
            ))
        }
        other => panic!("no header of version 2 over TCP: {other:?}"),
    }
}

/// An address of any kind, made of up to 28 bytes.
fn address(bytes: &[u8]) -> SocketAddr {
    let byte = |at: usize| bytes.get(at).copied().unwrap_or(0);
    let port = u16::from_be_bytes([byte(1), byte(2)]);
    let four: [u8; 4] = std::array::from_fn(|at| byte(3 + at));
    let sixteen: [u8; 16] = std::array::from_fn(|at| byte(3 + at));
    match byte(0) % 3 {
        0 => (Ipv4Addr::from(four), port).into(),
        1 => (Ipv4Addr::from(four).to_ipv6_mapped(), port).into(),
        _ => SocketAddrV6::new(
            Ipv6Addr::from(sixteen),
            port,
            byte(19).into(),
            byte(20).into(),
        )
        .into(),
    }
}

fn check(input: &[u8]) {
    let (one, two) = input.split_at(input.len() / 2);
    assert_eq!(read(&header(None)), None);
    let (client, local) = (address(one), address(two));
    let told = read(&header(Some((client, local)))).expect("the client is told");
    let same = |told: SocketAddr, meant: SocketAddr| {
        told.ip().to_canonical() == meant.ip().to_canonical() && told.port() == meant.port()
    };
    assert!(
        same(told.0, client) && same(told.1, local),
        "{client} to {local} is told as {told:?}"
    );
    // Of one family, and of IPv4 wherever both are.
    let is_v4 = |address: SocketAddr| address.ip().to_canonical().is_ipv4();
    assert_eq!(told.0.is_ipv4(), is_v4(client) && is_v4(local));
}

#[test]
fn proxy_header() {
    TARGET.fuzz(check);
}
