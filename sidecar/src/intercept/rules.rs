//! Which rules: what is redirected to which port, and how nft(8) writes it. Pure.

use std::fmt;
use std::str::FromStr;

use ringside_api::sentence::quoted;

/// The name of the table, of the family `inet`, that holds all our rules and nothing else.
pub const TABLE: &str = "ringside";

/// The name of its one chain.
pub(super) const CHAIN: &str = "prerouting";

/// The most redirections of one network.
pub const REDIRECTS_MOST: usize = 64;

/// Connections to one port that go to another one instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// The application's port, which clients connect to.
    pub from: u16,
    /// The relay's port.
    pub to: u16,
}

impl FromStr for Redirect {
    type Err = String;

    /// `FROM:TO`, such as `8080:15080`.
    fn from_str(given: &str) -> Result<Self, String> {
        let number = |text: &str| {
            let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse::<u16>()
                .ok()
                .filter(|&port| port > 0 && is_plain)
        };
        let ports = given
            .trim()
            .split_once(':')
            .and_then(|(from, to)| Some((number(from)?, number(to)?)));
        match ports {
            Some((from, to)) if from != to => Ok(Self { from, to }),
            Some((from, _)) => Err(format!(
                "{} redirects port {from} to itself: name the relay's port second",
                quoted(given)
            )),
            None => Err(format!(
                "{} is no redirection: write FROM:TO with ports from 1 to 65535, such as 8080:15080",
                quoted(given)
            )),
        }
    }
}

impl fmt::Display for Redirect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.from, self.to)
    }
}

/// All redirections of a network, at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules(Vec<Redirect>);

impl Rules {
    /// Rules for these.
    ///
    /// # Errors
    /// A sentence: there are none or too many, a port is redirected twice, or what one leads to is redirected by another.
    pub fn new(redirects: Vec<Redirect>) -> Result<Self, String> {
        if redirects.is_empty() {
            return Err("there is nothing to redirect: give --redirect FROM:TO, such as --redirect 8080:15080".to_owned());
        }
        if redirects.len() > REDIRECTS_MOST {
            let count = redirects.len();
            return Err(format!(
                "there are {count} redirections: at most {REDIRECTS_MOST} are allowed"
            ));
        }
        for (index, one) in redirects.iter().enumerate() {
            if redirects[..index]
                .iter()
                .any(|other| other.from == one.from)
            {
                return Err(format!("port {} is redirected twice", one.from));
            }
            if redirects.iter().any(|other| other.from == one.to) {
                return Err(format!(
                    "{one} leads to port {}, which is redirected itself",
                    one.to
                ));
            }
        }
        Ok(Self(redirects))
    }

    /// What is redirected.
    pub fn redirects(&self) -> &[Redirect] {
        &self.0
    }

    /// The table as `nft --stateless list table inet ringside` shows it.
    pub fn table(&self) -> String {
        let mut text = format!(
            "table inet {TABLE} {{\n\tchain {CHAIN} {{\n\t\ttype nat hook prerouting priority dstnat; policy accept;\n"
        );
        for Redirect { from, to } in &self.0 {
            text.push_str(&format!(
                "\t\tiifname != \"lo\" fib daddr type local tcp dport {from} counter redirect to :{to}\n"
            ));
        }
        text.push_str("\t}\n}\n");
        text
    }
}

impl fmt::Display for Rules {
    /// As `nft -f -` reads it: in the place of rules of before, however often it is read.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "table inet {TABLE}\ndelete table inet {TABLE}\n{}",
            self.table()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(given: &[&str]) -> Result<Rules, String> {
        let redirects: Result<_, _> = given.iter().map(|text| text.parse()).collect();
        Rules::new(redirects?)
    }

    #[test]
    fn a_redirection_is_written_as_it_is_read() {
        let read: Redirect = " 8080:15080".parse().unwrap();
        assert_eq!(
            read,
            Redirect {
                from: 8080,
                to: 15080
            }
        );
        assert_eq!(read.to_string(), "8080:15080");
        for bad in [
            "", "8080", "8080:", "0:1", "1:0", "1:65536", "+1:2", "a:b", "1:2:3", "80:80",
        ] {
            assert!(bad.parse::<Redirect>().is_err(), "{bad}");
        }
    }

    #[test]
    fn what_cannot_work_together_is_refused() {
        rules(&["8080:15080", "9090:15080"]).unwrap();
        let refused = |given: &[&str]| rules(given).unwrap_err();
        assert!(refused(&[]).contains("nothing to redirect"));
        assert!(refused(&["1:2", "1:3"]).contains("port 1 is redirected twice"));
        assert!(refused(&["1:2", "2:3"]).contains("1:2 leads to port 2"));
        let many: Vec<String> = (1..=65).map(|port| format!("{port}:15080")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert!(refused(&many).contains("at most 64"));
    }

    #[test]
    fn the_rules_are_as_nft_reads_them() {
        let text = rules(&["8080:15080"]).unwrap().to_string();
        assert_eq!(
            text,
            "table inet ringside\ndelete table inet ringside\ntable inet ringside {\n\tchain prerouting {\n\
             \t\ttype nat hook prerouting priority dstnat; policy accept;\n\
             \t\tiifname != \"lo\" fib daddr type local tcp dport 8080 counter redirect to :15080\n\t}\n}\n"
        );
    }
}
