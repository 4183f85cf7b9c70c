//! Connections to an application's own port that come through the relay: real rules in a real kernel, a client in one network,
//! the application and the relay in another, as in a pod.

mod connections;
mod refusals;
mod rules;

use std::process::Command;

use ringside_tests::processes::{Process, command, installed};
use ringside_tests::relay::{Kind, Relay, Route, Setup, program};
use ringside_tests::skip::skip;

/// The application's port.
const PORT: u16 = 8080;

/// The relay's, of which nobody outside is to know.
const RELAY_PORT: u16 = 15080;

const REDIRECT: &str = "8080:15080";

/// Runs `ringside intercept` to its end; what it said, and whether it went well.
fn intercept(arguments: &[&str]) -> (bool, String) {
    let mut process = Process::start("ringside intercept", |_| {
        let mut command = Command::new(program());
        command.arg("intercept").args(arguments);
        command
    });
    let status = process.await_end();
    (status.success(), process.log())
}

/// Has connections redirected in this network.
#[track_caller]
fn redirect(redirects: &str) {
    let (is_done, said) = intercept(&["--redirect", redirects]);
    assert!(is_done, "{said}");
}

/// Whether this kernel can do what the rules ask for, by nft's own word; if not, `test` is written down as skipped.
fn can_redirect(test: &str) -> bool {
    if !installed(test, &["ip", "nft"]) {
        return false;
    }
    let (is_done, rules) = intercept(&["--redirect", REDIRECT, "--print"]);
    assert!(is_done, "{rules}");
    let mut trial = Process::start("nft", |folder| {
        let file = folder.join("rules");
        std::fs::write(&file, &rules).expect("a file for the rules");
        let mut command = command("nft");
        // Only checked, but by the kernel: nothing is changed.
        command.args(["--check", "--file"]).arg(file);
        command
    });
    let status = trial.await_end();
    if !status.success() {
        let log = trial.log().trim().replace('\n', " ");
        skip(test, &format!("no redirection in this kernel: {log}"));
    }
    status.success()
}

/// A relay of what is redirected from the application's port.
fn relaying(kind: Kind) -> Setup {
    let listen = format!("[::]:{RELAY_PORT}");
    Setup::new(kind).route(Route::new("own", &format!("*:{PORT}")).listening(&listen))
}

/// How many connections it has accepted.
fn opened(relay: &Relay) -> f64 {
    relay.metric("connections_opened_total", &[])
}
