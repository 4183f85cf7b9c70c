//! The addresses of targets: fixed ones as they are written, names and our own addresses by asking the system, again and again.
//!
//! It owns the look-ups, which wait for as long as they like on threads of their own and never on a worker's. The last
//! good answer stays while look-ups fail. It never decides which of several addresses is tried.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ringside_api::Target;
use socket2::SockAddr;

use crate::backend::interfaces;

/// How often each name is looked up.
pub const REFRESH: Duration = Duration::from_secs(10);

/// How long a relay that is about to start waits for the first answer about its target.
pub const FIRST_ANSWER: Duration = Duration::from_secs(2);

/// The most addresses of one name that are used.
const ADDRESSES_MAX: usize = 64;

/// The name of those targets that are the original destination: it stands for the addresses of our own interfaces, which is
/// where such connections were to go.
const OWN: &str = "*";

/// How a name is looked up.
type LookUp = dyn Fn(&str, u16) -> io::Result<Vec<SocketAddr>> + Send + Sync;

/// Who wants to know addresses.
pub trait Followers: Send + Sync {
    /// The targets of the moment.
    fn targets(&self) -> Vec<Target>;

    /// Tells everybody who leads to `target`, at this moment and no other, that it has these addresses.
    fn give(&self, target: &Target, addresses: &[SockAddr]);
}

/// What is known of one name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Name {
    /// The last good answer.
    pub addresses: Vec<SocketAddr>,
    /// Why the last look-up failed, if it did.
    pub error: Option<String>,
    answered: bool,
    being_looked_up: bool,
}

#[derive(Default)]
struct State {
    names: BTreeMap<(String, u16), Name>,
    failures_total: u64,
    lookups_total: u64,
    ended: bool,
}

struct Inner {
    look_up: Box<LookUp>,
    followers: Arc<dyn Followers>,
    state: Mutex<State>,
    changed: Condvar,
}

/// Looks names up until it is dropped.
pub struct Resolver(Arc<Inner>);

impl std::fmt::Debug for Resolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Resolver")
            .field("names", &self.0.lock().names)
            .finish()
    }
}

impl Resolver {
    /// Looks up the names in the targets of its followers, once in each [`REFRESH`].
    ///
    /// # Errors
    /// Its thread cannot be started.
    pub fn start(followers: Arc<dyn Followers>) -> io::Result<Self> {
        Self::start_with(Box::new(system), followers, REFRESH)
    }

