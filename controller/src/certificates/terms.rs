//! The terms on which certificates are made: for which names, for how long, and how long news of a CA takes to spread.
//!
//! It owns the ranges in which renewal with overlap works, and their reasons.

use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use tokio_rustls::rustls::pki_types::DnsName;

/// How far back certificates are dated, so that whoever's clock is behind accepts them. Renewal counts from when they were made.
pub(crate) const BACKDATED: Duration = Duration::from_secs(3600);

const DAY: Duration = Duration::from_secs(86_400);

/// For whom and for how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    names: Vec<String>,
    ca_life: Duration,
    leaf_life: Duration,
    spread: Duration,
}

/// Terms that cannot be kept.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadTerms {
    /// A name that no certificate can be for.
    #[error("{0:?} is neither a DNS name nor an IP address: a certificate can be for those alone")]
    Name(String),
    /// A leaf that lives too long for its CA.
    #[error(
        "a leaf's life of {leaf:?} does not fit a CA's of {ca:?}: it may be a quarter of it at most, so that a CA outlives what it signs"
    )]
    Leaf {
        /// The life asked for.
        leaf: Duration,
        /// Its CA's.
        ca: Duration,
    },
    /// A spread that a leaf cannot wait for.
    #[error(
        "a spread of {spread:?} does not fit a leaf's life of {leaf:?}: it may be a sixth of it at most, so that a leaf outlasts the wait for a new CA"
    )]
    Spread {
        /// The spread asked for.
        spread: Duration,
        /// The leaf's life.
        leaf: Duration,
    },
    /// A leaf that is over before it is made.
    #[error("a leaf's life of {0:?} is too short: 6 s at least")]
    Short(Duration),
}

impl Terms {
    /// The leaf's life at least.
    pub const LEAF_LIFE_LEAST: Duration = Duration::from_secs(6);

    /// For a Service: `NAME.NAMESPACE.svc`, `NAME.NAMESPACE.svc.cluster.local`, `NAME`, and whatever else it is called (`more`: DNS names and
    /// IP addresses). A CA lives for a year, a leaf for 30 days, and news of a CA have a day to spread.
    ///
    /// # Errors
    /// A name is none.
    pub fn for_service(name: &str, namespace: &str, more: &[String]) -> Result<Self, BadTerms> {
        let service = format!("{name}.{namespace}.svc");
        let mut names = vec![
            service.clone(),
            format!("{service}.cluster.local"),
            name.to_owned(),
        ];
        for name in more {
            if !names.contains(name) {
                names.push(name.clone());
            }
        }
        let good = |name: &String| {
            IpAddr::from_str(name).is_ok() || DnsName::try_from(name.as_str()).is_ok()
        };
        match names.iter().find(|name| !good(name)) {
            Some(bad) => Err(BadTerms::Name(bad.clone())),
            None => Ok(Self {
                names,
                ca_life: 365 * DAY,
                leaf_life: 30 * DAY,
                spread: DAY,
            }),
        }
    }

    /// With other lives, and another time for a new CA to spread before anything is signed by it: to webhook configurations within
    /// seconds, to sidecars with their next call, to one that is cut off when it is back.
    ///
    /// # Errors
    /// They do not fit each other.
    pub fn living(
        self,
        ca_life: Duration,
        leaf_life: Duration,
        spread: Duration,
    ) -> Result<Self, BadTerms> {
        if leaf_life < Self::LEAF_LIFE_LEAST {
            return Err(BadTerms::Short(leaf_life));
        }
        if leaf_life > ca_life / 4 {
            let (leaf, ca) = (leaf_life, ca_life);
            return Err(BadTerms::Leaf { leaf, ca });
        }
        if spread > leaf_life / 6 {
            let leaf = leaf_life;
            return Err(BadTerms::Spread { spread, leaf });
        }
        Ok(Self {
            ca_life,
            leaf_life,
            spread,
            ..self
        })
    }

    /// All names that a leaf is for; the first is the one that sidecars and the API server call.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// How long a CA lives.
    pub fn ca_life(&self) -> Duration {
        self.ca_life
    }

    /// How long a leaf lives.
    pub fn leaf_life(&self) -> Duration {
        self.leaf_life
    }

    /// How long news of a CA have to spread before anything is signed by it.
    pub fn spread(&self) -> Duration {
        self.spread
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_no_certificate_can_be_for_are_told() {
        let bad = Terms::for_service("ringside", "one", &["not a name".to_owned()]);
        let told = bad.unwrap_err().to_string();
        assert!(told.contains("\"not a name\""), "{told}");
        let more = ["10.0.0.7", "::1", "ringside.example", "ringside"].map(str::to_owned);
        let good = Terms::for_service("ringside", "one", &more).unwrap();
        assert_eq!(good.names()[0], "ringside.one.svc");
        assert_eq!(good.names().len(), 6);
    }

    #[test]
    fn lives_that_do_not_fit_each_other_are_told() {
        let terms = Terms::for_service("ringside", "one", &[]).unwrap();
        let living = |ca, leaf, spread| terms.clone().living(ca, leaf, spread);
        assert!(living(40 * DAY, 10 * DAY, DAY).is_ok());
        for (ca, leaf, spread, word) in [
            (39 * DAY, 10 * DAY, DAY, "quarter"),
            (40 * DAY, 10 * DAY, 2 * DAY, "sixth"),
            (DAY, Duration::from_secs(5), Duration::ZERO, "too short"),
        ] {
            let told = living(ca, leaf, spread).unwrap_err().to_string();
            assert!(told.contains(word), "{told}");
        }
    }
}
