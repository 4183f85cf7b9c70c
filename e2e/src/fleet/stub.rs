//! A sidecar without a relay: it speaks with the controller by the sidecar's own code, and decides on leaving by the sidecar's own
//! code; only its pressure is what a test says.
//!
//! So fifty of them cost what one relay costs. It owns its volumes and the task that speaks; it relays nothing.

use std::fs;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ringside::pressure::leave::{Leaving, Rule, Stand};
use ringside::settings::Assignment;
use ringside::settings::controller::{Controller, Host, Look, Outcome, View, first, work};
use ringside::time::Time;
use ringside_api::sync::{Leave, PodIdentity, RefusedOffer, State};
use tempfile::TempDir;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

/// How a sidecar reaches its controller, and who it is.
#[derive(Clone, Debug)]
pub struct Speaker {
    /// Who it is.
    pub pod: PodIdentity,
    /// Its token.
    pub token: String,
    /// The certificates that it trusts the controller by.
    pub ca: String,
    /// Where it connects.
    pub connect_to: SocketAddr,
}

impl Speaker {
    /// Writes the pod's volumes into `folder`.
    ///
    /// # Panics
    /// If they cannot be written.
    pub fn write(&self, folder: &std::path::Path) {
        let files = folder.join("files");
        for volume in [&files, &folder.join("state")] {
            fs::create_dir_all(volume).expect("a volume");
        }
        fs::write(files.join("token"), &self.token).expect("a token");
        fs::write(files.join("ca.pem"), &self.ca).expect("certificates");
    }
}

/// How a stub lives.
#[derive(Clone, Copy, Debug)]
pub struct Manner {
    /// How often it sees whether something has to be told at once.
    pub looks_every: Duration,
    /// Whether it has a volume to keep what it was told. Thousands would write to one disk what they write to as many.
    pub keeps: bool,
}

impl Default for Manner {
    /// As a real one.
    fn default() -> Self {
        Self {
            looks_every: Duration::from_millis(50),
            keeps: true,
        }
    }
}

/// A stubbed sidecar, silent when dropped.
#[derive(Debug)]
pub struct Stub {
    process: Arc<Stubbed>,
    task: JoinHandle<()>,
    _volumes: TempDir,
}

/// What of a process the controller's code sees.
#[derive(Debug)]
pub struct Stubbed {
    epoch: Instant,
    leaving: Mutex<Leaving>,
    is_pressed: AtomicBool,
    /// Leaves without asking, as no sidecar should.
    is_lawless: AtomicBool,
    /// Whether it would be ready without pressure.
    is_ready: AtomicBool,
    looks_every: Duration,
    runs: Mutex<Runs>,
    view: View,
}

/// What runs, and what was refused.
#[derive(Debug, Default)]
struct Runs {
    assignment: Option<Assignment>,
    /// Since when it runs that.
    since: Option<Instant>,
    refused: Option<RefusedOffer>,
}

impl Stub {
    /// Starts to speak, on `runtime`.
    ///
    /// # Panics
    /// Without a folder.
    pub fn start(runtime: &Handle, speaker: &Speaker) -> Self {
        Self::start_as(runtime, speaker, Manner::default())
    }

    /// As [`start`](Self::start), in another manner.
    ///
    /// # Panics
    /// Without a folder.
    pub fn start_as(runtime: &Handle, speaker: &Speaker, manner: Manner) -> Self {
        let volumes = tempfile::tempdir().expect("a folder for a pod");
        speaker.write(volumes.path());
        let controller = Controller {
            address: format!("https://127.0.0.1:{}", speaker.connect_to.port())
                .parse()
                .expect("an address"),
            connect_to: Some(speaker.connect_to),
            pod: speaker.pod.clone(),
            pod_files: volumes.path().join("files"),
            state: manner.keeps.then(|| volumes.path().join("state")),
        };
        let kept = first(&controller).kept;
        let process = Arc::new(Stubbed {
            epoch: Instant::now(),
            leaving: Mutex::new(Leaving::new(Rule::Asked, kept.permit)),
            is_pressed: AtomicBool::new(false),
            is_lawless: AtomicBool::new(false),
            is_ready: AtomicBool::new(true),
            looks_every: manner.looks_every,
            runs: Mutex::default(),
            view: View::default(),
        });
        let task = runtime.spawn(work(controller, kept, process.clone()));
        Self {
            process,
            task,
            _volumes: volumes,
        }
    }

