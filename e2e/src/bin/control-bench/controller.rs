//! The controller as a process of its own: started, asked what it counts, measured from outside, ended. It owns the process.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use ringside_e2e::apiserver::ApiServer;
use ringside_tests::http;
use ringside_tests::metrics::Metrics;
use ringside_tests::processes::{Process, free_port};

/// A controller that answers.
pub(crate) struct Controller {
    process: Process,
    /// Where sidecars and webhooks call.
    pub(crate) tls: SocketAddr,
    http: SocketAddr,
}

/// What a process has used.
pub(crate) struct Usage {
    at: Instant,
    cpu_seconds: f64,
    pub(crate) resident_mib: f64,
    /// At most, since its start.
    pub(crate) resident_most_mib: f64,
}

impl Usage {
    /// The share of a core since another look.
    pub(crate) fn cpu_since(&self, before: &Usage) -> f64 {
        (self.cpu_seconds - before.cpu_seconds) / (self.at - before.at).as_secs_f64()
    }
}

impl Controller {
    /// Starts one and waits until it has read the cluster.
    pub(crate) fn start(server: &ApiServer, release: &str) -> Self {
        let tls = SocketAddr::from(([127, 0, 0, 1], free_port()));
        Self::start_at(server, release, tls)
    }

    /// Starts one that is called where another was.
    pub(crate) fn start_at(server: &ApiServer, release: &str, tls: SocketAddr) -> Self {
        let http = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let process = Process::start("the controller", |_| {
            let mut command = Command::new(program());
            command
                .env("KUBECONFIG", server.kubeconfig())
                .args(["run", "--pod-ip", "127.0.0.1"])
                .args(["--certificate-name", "127.0.0.1", "--webhooks", ""])
                .args(["--listen", &tls.to_string()])
                .args(["--http", &http.to_string()])
                .args(["--service-address", &tls.to_string()])
                .args(["--namespace", release, "--log-level", "warn"]);
            command
        });
        let controller = Self { process, tls, http };
        let begin = Instant::now();
        while !http::get(http, "/readyz").is_ok_and(|answer| answer.status == 200) {
            assert!(
                begin.elapsed() < Duration::from_secs(120),
                "the controller is never ready"
            );
            thread::sleep(Duration::from_millis(50));
        }
        controller
    }

    /// The sum of a metric.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let answer = http::get(self.http, "/metrics").expect("the controller's metrics");
        Metrics::parse(&answer.body).sum(name, &[])
    }

    /// What it has used so far.
    pub(crate) fn usage(&self) -> Usage {
        let path = format!("/proc/{}/status", self.process.pid());
        let status = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        let mib = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<f64>().ok());
            kib.unwrap_or(f64::NAN) / 1024.0
        };
        Usage {
            at: Instant::now(),
            cpu_seconds: self.process.cpu().as_secs_f64(),
            resident_mib: mib("VmRSS:"),
            resident_most_mib: mib("VmHWM:"),
        }
    }

    /// Ends it by a signal and waits for its end.
    pub(crate) fn end(&mut self, signal: i32) {
        self.process.signal(signal);
        self.process.await_end();
    }
}

/// The program beside this one, of the same build.
fn program() -> PathBuf {
    let own = std::env::current_exe().expect("this program's path");
    own.with_file_name("ringside-controller")
}
