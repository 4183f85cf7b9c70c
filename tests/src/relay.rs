//! The relay under test: started with what a test asks for, asked what it sees, ended when dropped.
//!
//! It is the one place that knows how a relay tells that it is ready and where its admin port is. `Kind::Reference`
//! runs HAProxy in its place; then there are no metrics, and checks of them hold by themselves.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::process::ExitStatus;
use std::thread;
use std::time::Duration;

use ringside::backend::inject::Injector;
use serde_json::Value;

use crate::configuration;
use crate::http::{self, Answer};
use crate::metrics::Metrics;
use crate::processes::{Process, await_listening, installed};
pub use crate::setup::{Kind, Route, Setup, program};
use crate::traffic::Stream;
use crate::{PATIENCE, await_some, await_that, namespace, reference};

/// Runs a test's `body` with one kind of relay in a namespace of its own; skipped where that relay is not installed.
pub fn run_on(kind: Kind, test: &'static str, body: fn(Kind)) {
    if kind != Kind::Reference || installed(test, &[reference::PROGRAM]) {
        namespace::run(test, move || body(kind));
    }
}

/// Makes each named function, which takes a [`Kind`], a test for each relay: `everywhere` ones for Ringside's
/// backends and for HAProxy, `ringside` ones for what HAProxy cannot or need not do, `io_uring` ones for the backends
/// that use it.
#[macro_export]
macro_rules! instances {
    (everywhere: [$($every:ident),* $(,)?], ringside: [$($own:ident),* $(,)?] $(,)?) => {
        $crate::instances! { everywhere: [$($every),*], ringside: [$($own),*], io_uring: [] }
    };
    (everywhere: [$($every:ident),* $(,)?], ringside: [$($own:ident),* $(,)?],
     io_uring: [$($uring:ident),* $(,)?] $(,)?) => {
        mod ring {
            $($crate::instances!(@one Ring $every);)*
            $($crate::instances!(@one Ring $own);)*
            $($crate::instances!(@one Ring $uring);)*
        }
        mod epoll {
            $($crate::instances!(@one Epoll $every);)*
            $($crate::instances!(@one Epoll $own);)*
        }
        mod tokio_uring {
            $($crate::instances!(@one TokioUring $every);)*
            $($crate::instances!(@one TokioUring $own);)*
            $($crate::instances!(@one TokioUring $uring);)*
        }
        mod reference {
            $($crate::instances!(@one Reference $every);)*
        }
    };
    (@one $kind:ident $name:ident) => {
        #[test]
        fn $name() {
            let test = concat!(module_path!(), "::", stringify!($name));
            $crate::relay::run_on($crate::relay::Kind::$kind, test, super::$name);
        }
    };
}

impl Setup {
    fn launch(&self) -> (Process, Vec<SocketAddr>) {
        let mut addresses = Vec::new();
        let process = Process::start_watched("the relay", self.watched, |folder| {
            let (command, known) = self.prepare(folder);
            addresses = known;
            command
        });
        (process, addresses)
    }

    /// Starts it and waits until it is ready.
    #[track_caller]
    pub fn start(self) -> Relay {
        let (mut process, addresses) = self.launch();
        if self.kind == Kind::Reference {
            for address in &addresses {
                await_listening(*address);
            }
            let listening = self
                .routes
                .iter()
                .map(|route| route.name.clone())
                .zip(addresses)
                .collect();
            return Relay {
                setup: self,
                process,
                admin: None,
                listening,
            };
        }
        let file = process.folder().join("admin-port");
        let admin = await_some("the relay's admin port", || {
            let ended = process.ended();
            assert!(
                ended.is_none(),
                "the relay ended ({ended:?}) before it was ready"
            );
            let text = fs::read_to_string(&file).ok()?;
            let mut admin: SocketAddr = text.trim().parse().ok()?;
            if admin.ip().is_unspecified() {
                // Both families, of which IPv6 may be switched off.
                admin.set_ip([127, 0, 0, 1].into());
            }
            Some(admin)
        });
        let mut relay = Relay {
            setup: self,
            process,
            admin: Some(admin),
            listening: Vec::new(),
        };
        await_that("the relay to be ready", || relay.ready());
        relay.look();
        relay
    }

    /// Starts it and waits until it has ended, as it must; returns how, and what it said.
    #[track_caller]
    pub fn start_in_vain(self) -> (ExitStatus, String) {
        let (mut process, _) = self.launch();
        let status = process.await_end();
        (status, process.log())
    }
}

/// A running relay.
#[derive(Debug)]
pub struct Relay {
    setup: Setup,
    process: Process,
    admin: Option<SocketAddr>,
    listening: Vec<(String, SocketAddr)>,
}

impl Relay {
    /// Asks again where its routes listen, as after a reload.
    #[track_caller]
    pub fn look(&mut self) {
        let status = self.status();
        let relays = status["relays"]
            .as_array()
            .unwrap_or_else(|| panic!("/statusz names no relays: {status}"));
        let listening = relays.iter().flat_map(|relay| {
            let name = relay["name"].as_str().unwrap_or_default();
            let addresses = relay["listen"].as_array().cloned().unwrap_or_default();
            addresses
                .into_iter()
                .filter_map(move |text| Some((name.to_owned(), text.as_str()?.parse().ok()?)))
        });
        self.listening = listening.collect();
    }

    /// The process.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// The process, to wait for its end.
    pub fn process_mut(&mut self) -> &mut Process {
        &mut self.process
    }

    /// What orders its faults.
    pub fn injector(&self) -> &Injector {
        self.process.injector()
    }

