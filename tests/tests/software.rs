//! Real software through the relay: Redis with its benchmark, nginx with a keep-alive load, iperf3.

use std::fs;
use std::net::SocketAddr;
use std::process::Command;

use ringside_tests::processes::{Process, await_listening, command, free_port, installed, output};
use ringside_tests::relay::{Kind, Relay, Route, Setup};
use serde_json::Value;

ringside_tests::instances! {
    everywhere: [redis, nginx_with_keep_alive, nginx_without_keep_alive, iperf3_each_way],
    ringside: [],
}

/// A relay from a port of its own to `port`, where `server` listens by then.
fn before(kind: Kind, port: u16) -> Relay {
    let target = SocketAddr::from(([127, 0, 0, 1], port));
    await_listening(target);
    Setup::new(kind)
        .route(Route::new("web", &target.to_string()))
        .start()
}

fn redis(kind: Kind) {
    if !installed("redis", &["redis-server", "redis-benchmark", "redis-cli"]) {
        return;
    }
    let port = free_port().to_string();
    let server = Process::start("redis-server", |folder| {
        let mut redis = command("redis-server");
        redis
            .args([
                "--bind",
                "127.0.0.1",
                "--port",
                &port,
                "--save",
                "",
                "--appendonly",
                "no",
                "--dir",
            ])
            .arg(folder);
        redis
    });
    let relay = before(kind, port.parse().unwrap());
    let through = relay.address().port().to_string();
    for extra in [
        vec!["-P", "1", "-c", "50"],
        vec!["-P", "16", "-c", "20"],
        vec!["-d", "100000", "-n", "500"],
    ] {
        let arguments = [
            "-h",
            "127.0.0.1",
            "-p",
            &through,
            "-t",
            "set,get,lrange_100",
            "-n",
            "4000",
            "-q",
        ];
        let said = output(
            "redis-benchmark",
            arguments.into_iter().chain(extra.iter().copied()),
        );
        for test in ["SET", "GET", "LRANGE_100"] {
            assert!(
                said.contains(test),
                "redis-benchmark {extra:?} tells nothing of {test}: {said}"
            );
        }
        assert!(
            said.contains("requests per second") && !said.contains("Error"),
            "redis-benchmark {extra:?}: {said}"
        );
    }
    // What was written through the relay is read beside it.
    let value = "x".repeat(300_000);
    let file = server.folder().join("value");
    fs::write(&file, &value).unwrap();
    let mut set = command("redis-cli");
    set.args(["-p", &through, "-x", "set", "key"])
        .stdin(fs::File::open(&file).unwrap());
    assert!(set.output().unwrap().status.success());
    assert_eq!(
        output("redis-cli", ["-p", &port, "get", "key"]).trim(),
        value
    );
    assert_eq!(
        output("redis-cli", ["-p", &through, "get", "key"]).trim(),
        value
    );
    relay.settle();
}

/// nginx with a page of 10,000 bytes.
fn nginx(port: u16) -> Process {
    Process::start("nginx", |folder| {
        fs::write(folder.join("page"), "0123456789".repeat(1000)).unwrap();
        let here = folder.display();
        let text = format!(
            "daemon off;\nmaster_process off;\npid {here}/pid;\nerror_log stderr;\nevents {{ worker_connections 4000; }}\n\
             http {{\n  access_log off;\n  keepalive_requests 1000000;\n  client_body_temp_path {here}/body;\n  \
             proxy_temp_path {here}/proxy;\n  fastcgi_temp_path {here}/fastcgi;\n  uwsgi_temp_path {here}/uwsgi;\n  \
             scgi_temp_path {here}/scgi;\n  server {{ listen 127.0.0.1:{port}; root {here}; }}\n}}\n"
        );
        fs::write(folder.join("nginx.conf"), text).unwrap();
        let mut nginx = command("nginx");
        nginx
            .arg("-p")
            .arg(folder)
            .arg("-c")
            .arg(folder.join("nginx.conf"));
        nginx
    })
}

