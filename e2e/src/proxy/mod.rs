//! A way to the API server that understands requests, and answers some of them wrongly on command.
//!
//! It listens on loopback with TLS and passes requests on, watches included. Who has a token stays who it is; the token of the proxy's
//! own makes a request that of whoever may do everything. It owns its thread and its connections. Connections as such are
//! [`crate::forwarder`]'s.

mod carry;
mod fault;

pub use fault::{Fault, Requests, Seen};

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use kube::{Client, Config};
use tokio::sync::watch;

use crate::apiserver::{self, ApiServer, Authority, Folder, User};

/// Of the requests that came by, the last so many are remembered.
const REMEMBERED: usize = 100_000;

/// Listens at a port of its own, until it is dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    authority: String,
    /// Who shows it may do everything; made for this proxy alone.
    token: String,
    folder: Folder,
    state: Arc<State>,
    orders: Option<watch::Sender<Orders>>,
    thread: Option<JoinHandle<()>>,
}

/// What is told to connections that are open.
#[derive(Debug, Clone, Copy, Default)]
struct Orders {
    /// How often faults have been lifted.
    lifted: u64,
    /// Connections older than this are cut.
    cuts: u64,
}

/// What connections ask.
#[derive(Debug, Default)]
struct State {
    faults: Mutex<Vec<Standing>>,
    seen: Mutex<Vec<Seen>>,
}

/// A fault in force.
#[derive(Debug)]
struct Standing {
    requests: Requests,
    fault: Fault,
    /// How many requests it is still for.
    left: u64,
}

impl Proxy {
    /// A proxy to `server`.
    ///
    /// # Panics
    /// Without a port, a thread or a runtime.
    pub fn start(server: &ApiServer) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port for the proxy");
        listener
            .set_nonblocking(true)
            .expect("a listener can be non-blocking");
        let address = listener.local_addr().expect("a bound listener");
        let authority = Authority::new("ringside-e2e-proxy");
        let tls = carry::tls(&authority.server());
        let (orders, taken) = watch::channel(Orders::default());
        let state = Arc::new(State::default());
        let token = apiserver::random_token();
        let config = server.config();
        let known = token.clone();
        let shared = Arc::clone(&state);
        let name = thread::Builder::new().name("proxy".to_owned());
        let thread =
            name.spawn(move || carry::serve(listener, tls, &config, &known, shared, taken));
        Self {
            address,
            authority: authority.pem(),
            token,
            folder: Folder::new(),
            state,
            orders: Some(orders),
            thread: Some(thread.expect("a thread for the proxy")),
        }
    }

    /// A kubeconfig that leads through the proxy, as whoever may do everything.
    pub fn kubeconfig(&self) -> PathBuf {
        self.kubeconfig_with_token(&self.token)
    }

    /// A kubeconfig that leads through the proxy, as whoever has `token`.
    pub fn kubeconfig_with_token(&self, token: &str) -> PathBuf {
        let user = User::Token(token);
        let text = apiserver::kubeconfig(self.address, &self.authority, &user);
        let name = format!("{}.kubeconfig", apiserver::unique("user"));
        self.folder.write(&name, text)
    }

    /// How `kube` is to reach it, as whoever may do everything.
    ///
    /// # Panics
    /// If its kubeconfig cannot be read.
    pub fn config(&self) -> Config {
        apiserver::read(&self.kubeconfig()).unwrap_or_else(|error| panic!("{error}"))
    }

    /// A client of the runtime that this is called in, as whoever may do everything.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn client(&self) -> Client {
        Client::try_from(self.config()).expect("a client of a kubeconfig that was just written")
    }

    /// From now on `fault` happens to all of `requests`, until it is lifted. Of several faults the first that fits happens.
    pub fn fail(&self, requests: Requests, fault: Fault) {
        self.fail_times(u64::MAX, requests, fault);
    }

    /// `fault` happens to the next `times` of `requests`.
    pub fn fail_times(&self, times: u64, requests: Requests, fault: Fault) {
        lock(&self.state.faults).push(Standing {
            requests,
            fault,
            left: times,
        });
    }

    /// Lifts all faults; what hangs goes on.
    pub fn lift(&self) {
        lock(&self.state.faults).clear();
        self.change(|orders| orders.lifted += 1);
    }

    /// Ends all connections that are open, watches among them; new ones are taken.
    pub fn cut(&self) {
        self.change(|orders| orders.cuts += 1);
    }

    /// The requests that came by and were answered, or cut, in the order of that; a watch counts when it begins.
    pub fn seen(&self) -> Vec<Seen> {
        lock(&self.state.seen).clone()
    }

    /// How many of `requests` have come by.
    pub fn count(&self, requests: &Requests) -> usize {
        let seen = lock(&self.state.seen);
        seen.iter().filter(|seen| requests.includes(seen)).count()
    }

    fn change(&self, change: impl FnOnce(&mut Orders)) {
        if let Some(orders) = &self.orders {
            orders.send_modify(change);
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        drop(self.orders.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl State {
    /// The fault for a request, which is used up once.
    fn next_fault(&self, seen: &Seen) -> Option<Fault> {
        let mut faults = lock(&self.faults);
        let at = faults.iter().position(|one| one.requests.includes(seen))?;
        let fault = faults[at].fault.clone();
        faults[at].left -= 1;
        if faults[at].left == 0 {
            faults.remove(at);
        }
        Some(fault)
    }

    fn remember(&self, seen: Seen) {
        let mut all = lock(&self.seen);
        if all.len() == REMEMBERED {
            all.drain(..REMEMBERED / 2);
        }
        all.push(seen);
    }
}

/// What a panic left behind is whole: nothing here is changed in several steps.
fn lock<T: fmt::Debug>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
