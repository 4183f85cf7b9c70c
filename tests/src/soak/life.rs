//! One relay process of a soak: started with the soak's settings, given its faults, brought to calm points.
//!
//! It owns the process; its log is kept when it ends, however it ends.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use ringside::backend::inject::Syscalls;
use serde_json::{Value, json};

use super::judging::{POOL_BYTES, Reading};
use super::plan::{Fault, Way};
use crate::processes::await_listening;
use crate::relay::{Kind, Relay, Route, Setup};
use crate::{PATIENCE, await_some, await_that};

/// What every process is started with.
#[derive(Debug, Clone)]
pub struct Terms {
    /// Which backend.
    pub kind: Kind,
    /// How many workers.
    pub workers: u32,
    /// Where it listens.
    pub listen: SocketAddr,
    /// Where the application is.
    pub target: SocketAddr,
    /// Where logs are kept.
    pub folder: PathBuf,
}

/// How many readings are taken at a calm point, and how far apart.
const READINGS: u32 = 5;
const READING_PAUSE: Duration = Duration::from_millis(150);

/// Settings of calm points. Quick to notice and quick to recover, as a soak has little time; and a pool that is small enough
/// to have grown to its limit when the warm-up is over.
fn settings(more: &Value) -> Value {
    let mut settings = json!({
        "timeouts": {"drain": "1500ms", "drainNotice": "200ms"},
        "readiness": {"unreadyAfter": "300ms", "recoverAfter": "1s"},
        "targetCheck": {"interval": "200ms"},
        "buffers": {"pool": POOL_BYTES.to_string()},
    });
    for (group, fields) in more.as_object().into_iter().flatten() {
        for (name, value) in fields.as_object().into_iter().flatten() {
            settings[group][name] = value.clone();
        }
    }
    settings
}

/// A running process.
#[derive(Debug)]
pub struct Life {
    /// Which one, from 1 on.
    pub number: u32,
    relay: Relay,
    log: PathBuf,
    changes: u32,
    is_watched: bool,
    /// Whether its state is worth keeping at its end: something went wrong.
    pub is_suspect: bool,
}

impl Life {
    /// Starts a process and waits until it listens. Every second one reads its configuration through symlinks, as from a
    /// ConfigMap.
    #[track_caller]
    pub fn start(terms: &Terms, number: u32) -> Self {
        let route = Route::new("web", &terms.target.to_string());
        let mut setup = Setup::new(terms.kind)
            .route(route.listening(&terms.listen.to_string()))
            .settings(settings(&Value::Null))
            .workers(terms.workers);
        let is_watched = terms.kind != Kind::Epoll;
        if is_watched {
            setup = setup.watched(Syscalls::Submissions);
        }
        if number.is_multiple_of(2) {
            setup = setup.mounted();
        }
        let relay = setup.start();
        await_listening(terms.listen);
        Self {
            number,
            relay,
            log: terms.folder.join(format!("relay-{number}.log")),
            changes: 0,
            is_watched,
            is_suspect: false,
        }
    }

    /// Where its admin port is.
    pub fn admin(&self) -> SocketAddr {
        self.relay.admin_address()
    }

    /// Does what has no need of another process or of the application, and returns when it is over.
    #[track_caller]
    pub fn undergo(&mut self, fault: &Fault) {
        match fault {
            Fault::Refuse(count, errno) => {
                let before = self.relay.injector().counts().failed;
                self.relay.injector().fail_next(*count, *errno);
                // Under backoff they may take longer than there is time for; then it is over early.
                let patience = Duration::from_secs(2);
                self.relay.injector().wait_failed(before + count, patience);
                self.relay.injector().stop();
            }
            Fault::Storm(time, errno) => {
                self.relay.injector().fail_for(*time, *errno);
                thread::sleep(*time);
                self.relay.injector().stop();
            }
            Fault::Interrupt(count) => {
                for _ in 0..*count {
                    self.relay.process().signal(libc::SIGSTOP);
                    self.relay.process().signal(libc::SIGCONT);
                    thread::sleep(Duration::from_millis(2));
                }
            }
            Fault::Signals(count) => {
                for _ in 0..*count {
                    for signal in [libc::SIGWINCH, libc::SIGCHLD, libc::SIGURG, libc::SIGCONT] {
                        self.relay.process().signal(signal);
                    }
                }
            }
            Fault::Stop(time) => {
                self.relay.process().signal(libc::SIGSTOP);
                thread::sleep(*time);
                self.relay.process().signal(libc::SIGCONT);
            }
            Fault::Settings(more) => self.change(more),
            Fault::InvalidSettings(text) => {
                let errors = self.relay.metric("settings_errors_total", &[]);
                let generation = self.relay.metric("settings_generation", &[]);
                self.relay.write_config(text);
                self.relay
                    .await_metric("settings_errors_total", &[], |count| count > errors);
                let now = self.relay.metric("settings_generation", &[]);
                assert_eq!(now, generation, "an invalid document changed settings");
                self.relay.reconfigure(|setup| setup);
            }
            Fault::TargetAway(_) | Fault::Restart(_) => {
                unreachable!("{fault:?} is not for the process alone")
            }
        }
    }

