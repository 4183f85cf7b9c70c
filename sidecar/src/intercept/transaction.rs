//! Rules into the kernel and out of it, by one batch over netlink: there is no moment with half of them.
//!
//! It owns the socket for as long as that takes, and the sentences for what the kernel answers. The program `nft` is not
//! needed, as the sidecar's image has nothing but the sidecar.

use std::io::{self, ErrorKind, Read};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use thiserror::Error;

use super::messages::{self, Batch, HEADER_BYTES, Part};
use super::rules::{Rules, TABLE};

/// The kernel has answered when it has taken the batch; this is for one that does not answer at all.
const PATIENCE: Duration = Duration::from_secs(10);

/// An error holds the whole message that it is about.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Why rules did not come into the kernel, or out of it. Nothing was changed.
#[derive(Debug, Error)]
pub enum InterceptError {
    /// There is no way to speak with the packet filter.
    #[error(
        "the kernel's packet filter cannot be spoken to: {0}; it needs Linux 5.2 or later with nf_tables, and a container that may open netlink sockets"
    )]
    Unreachable(#[source] io::Error),
    /// The right to change rules is missing.
    #[error(
        "the kernel does not allow rules to be changed ({0}): run as root with the capability NET_ADMIN in this network"
    )]
    Forbidden(#[source] io::Error),
    /// The kernel refuses a part.
    #[error("the kernel refuses {part}: {source}; {hint}")]
    Refused {
        /// Which part.
        part: String,
        /// What it said.
        source: io::Error,
        /// What to try.
        hint: &'static str,
    },
    /// The kernel said nothing.
    #[error(
        "the kernel took the rules and did not say so: {0}; look at nft list table inet {TABLE}"
    )]
    NoAnswer(#[source] io::Error),
}

/// Puts these rules in the place of all that the table held.
///
/// # Errors
/// The kernel does not take them; then nothing has changed.
pub fn apply(rules: &Rules) -> Result<(), InterceptError> {
    hand_over(&messages::replace(rules))
}

/// Takes the table out, if it is there.
///
/// # Errors
/// The kernel does not allow it.
pub fn remove() -> Result<(), InterceptError> {
    hand_over(&messages::remove())
}

fn hand_over(batch: &Batch) -> Result<(), InterceptError> {
    let open = || {
        let protocol = Protocol::from(libc::NETLINK_NETFILTER);
        let socket = Socket::new(
            Domain::from(libc::AF_NETLINK),
            Type::RAW.cloexec(),
            Some(protocol),
        )?;
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok(socket)
    };
    let socket: Socket = open().map_err(InterceptError::Unreachable)?;
    // A netlink socket without a destination sends to the kernel, which has answered when this returns.
    match socket.send(&batch.bytes) {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            return Err(InterceptError::Forbidden(error));
        }
        Err(error) => return Err(InterceptError::Unreachable(error)),
        Ok(_) => {}
    }
    let mut answer = vec![0; ANSWER_BYTES_MAX];
    loop {
        let length = (&socket)
            .read(&mut answer)
            .map_err(InterceptError::NoAnswer)?;
        // The first one decides: errors come in the order of the messages, and the one success that is asked for is the
        // last message's.
        match first_answer(&answer[..length]) {
            None => {}
            Some((_, 0)) => return Ok(()),
            Some((sequence, errno)) => {
                let part = batch.parts.get(sequence as usize).copied();
                let error = io::Error::from_raw_os_error(errno);
                return Err(refused(part.unwrap_or(Part::Batch), error));
            }
        }
    }
}

/// The first answer in what was read: the sequence number of the message that it is about, and its error, 0 for none.
fn first_answer(mut bytes: &[u8]) -> Option<(u32, i32)> {
    let word = |bytes: &[u8], at: usize| <[u8; 4]>::try_from(bytes.get(at..at + 4)?).ok();
    loop {
        let length = u32::from_ne_bytes(word(bytes, 0)?) as usize;
        let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
        if kind == libc::NLMSG_ERROR as u16 {
            let sequence = u32::from_ne_bytes(word(bytes, 8)?);
            let errno = i32::from_ne_bytes(word(bytes, HEADER_BYTES)?).saturating_neg();
            return Some((sequence, errno));
        }
        bytes = bytes.get(length.max(HEADER_BYTES).next_multiple_of(4)..)?;
    }
}

fn refused(part: Part, source: io::Error) -> InterceptError {
    if source.kind() == ErrorKind::PermissionDenied {
        return InterceptError::Forbidden(source);
    }
    let hint = match source.raw_os_error() {
        Some(libc::ENOENT | libc::EOPNOTSUPP | libc::EPROTONOSUPPORT | libc::EAFNOSUPPORT) => {
            "it lacks what this needs: Linux 5.2 or later with nf_tables, nft_fib_inet, nft_redir and nf_nat, as modules that the node can load or built in"
        }
        Some(libc::EBUSY) => {
            "other rules for NAT, such as those of iptables-legacy, are in the way"
        }
        _ => "look at the kernel's log",
    };
    let part = match part {
        Part::Batch => "the rules as a whole".to_owned(),
        Part::Table => format!("the table {TABLE}"),
        Part::Chain => "a chain for NAT".to_owned(),
        Part::Rule(redirect) => format!("the rule for port {}", redirect.from),
    };
    InterceptError::Refused { part, source, hint }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(sequence: u32, error: i32) -> Vec<u8> {
        let mut bytes = 36_u32.to_ne_bytes().to_vec();
        bytes.extend((libc::NLMSG_ERROR as u16).to_ne_bytes());
        bytes.extend([0; 2]);
        bytes.extend(sequence.to_ne_bytes());
        bytes.extend([0; 4]);
        bytes.extend(error.to_ne_bytes());
        bytes.extend([0; 16]);
        bytes
    }

    #[test]
    fn the_first_answer_is_found_behind_what_is_none_and_a_cut_one_is_none() {
        let both = [answer(3, -libc::ENOENT), answer(4, 0)].concat();
        assert_eq!(first_answer(&both), Some((3, libc::ENOENT)));
        let mut other = answer(1, 0);
        other[4] = libc::NLMSG_NOOP as u8;
        assert_eq!(
            first_answer(&[other.clone(), both].concat()),
            Some((3, libc::ENOENT))
        );
        for cut in 0..20 {
            assert_eq!(first_answer(&answer(3, 0)[..cut]), None, "{cut}");
        }
        for length in [0, 255] {
            other[..4].fill(length);
            assert_eq!(first_answer(&other), None);
        }
    }

    #[test]
    fn what_the_kernel_refuses_is_told_with_what_to_try() {
        let error = |errno| io::Error::from_raw_os_error(errno);
        let told = refused(Part::Chain, error(libc::ENOENT)).to_string();
        assert!(
            told.contains("a chain for NAT") && told.contains("nf_nat"),
            "{told}"
        );
        let told = refused(Part::Batch, error(libc::EPERM)).to_string();
        assert!(told.contains("NET_ADMIN"), "{told}");
    }
}