fn nginx_with_keep_alive(kind: Kind) {
    if !installed("nginx_with_keep_alive", &["nginx", "wrk"]) {
        return;
    }
    let port = free_port();
    let _server = nginx(port);
    let relay = before(kind, port);
    let page = format!("http://{}/page", relay.address());
    let said = output("wrk", ["-t", "2", "-c", "100", "-d", "3s", &page]);
    assert!(
        !said.contains("Socket errors") && !said.contains("Non-2xx"),
        "{said}"
    );
    let requests = said.lines().find_map(|line| {
        line.trim()
            .strip_suffix("read")?
            .split_whitespace()
            .next()?
            .parse()
            .ok()
    });
    let requests: u64 =
        requests.unwrap_or_else(|| panic!("wrk told no number of requests: {said}"));
    assert!(requests > 1000, "only {requests} requests in 3 s: {said}");
    relay.settle();
    if relay.tells() {
        // wrk looks at the server once before it begins.
        let opened = relay.metric("connections_opened_total", &[]);
        assert_eq!(opened, 101.0, "connections were not kept alive");
        let answers = relay.metric("relayed_bytes_total", &[]);
        assert!(
            answers >= requests as f64 * 10_000.0,
            "{answers} bytes for {requests} pages"
        );
    }
}

fn nginx_without_keep_alive(kind: Kind) {
    if !installed("nginx_without_keep_alive", &["nginx", "ab"]) {
        return;
    }
    let port = free_port();
    let _server = nginx(port);
    let relay = before(kind, port);
    let page = format!("http://{}/page", relay.address());
    let said = output("ab", ["-n", "3000", "-c", "32", &page]);
    let told = |field: &str| -> u64 {
        let line = said.lines().find_map(|line| {
            line.strip_prefix(field)?
                .split_whitespace()
                .next()?
                .parse()
                .ok()
        });
        line.unwrap_or_else(|| panic!("ab tells no `{field}`: {said}"))
    };
    assert_eq!(told("Complete requests:"), 3000);
    assert_eq!(told("Failed requests:"), 0, "{said}");
    assert_eq!(told("HTML transferred:"), 3000 * 10_000);
    relay.settle();
}

fn iperf3_each_way(kind: Kind) {
    if !installed("iperf3_each_way", &["iperf3"]) {
        return;
    }
    for extra in [
        ["-P", "1"].as_slice(),
        &["-P", "8"],
        &["-R", "-P", "4"],
        &["--bidir"],
    ] {
        iperf3(kind, extra);
    }
}

/// One run with a server of its own: iperf3's serves one client at a time, and turns the next away for a moment.
fn iperf3(kind: Kind, extra: &[&str]) {
    let port = free_port();
    let _server = Process::start("iperf3", |_| {
        let mut iperf3 = command("iperf3");
        iperf3.args(["-s", "-B", "127.0.0.1", "-p", &port.to_string()]);
        iperf3
    });
    let relay = before(kind, port);
    let through = relay.address().port().to_string();
    let said = run(command("iperf3")
        .args(["-c", "127.0.0.1", "-p", &through, "-t", "2", "-J"])
        .args(extra));
    let told: Value = serde_json::from_str(&said)
        .unwrap_or_else(|error| panic!("iperf3 {extra:?}: {error}: {said}"));
    assert!(
        told["error"].is_null(),
        "iperf3 {extra:?}: {}",
        told["error"]
    );
    let received = told["end"]["sum_received"]["bytes"].as_u64().unwrap_or(0);
    assert!(
        received > 10 << 20,
        "iperf3 {extra:?} received {received} bytes in 2 s"
    );
    relay.settle();
    if relay.tells() {
        let relayed = relay.metric("relayed_bytes_total", &[]);
        assert!(
            relayed >= received as f64,
            "iperf3 {extra:?} received {received} bytes, and {relayed} were relayed"
        );
    }
}

/// A run whose output is one document, and which ends by itself.
fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{command:?} failed ({}): {said}",
        output.status
    );
    said.into_owned()
}