    /// Replaces the file and waits until it is in effect.
    #[track_caller]
    fn change(&mut self, more: &Value) {
        let generation = self.relay.metric("settings_generation", &[]);
        let mut settings = settings(more);
        // A document that changes nothing is no event to wait for.
        self.changes += 1;
        settings["accessLog"]["maxPerSecond"] = json!(50 + self.changes % 40);
        self.relay.reconfigure(|setup| setup.settings(settings));
        self.relay
            .await_metric("settings_generation", &[], |now| now > generation);
    }

    /// Ends it in a way, and waits for that. A drain must end by itself, with code 0.
    #[track_caller]
    pub fn end(mut self, way: Way) {
        match way {
            Way::Kill => return,
            Way::Terminate => self.relay.process().signal(libc::SIGTERM),
            Way::DrainRequest => {
                let answer = self
                    .relay
                    .admin("POST", "/drain")
                    .expect("the admin port answers");
                assert!((200..300).contains(&answer.status), "{answer:?}");
            }
        }
        let status = self.relay.process_mut().await_end();
        assert_eq!(status.code(), Some(0), "the end of a drain");
    }

    /// With no client left: the first settings again, no connection, ready. Checks that every connection has a counted
    /// reason, and only `explained` ones but those that clients and the application make; returns what the relay holds.
    #[track_caller]
    pub fn calm(&mut self, explained: &[&str], now: impl Fn() -> Duration) -> (Reading, Counted) {
        if self.is_watched {
            self.relay.injector().stop();
        }
        self.relay.settle();
        // Pipes that nobody uses are kept for later, as many as were ever in use at once: closed for the reading.
        self.change(&json!({"buffers": {"pipes": 0}}));
        await_that("the relay to be ready at a calm point", || {
            self.relay.ready()
        });
        let counted = self.counted();
        for (reason, count) in &counted.0 {
            let is_usual =
                ["finished", "client_reset", "upstream_reset"].contains(&reason.as_str());
            assert!(
                is_usual || explained.contains(&reason.as_str()),
                "{count} connections were ended as {reason}, and no fault of this process explains it"
            );
        }
        let reading = self.reading(&now);
        self.change(&Value::Null);
        (reading, counted)
    }

    /// Connections that have ended so far, by reason.
    #[track_caller]
    fn counted(&self) -> Counted {
        let metrics = self.relay.metrics();
        let samples = metrics.matching("ringside_connections_closed_total", &[]);
        let mut counted = Counted::default();
        for sample in samples.filter(|sample| sample.value > 0.0) {
            let reason = sample.labels.get("reason").cloned().unwrap_or_default();
            *counted.0.entry(reason).or_default() += sample.value as u64;
        }
        counted
    }

    /// The least of a few readings: the reading itself, and whoever else looks, takes a descriptor and a buffer.
    #[track_caller]
    fn reading(&self, now: &impl Fn() -> Duration) -> Reading {
        let begin = Instant::now();
        let readings = (1..=READINGS).map(|number| {
            await_some("the next reading", || {
                (begin.elapsed() >= number * READING_PAUSE).then_some(())
            });
            let metrics = self.relay.metrics();
            Reading {
                life: self.number,
                at: now(),
                resident_bytes: metrics.sum("process_resident_memory_bytes", &[]) as u64,
                pool_bytes: metrics.sum("ringside_buffer_pool_bytes", &[("state", "allocated")])
                    as u64,
                descriptors: metrics.sum("process_open_fds", &[]) as u64,
            }
        });
        let all: Vec<Reading> = readings.collect();
        let least = |of: fn(&Reading) -> u64| all.iter().map(of).min().unwrap_or(0);
        Reading {
            life: self.number,
            at: now(),
            resident_bytes: least(|reading| reading.resident_bytes),
            pool_bytes: least(|reading| reading.pool_bytes),
            descriptors: least(|reading| reading.descriptors),
        }
    }
}

/// Connections that ended, by reason.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counted(pub std::collections::BTreeMap<String, u64>);

impl Counted {
    /// How many ended for one of these reasons.
    pub fn of(&self, reasons: &[&str]) -> u64 {
        let named = self
            .0
            .iter()
            .filter(|(name, _)| reasons.contains(&name.as_str()));
        named.map(|(_, count)| count).sum()
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        // Without them the log and the state are lost, and nothing else.
        let _ = fs::write(&self.log, self.relay.process().log());
        if self.is_suspect {
            for path in ["/statusz", "/metrics"] {
                if let Ok(answer) = self.relay.admin("GET", path) {
                    let name = format!("relay-{}{}", self.number, path.replace('/', "-"));
                    let _ = fs::write(self.log.with_file_name(name), answer.body);
                }
            }
        }
    }
}

/// How long a crowd may take to come to rest: longer than its slowest scripts, a stalled relay and a drain together.
pub const REST: Duration = PATIENCE;
