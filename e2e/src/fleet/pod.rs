//! One pod's sidecar: a real process whose submissions can be refused, or a stub. It owns the process, its volumes, and a client whose
//! message waits while the kernel refuses.

use std::fs;
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use ringside::backend::inject::{Errno, Syscalls};
use ringside_tests::metrics::Metrics;
use ringside_tests::processes::Process;
use ringside_tests::setup::program;
use ringside_tests::traffic::{Pattern, Server, Stream};
use ringside_tests::{await_some, await_that, http};
use serde_json::Value;
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
            Kind::Real => Self::Real(Box::new(Real::start(&speaker, application))),
        }
    }

    pub(super) fn await_ready(&self) {
        if let Self::Real(real) = self {
            await_that("a sidecar to be ready", || {
                http::get(real.admin, "/readyz").is_ok_and(|answer| answer.status == 200)
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
}

/// A real sidecar.
pub struct Real {
    process: Process,
    admin: SocketAddr,
    listen: SocketAddr,
    client: Stream,
    /// Bytes that the client has sent, and those of them that have come back.
    sent: u64,
    received: u64,
}

impl Real {
    fn start(speaker: &Speaker, application: &Server) -> Self {
        let process = Process::start_watched("a sidecar", Some(Syscalls::Submissions), |folder| {
            speaker.write(folder);
            let mut command = Command::new(program());
            let pod = &speaker.pod;
            let address = speaker.connect_to.to_string();
            let target = application.target();
            command
                .args(["relay", "--backend", "ring", "--workers", "1"])
                .args(["--relay", &format!("web=127.0.0.1:0:{target}")])
                .args(["--admin", "127.0.0.1:0", "--log-level", "warn"])
                .args(["--controller", &format!("https://{address}")])
                .args(["--controller-address", &address])
                .args(["--pod-name", &pod.name, "--pod-namespace", &pod.namespace])
                .args(["--pod-uid", &pod.uid])
                .arg("--pod-files")
                .arg(folder.join("files"))
                .arg("--state")
                .arg(folder.join("state"))
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
        let client = Stream::connect(listen).expect("a connection through a sidecar");
        client
            .ping(Pattern::new(1), 0, MESSAGE)
            .expect("an answer through a sidecar");
        Self {
            process,
            admin,
            listen,
            client,
            sent: MESSAGE,
            received: MESSAGE,
        }
    }

    /// Where its admin port is.
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// Where it relays.
    pub fn listen(&self) -> SocketAddr {
        self.listen
    }

    fn metric(&self, name: &str) -> f64 {
        let answer = http::get(self.admin, "/metrics").expect("a scrape");
        Metrics::parse(&answer.body).sum(name, &[])
    }

    /// Every submission fails with EAGAIN while a message of a client waits; or they succeed, and the message comes back.
    fn press(&mut self, pressed: bool) {
        let pattern = Pattern::new(1);
        let is_pressed = self.sent > self.received;
        if pressed && !is_pressed {
            self.process.injector().fail_for(PRESSURE, Errno::EAGAIN);
            let to = self.sent + MESSAGE;
            let sent = self.client.send(pattern, self.sent, to, 100);
            sent.expect("a message is sent");
            self.sent = to;
        } else if !pressed && is_pressed {
            self.process.injector().stop();
            let received = self.client.receive(pattern, self.received, self.sent);
            received.expect("the message comes back once the kernel takes submissions");
            self.received = self.sent;
        }
    }
}
