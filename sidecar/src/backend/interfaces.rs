//! The addresses of this machine's interfaces, or of the pod's, which has interfaces of its own.
//! It reads them once when it is asked; it watches nothing.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ptr;

/// The addresses by which others reach this machine, each once: neither loopback nor of a link alone.
///
/// # Errors
/// What getifaddrs(3) says: no descriptor or no memory is left, or sockets of the kind that it uses are forbidden.
pub fn addresses() -> io::Result<Vec<IpAddr>> {
    let mut first: *mut libc::ifaddrs = ptr::null_mut();
    // SAFETY: it writes the head of a list, which is freed below.
    if unsafe { libc::getifaddrs(&raw mut first) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let mut found = Vec::new();
    let mut at = first;
    // SAFETY: `at` is null or an element of the list, which is whole until it is freed.
    while let Some(element) = unsafe { at.as_ref() } {
        // SAFETY: an element's address is null or a whole address of the family that it says.
        let address = unsafe { ip_of(element.ifa_addr) };
        if let Some(address) = address.filter(|&address| is_reachable(address))
            && !found.contains(&address)
        {
            found.push(address);
        }
        at = element.ifa_next;
    }
    // SAFETY: the list is freed once, and nothing of it is kept.
    unsafe { libc::freeifaddrs(first) };
    Ok(found)
}

/// # Safety
/// `address` is null or points to a whole address of the family that it says.
unsafe fn ip_of(address: *const libc::sockaddr) -> Option<IpAddr> {
    // SAFETY: as the caller says.
    unsafe {
        match i32::from(address.as_ref()?.sa_family) {
            libc::AF_INET => {
                let v4 = ptr::read_unaligned(address.cast::<libc::sockaddr_in>());
                Some(Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr)).into())
            }
            libc::AF_INET6 => {
                let v6 = ptr::read_unaligned(address.cast::<libc::sockaddr_in6>());
                Some(Ipv6Addr::from(v6.sin6_addr.s6_addr).into())
            }
            _ => None,
        }
    }
}

fn is_reachable(address: IpAddr) -> bool {
    let is_of_link = match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    !(address.is_loopback() || address.is_unspecified() || is_of_link)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_can_be_bound_and_is_of_no_loopback() {
        let found = addresses().unwrap();
        for address in found {
            assert!(is_reachable(address), "{address}");
            // One of IPv6 may still be tried for duplicates.
            if address.is_ipv4() {
                std::net::UdpSocket::bind((address, 0)).unwrap();
            }
        }
    }

    #[test]
    fn what_others_cannot_reach_is_left_out() {
        for left_out in ["127.0.0.1", "::1", "0.0.0.0", "169.254.1.1", "fe80::1"] {
            assert!(!is_reachable(left_out.parse().unwrap()), "{left_out}");
        }
        for kept in ["10.0.0.7", "fd00::7", "2001:db8::1"] {
            assert!(is_reachable(kept.parse().unwrap()), "{kept}");
        }
    }
}
