//! One relay: the name it has in metrics, where it listens and where it leads. It owns how these are written and which of
//! them cannot work; it never opens or resolves anything.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Serialize, Serializer};
use thiserror::Error;

use crate::sentence::quoted;
use crate::wire::{FromScalar, Scalar};

/// The longest path of a Unix socket, in bytes: `sun_path` holds 108 with its closing zero.
pub const UNIX_PATH_BYTES_MAX: usize = 107;

/// The longest name of a relay, in bytes, as for a label of Kubernetes.
pub const NAME_BYTES_MAX: usize = 63;

/// What follows a target whose connections begin with a PROXY header, before the header's version.
const PROXY_MARK: &str = "?proxy=";

/// In the place of a target's host: the address that the connection was to go to before it was redirected. No name of DNS.
const ORIGINAL: &str = "*";

/// The longest host name of DNS, in bytes.
const HOST_BYTES_MAX: usize = 253;

/// A piece of a relay that is not written as it must be. The message quotes it and says what is allowed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct RelayError(String);

fn refuse<T>(given: &str, problem: impl fmt::Display) -> Result<T, RelayError> {
    Err(RelayError(format!("{} {problem}", quoted(given))))
}

/// The address that a relay accepts connections on. `[::]:PORT` takes IPv4 as well; port 0 lets the kernel choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Listen(pub SocketAddr);

impl Listen {
    /// Whether the socket serves both IPv6 and IPv4.
    pub fn is_dual_stack(&self) -> bool {
        self.0.ip() == IpAddr::from([0u16; 8])
    }

    /// Whether both would ask the kernel for the same port of the same addresses. Port 0 is never the same as another.
    pub fn conflicts_with(&self, other: &Self) -> bool {
        let (ours, theirs) = (self.0, other.0);
        let both_any = ours.ip().is_unspecified() && theirs.ip().is_unspecified();
        let dual_stack = self.is_dual_stack() || other.is_dual_stack();
        ours.port() != 0
            && (ours == theirs || (ours.port() == theirs.port() && both_any && dual_stack))
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Listen {
    type Err = RelayError;

    fn from_str(given: &str) -> Result<Self, RelayError> {
        given.parse().map(Self).or_else(|_| {
            refuse(given, "is no address to listen on: write IP:PORT, such as 0.0.0.0:15080, or [::]:15080 for IPv6 and IPv4")
        })
    }
}

/// Where a relay leads.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// `IP:PORT`, with IPv6 in brackets.
    Address(SocketAddr),
    /// `HOST:PORT`, resolved while the relay runs.
    Host {
        /// The name as DNS knows it.
        host: String,
        /// 1 to 65535.
        port: u16,
    },
    /// `unix:/PATH`, an absolute path of at most [`UNIX_PATH_BYTES_MAX`] bytes.
    Unix(PathBuf),
    /// `*:PORT`, the address that a connection was to go to before the kernel redirected it to the relay, where it was
    /// for this port; other connections are refused.
    Original {
        /// 1 to 65535.
        port: u16,
    },
}

impl Target {
    /// Whether connecting to this target surely arrives at `listen` on this machine. Names other than `localhost` are not
    /// resolved, so false means "not known to".
    pub fn reaches(&self, listen: &Listen) -> bool {
        let at = listen.0;
        let any = at.ip().is_unspecified();
        match self {
            Self::Address(to) => {
                // Connecting to the unspecified address is connecting to the loopback one.
                let to_self = to.ip().to_canonical().is_loopback() || to.ip().is_unspecified();
                let same_family = to.is_ipv4() == at.is_ipv4() || listen.is_dual_stack();
                let same_ip = to.ip() == at.ip()
                    || (any && to_self && same_family)
                    || (to.ip().is_unspecified() && at.ip().is_loopback() && same_family);
                to.port() == at.port() && same_ip
            }
            Self::Host { host, port } => {
                *port == at.port()
                    && host.eq_ignore_ascii_case("localhost")
                    && (any || at.ip().is_loopback())
            }
            Self::Unix(_) => false,
            // What is redirected was to go to an address that others reach.
            Self::Original { port } => *port == at.port() && !at.ip().is_loopback(),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Host { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Original { port } => write!(f, "{ORIGINAL}:{port}"),
        }
    }
}

impl FromStr for Target {
    type Err = RelayError;