    fn start_with(
        look_up: Box<LookUp>,
        followers: Arc<dyn Followers>,
        every: Duration,
    ) -> io::Result<Self> {
        let inner = Arc::new(Inner {
            look_up,
            followers,
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        let of_thread = inner.clone();
        std::thread::Builder::new()
            .name("resolver".to_owned())
            .spawn(move || of_thread.refresh(every))?;
        Ok(Resolver(inner))
    }

    /// The addresses of `targets` in their order, waiting no longer than `limit` for those that are names. A name
    /// without an answer has none yet.
    pub fn addresses(&self, targets: &[&Target], limit: Duration) -> Vec<Vec<SockAddr>> {
        let names: Vec<_> = targets
            .iter()
            .filter_map(|target| name_of(target))
            .collect();
        for name in &names {
            self.0.begin(name);
        }
        let deadline = Instant::now() + limit;
        let mut state = self.0.lock();
        let waits = |state: &State| {
            names
                .iter()
                .any(|name| state.names.get(name).is_some_and(|known| !known.answered))
        };
        while waits(&state) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            state = self
                .0
                .changed
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        targets
            .iter()
            .map(|target| match target {
                Target::Address(address) => vec![(*address).into()],
                // The length was checked when the settings were read.
                Target::Unix(path) => SockAddr::unix(path).into_iter().collect(),
                Target::Host { .. } | Target::Original { .. } => name_of(target)
                    .and_then(|name| state.names.get(&name))
                    .map_or(Vec::new(), |known| as_targets(&known.addresses)),
            })
            .collect()
    }

    /// Tells the followers of this target what is known of it, which may have come while they were not yet any.
    pub fn tell(&self, target: &Target) {
        let known = self.name(target).map_or(Vec::new(), |name| name.addresses);
        if !known.is_empty() {
            self.0.followers.give(target, &as_targets(&known));
        }
    }

    /// What is known of the name in this target; nothing of a target that is none.
    pub fn name(&self, target: &Target) -> Option<Name> {
        self.0.lock().names.get(&name_of(target)?).cloned()
    }

    /// Look-ups made since the start, and those of them that failed.
    pub fn lookups(&self) -> (u64, u64) {
        let state = self.0.lock();
        (state.lookups_total, state.failures_total)
    }
}

impl Drop for Resolver {
    fn drop(&mut self) {
        // A look-up may still wait for a name server: its thread ends when it is answered, and is not waited for.
        self.0.lock().ended = true;
        self.0.changed.notify_all();
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn refresh(self: Arc<Self>, every: Duration) {
        loop {
            let next = Instant::now() + every;
            let mut state = self.lock();
            while !state.ended && Instant::now() < next {
                let left = next.saturating_duration_since(Instant::now());
                state = self
                    .changed
                    .wait_timeout(state, left)
                    .unwrap_or_else(PoisonError::into_inner)
                    .0;
            }
            if state.ended {
                return;
            }
            drop(state);
            let targets = self.followers.targets();
            let wanted: Vec<_> = targets.iter().filter_map(name_of).collect();
            self.lock()
                .names
                .retain(|name, known| known.being_looked_up || wanted.contains(name));
            for name in &wanted {
                self.begin(name);
            }
        }
    }

    /// Looks one name up on a thread of its own, unless it is being looked up.
    fn begin(self: &Arc<Self>, name: &(String, u16)) {
        let mut state = self.lock();
        let known = state.names.entry(name.clone()).or_default();
        if std::mem::replace(&mut known.being_looked_up, true) {
            return;
        }
        drop(state);
        let (inner, asked) = (self.clone(), name.clone());
        let thread = std::thread::Builder::new().name("look-up".to_owned());
        let started = thread.spawn(move || {
            let (host, port) = &asked;
            let answer = (inner.look_up)(host, *port);
            inner.answered(&asked, answer);
        });
        if let Err(error) = started {
            self.answered(name, Err(error));
        }
    }

    fn answered(&self, name: &(String, u16), answer: io::Result<Vec<SocketAddr>>) {
        let (host, port) = name;
        let answer = answer.map_err(|error| error.to_string()).and_then(|found| {
            let mut addresses: Vec<SocketAddr> = Vec::new();
            for address in found {
                if !addresses.contains(&address) && addresses.len() < ADDRESSES_MAX {
                    addresses.push(address);
                }
            }
            if addresses.is_empty() {
                return Err("the name has no address".to_owned());
            }
            Ok(addresses)
        });
        let mut state = self.lock();
        state.lookups_total += 1;
        state.failures_total += u64::from(answer.is_err());
        let known = state.names.entry(name.clone()).or_default();
        known.answered = true;
        known.being_looked_up = false;
        match answer {
            Ok(addresses) => {
                if known.error.take().is_some() {
                    tracing::info!(host, port, "the target's name is found again");
                }
                // Servers rotate their answers: another order is no other answer.
                if sorted(&addresses) != sorted(&known.addresses) {
                    tracing::info!(host, port, ?addresses, "the target's addresses are known");
                    known.addresses = addresses;
                }
            }
            Err(error) => {
                if known.error.is_none() && host == OWN {
                    tracing::warn!(
                        port,
                        error,
                        "the addresses of this network's interfaces cannot be read: whether the application takes connections is not known, or only where it was last found"
                    );
                } else if known.error.is_none() {
                    let kept = known.addresses.len();
                    tracing::warn!(
                        host,
                        port,
                        error,
                        kept,
                        "the target's name cannot be looked up: the last addresses are kept; check the name and the resolver of this machine or pod"
                    );
                }
                known.error = Some(error);
            }
        }
        let addresses = as_targets(&known.addresses);
        drop(state);
        self.changed.notify_all();
        if !addresses.is_empty() {
            self.followers.give(&target_of(name), &addresses);
        }
    }
}

fn name_of(target: &Target) -> Option<(String, u16)> {
    match target {
        Target::Host { host, port } => Some((host.clone(), *port)),
        Target::Original { port } => Some((OWN.to_owned(), *port)),
        Target::Address(_) | Target::Unix(_) => None,
    }
}

fn target_of((host, port): &(String, u16)) -> Target {
    let (host, port) = (host.clone(), *port);
    if host == OWN {
        return Target::Original { port };
    }
    Target::Host { host, port }
}

fn system(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    if host != OWN {
        return (host, port).to_socket_addrs().map(Iterator::collect);
    }
    let mut own = interfaces::addresses()?;
    if own.is_empty() {
        own.push(Ipv4Addr::LOCALHOST.into());
    }
    let at_port = |ip| SocketAddr::new(ip, port);
    Ok(own.into_iter().map(at_port).collect())
}

fn as_targets(addresses: &[SocketAddr]) -> Vec<SockAddr> {
    addresses.iter().map(|&address| address.into()).collect()
}

fn sorted(addresses: &[SocketAddr]) -> Vec<SocketAddr> {
    let mut sorted = addresses.to_vec();
    sorted.sort_unstable();
    sorted
}

#[cfg(test)]
mod tests;
