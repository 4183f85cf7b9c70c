//! The load tool against its own application, and against relays that are at fault: what it must do is notice.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Output, Stdio};
use std::thread;

/// A running application; ends when dropped.
struct Application {
    child: Child,
    address: String,
}

impl Application {
    fn start(listen: &str) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_ringside-load"))
            .args(["serve", "--listen", listen])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let address = line
            .trim()
            .strip_prefix("listening ")
            .unwrap_or_default()
            .to_owned();
        Self { child, address }
    }
}

impl Drop for Application {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn load(workload: &[&str], target: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ringside-load"))
        .args(workload)
        .args(["--target", target])
        .output()
        .unwrap()
}

/// The JSON that a successful run prints.
fn report(workload: &[&str], target: &str) -> serde_json::Value {
    let output = load(workload, target);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{workload:?}: {errors}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn every_workload(target: &str) {
    let ping = [
        "ping",
        "--connections",
        "20",
        "--bytes",
        "100",
        "--seconds",
        "0.2",
        "--warm-up",
        "0",
    ];
    assert!(report(&ping, target)["units"].as_f64().unwrap() > 0.0);
    // Larger than any socket buffer: both sides must read while they have more to write.
    let large = [
        "ping",
        "--connections",
        "2",
        "--bytes",
        "16000000",
        "--seconds",
        "0",
        "--warm-up",
        "0",
    ];
    assert_eq!(report(&large, target)["connections"], 2);
    for way in [
        &["bulk", "--connections", "3", "--gigabytes", "0.3"][..],
        &["bulk", "--reverse", "--gigabytes", "0.3"],
    ] {
        let moved = report(way, target)["units"].as_f64().unwrap();
        assert!((0.2999..=0.3).contains(&moved), "{way:?} moved {moved} GB");
    }
    for way in [
        &["churn", "--seconds", "0.2"][..],
        &["churn", "--seconds", "0.2", "--client-closes"],
    ] {
        let report = report(way, target);
        assert!(
            report["units"].as_f64().unwrap() > 0.0 && report["errors"] == 0,
            "{report}"
        );
    }
    let mixed = report(&["mixed", "--seconds", "0.5"], target);
    assert!(
        mixed["bulk_gigabytes"].as_f64().unwrap() > 0.0 && mixed["units"].as_f64().unwrap() > 0.0
    );
}

#[test]
fn every_workload_runs_over_tcp() {
    let application = Application::start("127.0.0.1:0");
    every_workload(&application.address);
}

#[test]
fn every_workload_runs_over_ipv6() {
    let application = Application::start("[::1]:0");
    every_workload(&application.address);
}

#[test]
fn every_workload_runs_over_a_unix_socket() {
    let folder = tempfile::tempdir().unwrap();
    let application = Application::start(&format!(
        "unix:{}",
        folder.path().join("app.sock").display()
    ));
    every_workload(&application.address);
}

#[test]
fn idle_connections_stand_until_a_line_is_read_and_memory_is_told() {
    let application = Application::start("127.0.0.1:0");
    let pid = application.child.id().to_string();
    let mut idle = Command::new(env!("CARGO_BIN_EXE_ringside-load"))
        .args([
            "idle",
            "--connections",
            "200",
            "--target",
            &application.address,
            "--pid",
            &pid,
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut errors = BufReader::new(idle.stderr.take().unwrap()).lines();
    assert!(
        errors
            .next()
            .unwrap()
            .unwrap()
            .contains("200 connections stand")
    );
    let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .count();
    assert!(
        descriptors > 200,
        "the application has {descriptors} descriptors open"
    );
    idle.stdin.take().unwrap().write_all(b"\n").unwrap();
    let output = idle.wait_with_output().unwrap();
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(
        report["relay_memory"]["anonymous_bytes"].as_u64().unwrap() > 0,
        "{report}"
    );
}

#[test]
fn the_cpu_of_a_watched_process_is_told_per_unit() {
    let application = Application::start("127.0.0.1:0");
    let pid = application.child.id().to_string();
    let report = report(
        &["ping", "--seconds", "0.3", "--pid", &pid],
        &application.address,
    );
    let (total, per_unit, units) = (
        &report["relay_cpu"]["total_ns"],
        &report["relay_cpu_us_per_unit"],
        &report["units"],
    );
    let expected = total.as_f64().unwrap() / 1e3 / units.as_f64().unwrap();
    assert!(
        expected > 0.1 && (per_unit.as_f64().unwrap() - expected).abs() < 1e-6,
        "{report}"
    );
}

/// A relay with one fault, in this process: what `spoil` does to each piece that goes to the application is relayed.
fn faulty_relay(application: &str, spoil: fn(usize, &mut Vec<u8>)) -> SocketAddr {
    let application: SocketAddr = application.parse().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let upstream = TcpStream::connect(application).unwrap();
            let (mut from, mut to) = (client.try_clone().unwrap(), upstream.try_clone().unwrap());
            thread::spawn(move || {
                let mut buffer = vec![0; 65536];
                for index in 0.. {
                    let n = from.read(&mut buffer).unwrap_or(0);
                    let mut piece = buffer[..n].to_vec();
                    spoil(index, &mut piece);
                    if n == 0 || to.write_all(&piece).is_err() {
                        break;
                    }
                }
                let _ = to.shutdown(std::net::Shutdown::Write);
            });
            thread::spawn(move || std::io::copy(&mut &upstream, &mut &client));
        }
    });
    address
}

fn refused_because(workload: &[&str], target: SocketAddr, reason: &str) {
    let output = load(workload, &target.to_string());
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && errors.contains(reason),
        "{workload:?}: {errors}"
    );
}

#[test]
fn a_relay_that_changes_a_byte_is_noticed() {
    let application = Application::start("127.0.0.1:0");
    let relay = faulty_relay(&application.address, |index, piece| {
        if let Some(last) = piece.last_mut().filter(|_| index == 3) {
            *last ^= 1;
        }
    });
    refused_because(
        &["ping", "--connections", "1", "--seconds", "0.5"],
        relay,
        "differ from what was sent",
    );
}

#[test]
fn a_relay_that_loses_a_byte_of_bulk_is_noticed() {
    let application = Application::start("127.0.0.1:0");
    let relay = faulty_relay(&application.address, |index, piece| {
        if index == 50 {
            piece.pop();
        }
    });
    refused_because(
        &["bulk", "--connections", "1", "--gigabytes", "0.1"],
        relay,
        "connection 0 of the bulk transfer",
    );
}

#[test]
fn a_relay_that_refuses_is_an_error_that_names_it() {
    let unused = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    refused_because(&["ping"], unused, &format!("cannot connect to {unused}"));
    refused_because(
        &["churn", "--seconds", "5"],
        unused,
        "not one connection succeeded",
    );
}
