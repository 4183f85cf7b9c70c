//! Bringing what runs into line with what is wanted: relays that listen, lead elsewhere or are gone.
//!
//! It owns the order of closing and opening, and what could not be opened, which is tried again until it can or is no
//! longer wanted. No connection ends because of anything done here.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use ringside_api::{Relay, Target};
use socket2::SockAddr;

use crate::backend::listen::ListenError;
use crate::resolver::{FIRST_ANSWER, Followers, Resolver};
use crate::target_check::{self, Checked, Checker};
use crate::worker::team::{RunningRelay, Team};

/// How often relays that could not be opened are tried again.
pub const RETRY: Duration = Duration::from_secs(5);

/// A relay that is wanted and does not listen where it should.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unopened {
    /// As it is wanted.
    pub relay: Relay,
    /// Why, as a sentence.
    pub error: String,
}

/// The relays of a process.
#[derive(Debug)]
pub struct Relays {
    team: Arc<Team>,
    resolver: Resolver,
    checker: Checker,
    /// What is wanted. Held while anything is opened or closed.
    wanted: Mutex<Vec<Relay>>,
    unopened: ArcSwap<Vec<Unopened>>,
    failures_total: AtomicU64,
    closed: AtomicBool,
}

impl Followers for Team {
    fn targets(&self) -> Vec<Target> {
        let running = self.relays().into_iter();
        running.map(|running| running.wanted.target).collect()
    }

    fn give(&self, target: &Target, addresses: &[SockAddr]) {
        self.give_addresses(target, addresses);
    }
}

impl Relays {
    /// No relays yet.
    ///
    /// # Errors
    /// A thread for the resolver or for the checks of targets cannot be started.
    pub fn new(team: Arc<Team>) -> std::io::Result<Self> {
        Ok(Relays {
            resolver: Resolver::start(team.clone())?,
            checker: Checker::start(team.clone())?,
            team,
            wanted: Mutex::default(),
            unopened: ArcSwap::default(),
            failures_total: AtomicU64::new(0),
            closed: AtomicBool::new(false),
        })
    }

    /// Opens the relays of a process that starts.
    ///
    /// # Errors
    /// One of them cannot be: better no start than half of one.
    pub fn open(&self, relays: &[Relay]) -> Result<(), ListenError> {
        let mut wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        relays.clone_into(&mut wanted);
        match self.reconcile(&wanted).into_iter().next() {
            Some((_, error)) => Err(error),
            None => Ok(()),
        }
    }

    /// Brings what runs into line with `relays`. What cannot be opened is told by [`Relays::unopened`], and the relays
    /// that run go on.
    pub fn apply(&self, relays: &[Relay]) {
        let mut wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        relays.clone_into(&mut wanted);
        self.reconcile_and_tell(&wanted);
        // What leads elsewhere, and what was closed by settings that changed, need not wait.
        self.checker.check_now();
    }

    /// Tries again what could not be opened. May wait for a second for each.
    pub fn retry(&self) {
        let wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.unopened.load().is_empty() {
            self.reconcile_and_tell(&wanted);
        }
    }

