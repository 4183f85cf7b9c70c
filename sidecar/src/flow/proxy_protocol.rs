//! The PROXY protocol, version 2: tells a target who its client is, before the first byte of the client's.
//! Source: "The PROXY protocol", section 2.2, by Willy Tarreau. Pure.

use std::net::{IpAddr, SocketAddr};

const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Version 2, command PROXY; command LOCAL is for connections without a client.
const PROXY: u8 = 0x21;
const LOCAL: u8 = 0x20;
const TCP_OVER_IPV4: u8 = 0x11;
const TCP_OVER_IPV6: u8 = 0x21;

/// The header for a connection from `client` that came to `local`; without them, one that says so.
pub fn header(addresses: Option<(SocketAddr, SocketAddr)>) -> Vec<u8> {
    let mut header = SIGNATURE.to_vec();
    let Some((client, local)) = addresses else {
        header.extend([LOCAL, 0, 0, 0]);
        return header;
    };
    // A dual-stack listener sees IPv4 clients as mapped addresses; the target is told what they are.
    let mut body = Vec::with_capacity(36);
    let family = match (client.ip().to_canonical(), local.ip().to_canonical()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            body.extend(from.octets());
            body.extend(to.octets());
            TCP_OVER_IPV4
        }
        _ => {
            body.extend(as_v6(client.ip()));
            body.extend(as_v6(local.ip()));
            TCP_OVER_IPV6
        }
    };
    body.extend(client.port().to_be_bytes());
    body.extend(local.port().to_be_bytes());
    header.extend([PROXY, family]);
    header.extend((body.len() as u16).to_be_bytes());
    header.extend(body);
    header
}

fn as_v6(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv4_client_in_the_specifications_bytes() {
        let header = header(Some((
            "192.0.2.1:4660".parse().unwrap(),
            "198.51.100.2:80".parse().unwrap(),
        )));
        assert_eq!(header[..12], SIGNATURE);
        assert_eq!(header[12..16], [0x21, 0x11, 0, 12]);
        assert_eq!(
            header[16..],
            [192, 0, 2, 1, 198, 51, 100, 2, 0x12, 0x34, 0, 80]
        );
    }

    #[test]
    fn a_mapped_client_is_told_as_ipv4_and_ipv6_as_itself() {
        let mapped = header(Some((
            "[::ffff:192.0.2.1]:1".parse().unwrap(),
            "[::ffff:10.0.0.1]:2".parse().unwrap(),
        )));
        assert_eq!(mapped[13], TCP_OVER_IPV4);
        let six = header(Some((
            "[2001:db8::1]:1".parse().unwrap(),
            "[2001:db8::2]:2".parse().unwrap(),
        )));
        assert_eq!((six[13], six.len()), (TCP_OVER_IPV6, 16 + 36));
        assert_eq!(header(None).len(), 16);
    }
}
