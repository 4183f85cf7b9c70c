//! An attack, withstood: what the tests judge, none of which depends on how busy the machine is.

use std::io::Write;
use std::time::Duration;

use ringside_tests::await_that;
use ringside_tests::relay::{Kind, Relay};
use ringside_tests::traffic::Server;

use crate::attackers::{Attackers, Passed};
use crate::measuring;
use crate::victims::Victims;

/// Rounds without and with attackers.
const ROUNDS: u64 = 2;

/// Clients with a connection each.
const CLIENTS: u64 = 4;

/// Answers that they must have had, without and with attackers in each round.
const PINGS: usize = 200;

/// Answers that newcomers must have had, likewise.
const NEWCOMERS: usize = 3;

/// Less often done, an attack is none.
const ACTS_LEAST: u64 = 100;

/// What one attack does, and to whom.
pub(crate) struct Attack<'a> {
    pub(crate) kind: Kind,
    pub(crate) what: &'static str,
    pub(crate) relay: &'a Relay,
    /// What the relay leads to, which echoes what follows an `e`.
    pub(crate) server: &'a Server,
    /// What attackers get through the relay, where that is what they are after.
    pub(crate) passed: Passed,
    /// How much of it at most while one victim waits for one answer, in half of all pings: the machine's other work makes
    /// some of them long, and only a relay that serves others first makes half of them so.
    pub(crate) fair: u64,
}

impl Attack<'_> {
    /// Has victims live without and with what `begin` makes, which is in effect when it returns and over when it is
    /// dropped. Returns how many connections they made. Panics if one was not answered, or if attackers went before.
    #[track_caller]
    pub(crate) fn withstood<A: Attackers>(&self, mut begin: impl FnMut() -> A) -> u64 {
        if measuring::is_wanted() {
            return measuring::measure(self, &mut begin);
        }
        let passed = &self.passed;
        let staying = Victims::who_stay(self.relay.address(), CLIENTS, passed);
        let coming = Victims::who_come(self.relay.address(), Duration::from_millis(1), passed);
        let live = |phase| {
            staying.set_phase(phase);
            coming.set_phase(phase);
            staying.await_pings(phase, PINGS);
            coming.await_pings(phase, NEWCOMERS);
        };
        for round in 1..=ROUNDS {
            self.await_calm(CLIENTS + 2);
            live(2 * round);
            let attackers = begin();
            let before = attackers.acts();
            live(2 * round + 1);
            await_that("the attack to be one", || {
                let acts = attackers.acts().zip(before);
                acts.is_none_or(|(now, before)| now >= before + ACTS_LEAST)
            });
            drop(attackers);
        }
        let (came, stayed) = (coming.finish(), staying.finish());
        let under_attack = stayed.pings.iter().filter(|ping| ping.phase % 2 == 1);
        let longest = under_attack.clone().map(|ping| ping.took).max();
        let longest = longest.unwrap_or_default();
        let median = median(under_attack.map(|ping| ping.passed).collect());
        let (kind, what) = (self.kind, self.what);
        let said = format!(
            "{what} ({kind:?}): an answer took {longest:.0?} at most; attackers got {median} through during half of the pings"
        );
        // Straight to standard error: cargo hides what a test that passes prints.
        let _ = std::io::stderr().write_all(format!("{said}\n").as_bytes());
        assert!(median <= self.fair, "{said}; {} at most is fair", self.fair);
        self.await_calm(0);
        came.connections + stayed.connections
    }

    /// Waits until at most so many connections are open.
    #[track_caller]
    pub(crate) fn await_calm(&self, open: u64) {
        let open = open as f64;
        self.relay
            .await_metric("connections_open", &[], |now| now <= open);
    }
}

/// The middle one; 0 of none.
fn median(mut values: Vec<u64>) -> u64 {
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or(0)
}
