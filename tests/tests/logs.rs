//! A log that nobody reads: the relay, its probes and its end must not wait for it.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread;

use ringside::backend::inject::pass_on;
use ringside_tests::skip::build_folder;
use ringside_tests::{PATIENCE, await_some, await_that, http};

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // Already over, unless the test failed.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Echoes one message for each connection.
fn echo() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut message = [0; 4];
            if stream.read_exact(&mut message).is_ok() {
                let _ = stream.write_all(&message);
            }
        }
    });
    address
}

fn ask(relay: SocketAddr) -> std::io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&relay, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"ping")?;
    let mut answer = [0; 4];
    stream.read_exact(&mut answer)
}

#[test]
fn a_log_that_nobody_reads_holds_nothing_up() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ringside.yaml");
    let target = echo();
    let yaml = format!(
        "relays: [{{name: web, listen: \"127.0.0.1:0\", target: \"{target}\"}}]\n\
         admin: \"127.0.0.1:0\"\n\
         settings: {{accessLog: {{mode: All, maxPerSecond: 100000}}, timeouts: {{drain: 1s, drainNotice: 0s}}}}\n"
    );
    fs::write(&path, yaml).unwrap();
    let port_file = folder.path().join("admin");
    let child = Command::new(build_folder().join("ringside"))
        .args(["relay", "--log-level", "trace", "--config"])
        .arg(&path)
        .arg("--admin-port-file")
        .arg(&port_file)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // The pipe of its log is kept open and never read: 64 KiB, and it is full.
    let mut child = Killed(child);
    let admin: SocketAddr = await_some("the relay to be ready", || {
        fs::read_to_string(&port_file).ok()?.trim().parse().ok()
    });
    let status = http::get(admin, "/statusz").unwrap();
    let status: serde_json::Value = serde_json::from_str(&status.body).unwrap();
    let relay = status["relays"][0]["listen"][0].as_str().unwrap();
    let relay: SocketAddr = relay.parse().unwrap();
    // Each connection is a line of about 200 bytes: more than the pipe and the queue of lines take.
    for round in 0..6_000 {
        ask(relay).unwrap_or_else(|error| panic!("connection {round}: {error}"));
    }
    let metrics = http::get(admin, "/metrics").unwrap().body;
    let dropped = metrics
        .lines()
        .find_map(|line| line.strip_prefix("ringside_log_lines_dropped_total "))
        .and_then(|value| value.parse::<f64>().ok());
    assert!(
        dropped.is_some_and(|dropped| dropped > 0.0),
        "{dropped:?} lines were dropped"
    );
    assert_eq!(http::get(admin, "/livez").unwrap().status, 200);
    pass_on(15, &child.0).unwrap();
    let mut end = None;
    await_that("the relay to end", || {
        end = child.0.try_wait().unwrap();
        end.is_some()
    });
    assert!(end.is_some_and(|status| status.success()), "{end:?}");
}
