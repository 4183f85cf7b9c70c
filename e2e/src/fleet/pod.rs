//! One pod's sidecar: a real process whose submissions can be refused, or a stub. It owns the process, its volumes, and a client whose
//! message waits while the kernel refuses.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use ringside::backend::inject::{Errno, Syscalls};
use ringside_tests::metrics::Metrics;
use ringside_tests::processes::Process;
use ringside_tests::setup::program;
use ringside_tests::traffic::{Pattern, Server, Stream};
use ringside_tests::{await_some, await_that, http};
use serde_json::Value;
use tempfile::TempDir;
use tokio::runtime::Handle;

use super::stub::{Speaker, Stub};

/// How long submissions are refused unless the pressure is taken away.
const PRESSURE: Duration = Duration::from_secs(900);

/// The bytes of a message.
const MESSAGE: u64 = 100;

/// What a pod has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `ringside relay`, with io_uring.
    Real,
    /// A stub.
    Stubbed,
}

/// A pod's sidecar.
pub enum Member {
    /// A stub.
    Stubbed(Stub),
    /// A process.
    Real(Box<Real>),
}

impl Member {
    pub(super) fn start(
        kind: Kind,
        speaker: Speaker,
        runtime: &Handle,
        application: &Server,
    ) -> Self {
        match kind {
            Kind::Stubbed => Self::Stubbed(Stub::start(runtime, &speaker)),
            Kind::Real => Self::Real(Box::new(Real::start(speaker, application))),
        }
    }

    pub(super) fn await_ready(&self) {
        if let Self::Real(real) = self {
            await_that("a sidecar to be ready", || {
                http::get(real.admin(), "/readyz").is_ok_and(|answer| answer.status == 200)
            });
        }
    }

    /// Puts it under pressure, or takes that away.
    pub fn press(&mut self, pressed: bool) {
        match self {
            Self::Stubbed(stub) => stub.process().press(pressed),
            Self::Real(real) => real.press(pressed),
        }
    }

    /// Whether it holds a permit.
    pub fn has_permit(&self) -> bool {
        match self {
            Self::Stubbed(stub) => stub.process().has_permit(),
            Self::Real(real) => real.metric("ringside_leave_permit") == 1.0,
        }
    }

    /// The stub, if it is one.
    pub fn stub(&self) -> Option<&Stub> {
        match self {
            Self::Stubbed(stub) => Some(stub),
            Self::Real(_) => None,
        }
    }

    /// The process, if it is one.
    pub fn real(&self) -> Option<&Real> {
        match self {
            Self::Stubbed(_) => None,
            Self::Real(real) => Some(real),
        }
    }

    /// The same, to restart it.
    pub fn real_mut(&mut self) -> Option<&mut Real> {
        match self {
            Self::Stubbed(_) => None,
            Self::Real(real) => Some(real),
        }
    }
}

/// A real sidecar.
pub struct Real {
    speaker: Speaker,
    target: String,
    running: Running,
    /// Whose message waits while it is under pressure.
    client: Option<Stream>,
    /// They outlive the process, as a pod's volumes outlive a container.
    volumes: TempDir,
}

/// Its process, and where it is reached.
struct Running {
    process: Process,
    admin: SocketAddr,
    listen: SocketAddr,
}

impl Running {
    fn start(speaker: &Speaker, target: &str, volumes: &Path) -> Self {
        let process = Process::start_watched("a sidecar", Some(Syscalls::Submissions), |folder| {
            let mut command = Command::new(program());
            let pod = &speaker.pod;
            let address = speaker.connect_to.to_string();
            command
                .args(["relay", "--backend", "ring", "--workers", "1"])
                .args(["--relay", &format!("web=127.0.0.1:0:{target}")])
                .args(["--admin", "127.0.0.1:0", "--log-level", "warn"])
                .args(["--controller", &format!("https://{address}")])
                .args(["--controller-address", &address])
                .args(["--pod-name", &pod.name, "--pod-namespace", &pod.namespace])
                .args(["--pod-uid", &pod.uid])
                .arg("--pod-files")
                .arg(volumes.join("files"))
                .arg("--state")
                .arg(volumes.join("state"))
                .arg("--admin-port-file")
                .arg(folder.join("admin"));
            command
        });
        let admin: SocketAddr = await_some("a sidecar's admin port", || {
            let text = fs::read_to_string(process.folder().join("admin")).ok()?;
            text.trim().parse().ok()
        });
        let status = http::get(admin, "/statusz").expect("a sidecar's status");
        let status: Value = serde_json::from_str(&status.body).expect("JSON");
        let listen = status["relays"][0]["listen"][0].as_str();
        let listen: SocketAddr = listen
            .and_then(|text| text.parse().ok())
            .unwrap_or_else(|| panic!("it listens nowhere: {status}"));
        Self {
            process,
            admin,
            listen,
        }
    }
}

impl Real {
    fn start(speaker: Speaker, application: &Server) -> Self {
        let volumes = tempfile::tempdir().expect("a folder for a pod");
        speaker.write(volumes.path());
        let target = application.target();
        Self {
            running: Running::start(&speaker, &target, volumes.path()),
            speaker,
            target,
            client: None,
            volumes,
        }
    }

    /// Kills its process and starts another one, as a kubelet restarts a container that has ended.
    ///
    /// # Panics
    /// If it does not start.
    #[track_caller]
    pub fn restart(&mut self) {
        self.running.process.signal(libc::SIGKILL);
        self.running.process.await_end();
        self.running = Running::start(&self.speaker, &self.target, self.volumes.path());
        self.client = None;
    }

    /// Where its admin port is.
    pub fn admin(&self) -> SocketAddr {
        self.running.admin
    }

    /// Where it relays.
    pub fn listen(&self) -> SocketAddr {
        self.running.listen
    }

    /// `/config`.
    ///
    /// # Panics
    /// If it does not answer.
    #[track_caller]
    pub fn config(&self) -> Value {
        let answer = http::get(self.admin(), "/config?format=json").expect("an answer");
        serde_json::from_str(&answer.body)
            .unwrap_or_else(|error| panic!("{error}: {}", answer.body))
    }

    /// The sum of a metric.
    ///
    /// # Panics
    /// If it does not answer.
    #[track_caller]
    pub fn metric(&self, name: &str) -> f64 {
        let answer = http::get(self.admin(), "/metrics").expect("a scrape");
        Metrics::parse(&answer.body).sum(name, &[])
    }

    /// Every submission fails with EAGAIN while a message of a client waits; or none does.
    fn press(&mut self, pressed: bool) {
        let injector = self.running.process.injector();
        if !pressed {
            injector.stop();
            self.client = None;
        } else if self.client.is_none() {
            let pattern = Pattern::new(1);
            let client =
                Stream::connect(self.running.listen).expect("a connection through a sidecar");
            let first = client.ping(pattern, 0, MESSAGE);
            first.expect("an answer through a sidecar");
            injector.fail_for(PRESSURE, Errno::EAGAIN);
            let sent = client.send(pattern, MESSAGE, 2 * MESSAGE, 100);
            sent.expect("a message is sent");
            self.client = Some(client);
        }
    }
}
