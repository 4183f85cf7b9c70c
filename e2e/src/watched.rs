//! An installation as it is watched: a controller, real sidecars with traffic under a policy, and a real Prometheus that scrapes all of
//! them with the shipped rules.
//!
//! It owns the traffic and its clients, which end when it is dropped. What Prometheus should find is the tests' to say.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use ringside_monitoring::rules;
use ringside_tests::http;
use ringside_tests::prometheus::{Prometheus, Target};
use ringside_tests::traffic::{Pattern, Stream};

use crate::apiserver::ApiServer;
use crate::fleet::{Fleet, Kind};
use crate::running::Running;

/// Sidecars: of three one may leave by the policy.
pub const SIDECARS: usize = 3;

/// What all pods are named by, and the policy is called.
pub const APP: &str = "web";

/// How long a client rests between messages: the machine has other things to do.
const REST: Duration = Duration::from_millis(15);

/// What a client with a stream exchanges at once, in bytes: enough for the relay to splice it.
const STREAM_BYTES: u64 = 24 << 20;

/// Messages on a connection before another one is made.
const MESSAGES: u64 = 40;

/// All of it.
pub struct Watched<'s> {
    // Ended in this order: those who look before those who are looked at.
    /// Who scrapes.
    pub prometheus: Prometheus,
    _clients: Clients,
    /// The sidecars.
    pub fleet: Fleet,
    /// The controller.
    pub here: Running<'s>,
}

impl<'s> Watched<'s> {
    /// Starts all, and waits until everything was scraped and the policy is in effect.
    ///
    /// # Panics
    /// If something does not start.
    #[track_caller]
    pub fn start(server: &'s ApiServer) -> Self {
        let here = Running::start(server);
        let mut fleet = Fleet::new(server, &here.shop, &here.ca);
        fleet.add(APP, &[Kind::Real; SIDECARS], here.controller.tls);
        let addresses = fleet.members.values().filter_map(|member| member.real());
        let clients = Clients::start(addresses.map(|real| real.listen()).collect());
        let prometheus = Prometheus::start(&targets(&fleet, &here), rules::TEXT);
        prometheus.await_scrapes(SIDECARS + 1);
        let watched = Self {
            prometheus,
            _clients: clients,
            fleet,
            here,
        };
        watched.apply_policy(128);
        for holds in ["--for=condition=Programmed", "--for=condition=Ready"] {
            let rlp = format!("rlp/{APP}");
            watched
                .here
                .shop
                .kubectl(&["wait", &rlp, holds, "--timeout=60s"]);
        }
        watched
    }

    /// Applies the pods' policy, with this limit of batches.
    ///
    /// # Panics
    /// If the API server does not take it.
    #[track_caller]
    pub fn apply_policy(&self, batch_max: u32) {
        let policy = format!(
            "{{apiVersion: ringside.dev/v1alpha1, kind: RelayPolicy, metadata: {{name: {APP}}}, spec: {{podSelector: {{matchLabels: {{app: \
             {APP}}}}}, batch: {{max: {batch_max}}}, readiness: {{unreadyAfter: 300ms, recoverAfter: 1s, maxUnreadyPercent: 30}}}}}}"
        );
        let shop = &self.here.shop;
        let answer = shop.try_kubectl_with(&["apply", "-f", "-"], &policy);
        assert!(answer.status.success(), "{answer}");
    }

    /// The `/metrics` of each sidecar, and of the controller as the last.
    ///
    /// # Panics
    /// If one does not answer.
    #[track_caller]
    pub fn scrapes(&self) -> Vec<String> {
        let targets = targets(&self.fleet, &self.here);
        let text = |target: &Target| {
            http::get(target.address, "/metrics")
                .expect("a scrape")
                .body
        };
        targets.iter().map(text).collect()
    }
}

fn targets(fleet: &Fleet, here: &Running<'_>) -> Vec<Target> {
    let labels = |namespace: &str, pod: &str| {
        BTreeMap::from([
            ("namespace".to_owned(), namespace.to_owned()),
            ("pod".to_owned(), pod.to_owned()),
        ])
    };
    let members = fleet.members.iter();
    let mut all: Vec<Target> = members
        .filter_map(|(name, member)| {
            Some(Target {
                job: "ringside",
                address: member.real()?.admin(),
                labels: labels(here.shop.name(), name),
            })
        })
        .collect();
    all.push(Target {
        job: "ringside-controller",
        address: here.controller.http,
        labels: labels(here.installation.name(), "controller-1"),
    });
    all
}

/// The names of all samples of a scrape.
pub fn names(scrape: &str) -> BTreeSet<&str> {
    let samples = scrape.lines().filter(|line| !line.starts_with('#'));
    samples
        .filter_map(|line| line.split(['{', ' ']).next())
        .filter(|name| !name.is_empty())
        .collect()
}

/// Clients of each sidecar: messages on connections that come and go, some of them reset, and one stream.
struct Clients(Arc<AtomicBool>);

impl Clients {
    fn start(addresses: Vec<SocketAddr>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        for address in addresses {
            for number in 0..4 {
                let stop = stop.clone();
                thread::spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        // Ended early or refused, as under pushback: it comes again.
                        let _ = connection(address, number, &stop);
                        thread::sleep(REST);
                    }
                });
            }
        }
        Self(stop)
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
        // They end with their connections, which the sidecars end.
    }
}

fn connection(address: SocketAddr, number: u64, stop: &AtomicBool) -> io::Result<()> {
    let stream = Stream::connect(address)?;
    let pattern = Pattern::new(number);
    let told = |trouble| io::Error::other(format!("{trouble}"));
    if number == 0 {
        let bytes = 0..STREAM_BYTES;
        stream
            .exchange(pattern, pattern, bytes, 256 << 10)
            .map_err(told)?;
        thread::sleep(REST * 10);
        return stream.finish();
    }
    for message in 0..MESSAGES {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let at = message * 500;
        stream.ping(pattern, at, at + 500).map_err(told)?;
        thread::sleep(REST);
    }
    if number == 3 {
        return stream.reset();
    }
    stream.finish()
}