    /// What of it can be asked from anywhere.
    pub fn process(&self) -> Arc<Stubbed> {
        self.process.clone()
    }
}

impl Drop for Stub {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Stubbed {
    /// Whether it is under sustained pressure from now on.
    pub fn press(&self, pressed: bool) {
        self.is_pressed.store(pressed, Ordering::SeqCst);
    }

    /// From now on it leaves under pressure whatever it may.
    pub fn break_the_law(&self) {
        self.is_lawless.store(true, Ordering::SeqCst);
    }

    /// Whether its probe would say now that it is not ready.
    pub fn is_away(&self) -> bool {
        matches!(self.stand(), Stand::Away(_))
    }

    /// Whether it holds a permit.
    pub fn has_permit(&self) -> bool {
        self.leaving().permit()
    }

    /// Whether it runs what it was last offered.
    pub fn runs_an_offer(&self) -> bool {
        self.runs_since().is_some()
    }

    /// Since when it has run what it runs; `None` while it runs nothing.
    pub fn runs_since(&self) -> Option<Instant> {
        self.lock_runs().since
    }

    /// Since when its connection is there.
    pub fn connected_since(&self) -> Option<Instant> {
        let (_, since) = self.view.seen().connected?;
        Some(self.epoch + Duration::from_nanos(since.as_nanos()))
    }

    /// How often a call came out so.
    pub fn calls(&self, outcome: Outcome) -> u64 {
        self.view.calls(outcome)
    }

    /// Ready, or not any more, for another reason than pressure.
    pub fn flip(&self) {
        self.is_ready.fetch_xor(true, Ordering::SeqCst);
    }

    fn stand(&self) -> Stand {
        let pressed = self.is_pressed.load(Ordering::SeqCst);
        let now = self.now();
        let stand = self.leaving().judge(pressed, now);
        if pressed && self.is_lawless.load(Ordering::SeqCst) {
            return Stand::Away(ringside::pressure::leave::By::Own);
        }
        stand
    }

    fn is_ready(&self) -> bool {
        self.is_ready.load(Ordering::SeqCst)
    }

    fn lock_runs(&self) -> MutexGuard<'_, Runs> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn leave(stand: &Stand) -> Leave {
    match stand {
        Stand::Stays => Leave::Stays,
        Stand::Wants(_) => Leave::Wants,
        Stand::Away(_) => Leave::Away,
    }
}

impl Host for Stubbed {
    fn now(&self) -> Time {
        Time::ZERO.saturating_add(self.epoch.elapsed())
    }

    fn look_every(&self) -> Duration {
        self.looks_every
    }

    fn look(&self) -> Look {
        let leave = leave(&self.stand());
        Look {
            ready: leave != Leave::Away && self.is_ready(),
            cause: match leave {
                Leave::Stays if self.is_ready() => "ready",
                Leave::Stays => "flipped",
                _ => "pressed",
            },
            leave,
            backend: "ring",
            draining: false,
        }
    }

    fn state(&self) -> State {
        let leave = leave(&self.stand());
        State {
            ready: leave != Leave::Away && self.is_ready(),
            leave,
            pushback_percent: if leave == Leave::Stays { 0 } else { 100 },
            pushed_back_for_millis: (leave != Leave::Stays).then_some(300),
            backend: "ring".to_owned(),
            ..State::default()
        }
    }

    fn leaving(&self) -> MutexGuard<'_, Leaving> {
        self.leaving.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn runs(&self) -> (String, Option<RefusedOffer>) {
        let runs = self.lock_runs();
        let hash = runs.assignment.as_ref();
        let hash = hash.map(|runs| runs.assigned.hash.clone());
        (hash.unwrap_or_default(), runs.refused.clone())
    }

    fn take(&self, offered: Result<Assignment, RefusedOffer>) -> bool {
        let mut runs = self.lock_runs();
        match offered {
            Ok(offered) => {
                let hash = |runs: &Assignment| runs.assigned.hash.clone();
                if runs.assignment.as_ref().map(hash) != Some(hash(&offered)) {
                    runs.since = Some(Instant::now());
                }
                runs.assignment = Some(offered);
                runs.refused = None;
                true
            }
            Err(refused) => {
                runs.refused = Some(refused);
                false
            }
        }
    }

    fn count_descriptors(&self, _by: i32) {}

    fn view(&self) -> &View {
        &self.view
    }
}
