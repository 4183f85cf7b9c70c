//! The controller's address as a user gives it: `https://NAME:PORT`. It owns what is allowed there.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;
use tokio_rustls::rustls::pki_types::ServerName;

/// The port where none is said.
const PORT_DEFAULT: u16 = 443;

/// The name that the controller's certificate must be for, and its port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// The name: DNS or IP.
    pub name: ServerName<'static>,
    /// The port.
    pub port: u16,
}

/// What is wrong with an address.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "{given:?} is no address of a controller: {problem}; write https://NAME:PORT, such as https://ringside-controller.ringside.svc:443"
)]
pub struct AddressError {
    given: String,
    problem: &'static str,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            ServerName::IpAddress(ip) if self.is_v6() => {
                write!(f, "[{}]:{}", std::net::IpAddr::from(*ip), self.port)
            }
            name => write!(f, "{}:{}", name.to_str(), self.port),
        }
    }
}

impl Address {
    fn is_v6(&self) -> bool {
        matches!(&self.name, ServerName::IpAddress(ip) if std::net::IpAddr::from(*ip).is_ipv6())
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(given: &str) -> Result<Self, AddressError> {
        let refuse = |problem| AddressError {
            given: given.chars().take(100).collect(),
            problem,
        };
        let rest = given
            .strip_prefix("https://")
            .ok_or_else(|| refuse("it does not begin with https://"))?;
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.contains(['/', '?', '#', '@']) {
            return Err(refuse("there is more in it than a name and a port"));
        }
        let bracketed = rest.strip_prefix('[').and_then(|rest| rest.split_once(']'));
        let (name, port) = match bracketed {
            Some((name, "")) => (name, None),
            Some((name, after)) => (name, Some(after.strip_prefix(':').unwrap_or(after))),
            None => match rest.split_once(':') {
                Some((name, port)) => (name, Some(port)),
                None => (rest, None),
            },
        };
        let port = match port {
            None => PORT_DEFAULT,
            Some(port) => match port.parse() {
                Ok(port) if port > 0 => port,
                _ => return Err(refuse("its port is no number from 1 to 65535")),
            },
        };
        let name = ServerName::try_from(name.to_owned())
            .map_err(|_| refuse("its name is neither a DNS name nor an IP address"))?;
        Ok(Self { name, port })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_and_a_port_are_read_and_shown() {
        for (given, shown) in [
            (
                "https://controller.ringside.svc:8443",
                "controller.ringside.svc:8443",
            ),
            ("https://controller", "controller:443"),
            ("https://controller:1/", "controller:1"),
            ("https://10.0.0.1:8443", "10.0.0.1:8443"),
            ("https://[fd00::1]:8443", "[fd00::1]:8443"),
            ("https://[fd00::1]", "[fd00::1]:443"),
        ] {
            assert_eq!(given.parse::<Address>().unwrap().to_string(), shown);
        }
    }

    #[test]
    fn anything_else_gets_a_sentence() {
        for (given, part) in [
            ("controller:8443", "begin with https://"),
            ("http://controller:8443", "begin with https://"),
            ("https://controller:8443/v1", "more in it"),
            ("https://user@controller:8443", "more in it"),
            ("https://controller:0", "port"),
            ("https://controller:65536", "port"),
            ("https://fd00::1", "port"),
            ("https://:8443", "neither a DNS name"),
            ("https://", "neither a DNS name"),
            ("https://a b", "neither a DNS name"),
        ] {
            let error = given.parse::<Address>().unwrap_err().to_string();
            assert!(
                error.contains(part) && error.contains("https://NAME:PORT"),
                "{error}"
            );
        }
    }
}