    /// Opens nothing from now on, because the process ends. It waits for nobody.
    pub fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
    }

    /// What is wanted and not there.
    pub fn unopened(&self) -> Arc<Vec<Unopened>> {
        self.unopened.load_full()
    }

    /// How often a relay could not be opened; one that is tried again in vain counts once.
    pub fn failures_total(&self) -> u64 {
        self.failures_total.load(Ordering::Relaxed)
    }

    /// Who finds the targets' addresses.
    pub fn resolver(&self) -> &Resolver {
        &self.resolver
    }

    fn reconcile_and_tell(&self, wanted: &[Relay]) {
        let failed = self.reconcile(wanted);
        let before = self.unopened();
        for (relay, error) in &failed {
            if !before.iter().any(|known| known.relay.name == relay.name) {
                self.failures_total.fetch_add(1, Ordering::Relaxed);
                tracing::error!(relay = relay.name, error = %error, "the relay cannot be opened: the others go on, and it is tried again");
            }
        }
        let unopened = failed.into_iter().map(|(relay, error)| Unopened {
            error: error.to_string(),
            relay,
        });
        self.unopened.store(Arc::new(unopened.collect()));
    }

    /// Closes and opens; returns what could not be opened.
    fn reconcile(&self, wanted: &[Relay]) -> Vec<(Relay, ListenError)> {
        let running: Vec<Running> = self.team.relays().iter().map(Running::of).collect();
        let runs = |relay: &Relay| running.iter().find(|r| r.wanted.name == relay.name);
        let stays = |r: &Running| {
            wanted
                .iter()
                .any(|relay| relay.name == r.wanted.name && relay.listen == r.wanted.listen)
        };
        let going: Vec<&Running> = running.iter().filter(|r| !stays(r)).collect();
        let addresses = self.addresses_of(wanted);
        // A relay that listens already is judged as it goes on.
        let opens = |relay: &Relay| runs(relay).is_none_or(|r| r.wanted.listen != relay.listen);
        let asked: Vec<Vec<SockAddr>> = wanted
            .iter()
            .zip(&addresses)
            .map(|(relay, addresses)| match opens(relay) {
                true => addresses.clone(),
                false => Vec::new(),
            })
            .collect();
        let checked = target_check::first(&asked, &self.team.settings().target_check);

        let mut failed = Vec::new();
        let mut after_closing = Vec::new();
        for ((relay, addresses), checked) in wanted.iter().zip(addresses).zip(checked) {
            match runs(relay) {
                Some(r) if r.wanted == *relay => {}
                Some(r) if r.wanted.listen == relay.listen => {
                    self.retarget(relay, addresses);
                }
                // The port is still ours, and has to be closed first.
                _ if going.iter().any(|r| shares_port(r, relay)) => {
                    after_closing.push((relay, addresses, checked));
                }
                // Else the old listener stays until the new one is there, and where there is none, for good.
                Some(r) => match self.add(relay, addresses.clone(), checked) {
                    Ok(()) => drop(self.team.remove(&relay.name)),
                    Err(error) => {
                        let there = Relay {
                            listen: r.wanted.listen,
                            ..relay.clone()
                        };
                        if there != r.wanted {
                            self.retarget(&there, addresses);
                        }
                        failed.push((relay.clone(), error));
                    }
                },
                None => {
                    if let Err(error) = self.add(relay, addresses, checked) {
                        failed.push((relay.clone(), error));
                    }
                }
            }
        }
        for r in going {
            let is_wanted = wanted.iter().any(|relay| relay.name == r.wanted.name);
            let moves = after_closing
                .iter()
                .any(|(relay, _, _)| relay.name == r.wanted.name);
            if !is_wanted || moves {
                self.team.remove(&r.wanted.name);
                tracing::info!(relay = r.wanted.name, address = %r.address, "no longer listening");
            }
        }
        for (relay, addresses, checked) in after_closing {
            if let Err(error) = self.add(relay, addresses, checked) {
                failed.push((relay.clone(), error));
            }
        }
        failed
    }

    /// Of all at once, so that slow names are waited for together.
    fn addresses_of(&self, wanted: &[Relay]) -> Vec<Vec<SockAddr>> {
        let targets: Vec<&Target> = wanted.iter().map(|relay| &relay.target).collect();
        self.resolver.addresses(&targets, FIRST_ANSWER)
    }

    fn add(
        &self,
        relay: &Relay,
        addresses: Vec<SockAddr>,
        checked: Checked,
    ) -> Result<(), ListenError> {
        if self.closed.load(Ordering::SeqCst) {
            return Ok(());
        }
        let running = self.team.add(relay, addresses, checked)?;
        if self.closed.load(Ordering::SeqCst) {
            // It may have come after all others were closed.
            self.team.remove(&relay.name);
            return Ok(());
        }
        self.resolver.tell(&relay.target);
        // Not `target`, which is a field of every line.
        let (address, to) = (running.address, relay.target.to_string());
        if running.listens() {
            tracing::info!(relay = relay.name, %address, to, "listening");
        } else {
            tracing::warn!(
                relay = relay.name,
                %address,
                to,
                "closed: the target refuses connections, and so does this port until the target takes them"
            );
        }
        Ok(())
    }

    fn retarget(&self, relay: &Relay, addresses: Vec<SockAddr>) {
        self.team.retarget(relay, addresses);
        self.resolver.tell(&relay.target);
        let to = relay.target.to_string();
        tracing::info!(relay = relay.name, to, "new connections lead elsewhere");
    }
}

/// A relay that runs, without its sockets: whoever holds those keeps the port.
struct Running {
    wanted: Relay,
    address: std::net::SocketAddr,
}

impl Running {
    fn of(running: &RunningRelay) -> Self {
        Running {
            wanted: running.wanted.clone(),
            address: running.address,
        }
    }
}

/// Whether `relay` asks for a port that `running` holds, of whatever address: the kernel sees a clash where one of the
/// two addresses contains the other.
fn shares_port(running: &Running, relay: &Relay) -> bool {
    let port = relay.listen.0.port();
    port != 0 && running.address.port() == port
}