    /// Where route `name` listens.
    #[track_caller]
    pub fn address_of(&self, name: &str) -> SocketAddr {
        let found = self.listening.iter().find(|(found, _)| found == name);
        let Some(&(_, mut address)) = found else {
            panic!("route `{name}` listens nowhere: {:?}", self.listening)
        };
        if address.ip().is_unspecified() {
            address.set_ip(if address.is_ipv6() {
                [0, 0, 0, 0, 0, 0, 0, 1].into()
            } else {
                [127, 0, 0, 1].into()
            });
        }
        address
    }

    /// Where the first route listens.
    #[track_caller]
    pub fn address(&self) -> SocketAddr {
        self.address_of(&self.setup.routes[0].name)
    }

    /// Connects to the first route.
    #[track_caller]
    pub fn connect(&self) -> Stream {
        self.connect_to(self.address())
    }

    /// Connects to an address of the relay.
    #[track_caller]
    pub fn connect_to(&self, address: SocketAddr) -> Stream {
        Stream::connect(address)
            .unwrap_or_else(|error| panic!("no connection to the relay at {address}: {error}"))
    }

    /// Connects to the first route and expects a reset, which may come before the connecting is over.
    #[track_caller]
    pub fn expect_turned_away(&self) {
        Stream::expect_turned_away(Stream::connect(self.address()));
    }

    /// Whether it has an admin port, with metrics to check.
    pub fn tells(&self) -> bool {
        self.admin.is_some()
    }

    /// Where its admin port is.
    #[track_caller]
    pub fn admin_address(&self) -> SocketAddr {
        self.admin.expect("only Ringside has an admin port")
    }

    /// The admin port's answer.
    ///
    /// # Errors
    /// No connection, as when it has ended.
    pub fn admin(&self, method: &str, path: &str) -> io::Result<Answer> {
        http::ask(self.admin_address(), method, path, "")
    }

    /// Whether `/readyz` says so.
    pub fn ready(&self) -> bool {
        self.admin("GET", "/readyz")
            .is_ok_and(|answer| answer.status == 200)
    }

    /// `/statusz`.
    #[track_caller]
    pub fn status(&self) -> Value {
        let answer = self
            .admin("GET", "/statusz")
            .expect("the admin port answers");
        assert_eq!(answer.status, 200, "{answer:?}");
        serde_json::from_str(&answer.body)
            .unwrap_or_else(|error| panic!("/statusz is no JSON ({error}): {answer:?}"))
    }

    /// A scrape.
    #[track_caller]
    pub fn metrics(&self) -> Metrics {
        let answer = self
            .admin("GET", "/metrics")
            .expect("the admin port answers");
        assert_eq!(answer.status, 200, "{answer:?}");
        Metrics::parse(&answer.body)
    }

    /// The sum of `ringside_NAME` over all samples with these labels.
    #[track_caller]
    pub fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let name = format!("ringside_{name}");
        let metrics = self.metrics();
        assert!(metrics.has(&name), "there is no metric {name}");
        metrics.sum(&name, labels)
    }

    /// Waits until `holds` of a metric.
    #[track_caller]
    pub fn await_metric(&self, name: &str, labels: &[(&str, &str)], holds: impl Fn(f64) -> bool) {
        if self.tells() {
            await_that(&format!("{name}{labels:?} to be as it should"), || {
                holds(self.metric(name, labels))
            });
        }
    }

    /// Waits until `count` connections have ended for `reason`, and checks that it is not more.
    #[track_caller]
    pub fn expect_closed(&self, reason: &str, count: u32) {
        if self.tells() {
            let labels = [("reason", reason)];
            self.await_metric("connections_closed_total", &labels, |value| {
                value >= f64::from(count)
            });
            assert_eq!(
                self.metric("connections_closed_total", &labels),
                f64::from(count),
                "ended as {reason}"
            );
        }
    }

    /// Waits until no connection is open, and checks that every one of them has a counted reason.
    #[track_caller]
    pub fn settle(&self) {
        if self.tells() {
            self.await_metric("connections_open", &[], |open| open == 0.0);
            let metrics = self.metrics();
            let opened = metrics.sum("ringside_connections_opened_total", &[]);
            let closed = metrics.sum("ringside_connections_closed_total", &[]);
            assert_eq!(
                opened, closed,
                "connections opened, and ended with a reason"
            );
        }
    }

    /// Replaces the configuration by a changed setup, at once as `mv` does.
    #[track_caller]
    pub fn reconfigure(&mut self, change: impl FnOnce(Setup) -> Setup) {
        self.setup = change(self.setup.clone());
        let text = self.setup.document().to_string();
        self.write_config(&text);
    }

    /// Replaces the configuration by any text, at once as `mv` does.
    #[track_caller]
    pub fn write_config(&self, text: &str) {
        configuration::write(self.process.folder(), self.setup.mounted, text);
    }

    /// The CPU time that it used during `body`, and what `body` returned.
    #[track_caller]
    pub fn cpu_during<T>(&self, body: impl FnOnce() -> T) -> (Duration, T) {
        let before = self.process.cpu();
        let result = body();
        (self.process.cpu().saturating_sub(before), result)
    }

    /// Waits until no byte has moved in the relay for a moment, as when everything is stalled. `moved` tells how
    /// many have.
    pub fn await_still(&self, mut moved: impl FnMut() -> u64) {
        let mut last = moved();
        await_that("traffic to come to a standstill", || {
            // Standing still is the absence of events: only time can tell.
            thread::sleep(PATIENCE / 100);
            let now = moved();
            let still = now == last;
            last = now;
            still
        });
    }
}