    fn from_str(given: &str) -> Result<Self, RelayError> {
        const ALLOWED: &str = "write IP:PORT, HOST:PORT or unix:/PATH, such as 127.0.0.1:8080";
        if let Some(path) = given.strip_prefix("unix:") {
            return unix_path(given, path).map(Self::Unix);
        }
        if let Ok(address) = given.parse::<SocketAddr>() {
            return match address.port() {
                0 => refuse(
                    given,
                    "has port 0, which nobody can connect to: write a port from 1 to 65535",
                ),
                _ => Ok(Self::Address(address)),
            };
        }
        let Some((host, port)) = given.rsplit_once(':') else {
            return refuse(given, format_args!("has no port: {ALLOWED}"));
        };
        let port = match port.parse::<u16>() {
            // `parse` takes a leading plus; an address has none.
            Ok(number) if number > 0 && !port.starts_with('+') => number,
            _ => {
                return refuse(
                    given,
                    format_args!(
                        "has the port {}: write a port from 1 to 65535",
                        quoted(port)
                    ),
                );
            }
        };
        if host == ORIGINAL {
            return Ok(Self::Original { port });
        }
        if host.contains(':') || host.starts_with('[') {
            return refuse(
                given,
                "is no IPv6 address and port: write it in brackets, such as [::1]:8080",
            );
        }
        if !is_host_name(host) {
            return refuse(given, format_args!("has no valid host name: {ALLOWED}"));
        }
        Ok(Self::Host {
            host: host.to_owned(),
            port,
        })
    }
}

fn unix_path(given: &str, path: &str) -> Result<PathBuf, RelayError> {
    if !path.starts_with('/') {
        return refuse(
            given,
            "has no absolute path: write unix:/PATH, such as unix:/run/app.sock",
        );
    }
    if path.len() > UNIX_PATH_BYTES_MAX {
        let bytes = path.len();
        return refuse(
            given,
            format_args!(
                "has a path of {bytes} bytes, but the kernel allows at most {UNIX_PATH_BYTES_MAX}"
            ),
        );
    }
    if path.contains('\0') {
        return refuse(
            given,
            "has a zero byte in its path, which the kernel does not allow",
        );
    }
    Ok(PathBuf::from(path))
}

/// Labels of letters, digits, hyphens and underscores. A last label of digits only would be a broken IPv4 address.
fn is_host_name(host: &str) -> bool {
    let labels = host.strip_suffix('.').unwrap_or(host);
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    let last_is_number = labels
        .rsplit('.')
        .next()
        .is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit()));
    host.len() <= HOST_BYTES_MAX && labels.split('.').all(is_label) && !last_is_number
}

words! {
    /// Whether the target is told who the client is before the first byte.
    ProxyProtocol {
        /// It is not.
        None = "None",
        /// By a PROXY protocol header of version 2.
        V2 = "V2",
    }
}

/// One relay: a listener and the target that its connections lead to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Relay {
    /// What it is called in metrics and logs: lower-case letters, digits and hyphens, at most [`NAME_BYTES_MAX`] bytes.
    pub name: String,
    /// Where it accepts connections.
    pub listen: Listen,
    /// Where they lead.
    pub target: Target,
    /// Whether the target is told who the client is.
    pub proxy_protocol: ProxyProtocol,
}

impl Relay {
    /// Whether it relays only what was redirected to it.
    pub fn intercepts(&self) -> bool {
        matches!(self.target, Target::Original { .. })
    }
}

/// Checks a relay's name: `[a-z0-9-]`, beginning and ending with a letter or digit, 1 to [`NAME_BYTES_MAX`] bytes.
///
/// # Errors
/// A sentence that quotes the name and says what is allowed.
pub fn check_name(name: &str) -> Result<(), RelayError> {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let is_safe = (1..=NAME_BYTES_MAX).contains(&name.len())
        && name.bytes().all(allowed)
        && !name.starts_with('-')
        && !name.ends_with('-');
    if is_safe {
        return Ok(());
    }
    refuse(
        name,
        format_args!(
            "is no name for a relay: write 1 to {NAME_BYTES_MAX} lower-case letters, digits and hyphens, with no hyphen at either end"
        ),
    )
}

impl FromStr for Relay {
    type Err = RelayError;

    /// `NAME=LISTEN:TARGET`, such as `web=0.0.0.0:15080:127.0.0.1:8080` or `db=[::]:15432:unix:/run/db.sock`; with `?proxy=v2`
    /// behind it the target is told who the client is.
    fn from_str(given: &str) -> Result<Self, RelayError> {
        const ALLOWED: &str = "write NAME=LISTEN:TARGET, such as web=0.0.0.0:15080:127.0.0.1:8080 or db=[::]:15432:unix:/run/db.sock";
        let Some((name, ways)) = given.split_once('=') else {
            return refuse(given, format_args!("has no name: {ALLOWED}"));
        };
        check_name(name)?;
        let (ways, proxy_protocol) = match ways.rsplit_once(PROXY_MARK) {
            None => (ways, ProxyProtocol::None),
            Some((ways, "v2")) => (ways, ProxyProtocol::V2),
            Some((_, version)) => {
                let version = quoted(version);
                return refuse(
                    given,
                    format_args!(
                        "asks for the PROXY protocol {version}: write ?proxy=v2, or leave it out"
                    ),
                );
            }
        };
        // The listener is an IP and a port: the first colon after the IP, and the next one, are its ends.
        let ip_bytes = if ways.starts_with('[') {
            ways.find(']')
        } else {
            Some(0)
        };
        let ends = ip_bytes.and_then(|ip_bytes| {
            let colon = ip_bytes + ways[ip_bytes..].find(':')?;
            Some(colon + 1 + ways[colon + 1..].find(':')?)
        });
        let Some(end) = ends else {
            return refuse(given, format_args!("has no target: {ALLOWED}"));
        };
        let within = |error: RelayError| {
            RelayError(format!("{} is no relay, because {error}", quoted(given)))
        };
        Ok(Self {
            name: name.to_owned(),
            listen: ways[..end].parse().map_err(within)?,
            target: ways[end + 1..].parse().map_err(within)?,
            proxy_protocol,
        })
    }
}

impl fmt::Display for Relay {
    /// As it is written for `--relay`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            name,
            listen,
            target,
            proxy_protocol,
        } = self;
        write!(f, "{name}={listen}:{target}")?;
        match proxy_protocol {
            ProxyProtocol::None => Ok(()),
            ProxyProtocol::V2 => write!(f, "{PROXY_MARK}v2"),
        }
    }
}

macro_rules! text_both_ways {
    ($type:ident, $expected:literal) => {
        impl FromScalar for $type {
            const EXPECTED: &'static str = $expected;

            fn from_scalar(scalar: &Scalar<'_>) -> Result<Self, String> {
                let text = match scalar {
                    Scalar::Text(text) => (*text).to_owned(),
                    other => other.to_string(),
                };
                text.parse().map_err(|error: RelayError| error.to_string())
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.collect_str(self)
            }
        }

        deserialize_as_field!($type);
    };
}

text_both_ways!(Listen, "an address such as 0.0.0.0:15080");
text_both_ways!(Target, "a target such as 127.0.0.1:8080");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relay_is_written_as_it_is_read() {
        for text in [
            "web=0.0.0.0:15080:127.0.0.1:8080",
            "web=[::]:15080:[::1]:8080?proxy=v2",
            "db=[::]:15432:unix:/run/db.sock?proxy=v2",
            "far=[::]:1:example.org:9",
            "mine=[::]:15080:*:8080",
            "mine=0.0.0.0:15080:*:8080?proxy=v2",
        ] {
            let relay: Relay = text.parse().unwrap();
            assert_eq!(relay.to_string(), text);
            let told = relay.proxy_protocol == ProxyProtocol::V2;
            assert_eq!(told, text.ends_with("v2"));
        }
        let error = "web=[::]:1:unix:/run/a?proxy=v1"
            .parse::<Relay>()
            .unwrap_err();
        assert!(error.to_string().contains("write ?proxy=v2"), "{error}");
    }

    #[test]
    fn the_original_destination_is_a_port_of_its_own() {
        let target: Target = "*:8080".parse().unwrap();
        assert_eq!(target, Target::Original { port: 8080 });
        for bad in ["*", "*:", "*:0", "*:65536", "**:1", "*.example.org:1"] {
            assert!(bad.parse::<Target>().is_err(), "{bad}");
        }
        let at = |text: &str| text.parse::<Listen>().unwrap();
        assert!(target.reaches(&at("[::]:8080")));
        assert!(target.reaches(&at("10.0.0.1:8080")));
        assert!(!target.reaches(&at("127.0.0.1:8080")));
        assert!(!target.reaches(&at("[::]:15080")));
    }
}
