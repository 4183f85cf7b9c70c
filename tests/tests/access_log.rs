//! The access log: a JSON line for each connection that the setting asks for, which says the truth of it; and a count of those left out.

use std::collections::BTreeMap;

use jiff::Timestamp;
use ringside_tests::relay::{Kind, Relay, Route, Setup};
use ringside_tests::traffic::{Pattern, Server, Stream, echo};
use ringside_tests::{await_that, instances};
use serde_json::{Value, json};

const UP: Pattern = Pattern::new(3);

fn settings(mode: &str, most_per_second: u32) -> Value {
    json!({
        "accessLog": {"mode": mode, "maxPerSecond": most_per_second},
        // A relay whose target refuses goes on to listen.
        "targetCheck": {"mode": "Off"},
    })
}

/// The lines of the access log so far.
fn lines(relay: &Relay) -> Vec<BTreeMap<String, Value>> {
    let log = relay.process().log();
    let objects = log.lines().filter_map(|line| {
        let line: Value = serde_json::from_str(line).ok()?;
        (line["target"] == "access").then_some(line)
    });
    objects
        .map(|fields| serde_json::from_value(fields).unwrap())
        .collect()
}

fn await_lines(relay: &Relay, count: usize) -> Vec<BTreeMap<String, Value>> {
    await_that("the lines of the access log", || {
        lines(relay).len() >= count
    });
    let lines = lines(relay);
    assert_eq!(lines.len(), count, "{lines:#?}");
    lines
}

fn time(line: &BTreeMap<String, Value>, field: &str) -> Timestamp {
    line[field].as_str().unwrap().parse().unwrap()
}

/// A closed port of this machine.
fn nobody() -> String {
    format!("127.0.0.1:{}", ringside_tests::processes::free_port())
}

fn a_line_says_what_became_of_a_connection(kind: Kind) {
    let folder = tempfile::tempdir().unwrap();
    let begin = Timestamp::now();
    let tcp = Server::local(|stream, number| echo(stream, number).or(Ok(())));
    let unix = Server::unix(&folder.path().join("app.sock"), echo);
    let relay = Setup::new(kind)
        .to(&tcp)
        .route(Route::new("unix", &unix.target()))
        .route(Route::new("gone", &nobody()))
        .settings(settings("All", 1000))
        .start();
    let mut clients = Vec::new();
    for name in ["web", "unix"] {
        let stream = relay.connect_to(relay.address_of(name));
        clients.push(stream.socket().local_addr().unwrap().as_socket().unwrap());
        stream.ping(UP, 0, 1000).unwrap();
        stream.finish().unwrap();
        stream.receive_end(1000).unwrap();
        await_lines(&relay, clients.len());
    }
    let broken = relay.connect();
    broken.ping(UP, 0, 10).unwrap();
    broken.reset().unwrap();
    await_lines(&relay, 3);
    Stream::expect_turned_away(Stream::connect(relay.address_of("gone")));

    let lines = await_lines(&relay, 4);
    let end = Timestamp::now();
    let told: Vec<[&str; 3]> = lines
        .iter()
        .map(|line| ["relay", "reason", "upstream"].map(|name| line[name].as_str().unwrap()))
        .collect();
    let (tcp_target, unix_target) = (tcp.target(), unix.target());
    assert_eq!(
        told,
        [
            ["web", "finished", &tcp_target],
            ["unix", "finished", &unix_target],
            ["web", "client_reset", &tcp_target],
            ["gone", "connect_refused", "-"],
        ]
    );
    for (line, client) in lines.iter().zip(clients) {
        assert_eq!(line["client"], client.to_string());
    }
    for (line, bytes) in lines.iter().zip([1000, 1000, 10, 0]) {
        assert_eq!(line["from_client_bytes"], bytes, "{line:?}");
        assert_eq!(line["from_upstream_bytes"], bytes, "{line:?}");
        let (opened, closed) = (time(line, "opened"), time(line, "closed"));
        // The kernel's clocks are read one after the other, and milliseconds are shown.
        let slack = jiff::SignedDuration::from_millis(50);
        assert!(begin - slack <= opened && opened <= closed && closed <= end + slack);
        let open = closed.duration_since(opened).as_millis();
        assert!(open.abs_diff(line["open_ms"].as_i64().unwrap().into()) <= 2);
        assert_eq!(line.contains_key("connect_us"), bytes > 0, "{line:?}");
        assert!(!line.contains_key("left_out"), "{line:?}");
    }
    tcp.check();
    unix.check();
}

fn the_mode_says_which_connections_are_told_of(kind: Kind) {
    let server = Server::local(|stream, number| echo(stream, number).or(Ok(())));
    let mut relay = Setup::new(kind)
        .to(&server)
        .settings(settings("Off", 1000))
        .start();
    let both = |relay: &Relay, so_far: u32| {
        let stream = relay.connect();
        stream.ping(UP, 0, 10).unwrap();
        stream.finish().unwrap();
        stream.receive_end(10).unwrap();
        relay.expect_closed("finished", so_far + 1);
        let broken = relay.connect();
        broken.ping(UP, 0, 10).unwrap();
        broken.reset().unwrap();
        relay.expect_closed("client_reset", so_far + 1);
    };
    let mut told = Vec::new();
    for (round, mode) in ["Off", "Errors", "All"].into_iter().enumerate() {
        relay.reconfigure(|setup| setup.settings(settings(mode, 1000)));
        await_that("the mode to be in effect", || {
            let config = relay.admin("GET", "/config?format=json").unwrap().body;
            let config: Value = serde_json::from_str(&config).unwrap();
            config["settings"]["accessLog"]["mode"] == mode
        });
        both(&relay, round as u32);
        told.push(match mode {
            "Off" => 0,
            "Errors" => 1,
            _ => 2,
        });
        let lines = await_lines(&relay, told.iter().sum());
        if mode == "Errors" {
            assert_eq!(lines[0]["reason"], "client_reset");
        }
    }
    server.check();
}

fn what_is_left_out_is_counted(kind: Kind) {
    const CONNECTIONS: u32 = 60;
    let server = Server::local(echo);
    let relay = Setup::new(kind)
        .to(&server)
        .settings(settings("All", 5))
        .start();
    let once = |relay: &Relay| {
        let stream = relay.connect();
        stream.ping(UP, 0, 10).unwrap();
        stream.finish().unwrap();
        stream.receive_end(10).unwrap();
    };
    let mut connections = 0;
    // Each line that is written tells of all before it that were not, and that no other line told of: with the last one they are all told.
    let mut told_of_all = |least: u32| {
        loop {
            once(&relay);
            connections += 1;
            relay.expect_closed("finished", connections);
            let dropped = relay.metric("access_log_dropped_total", &[]) as u64;
            await_that("a line for each that was not left out", || {
                lines(&relay).len() as u64 + dropped == u64::from(connections)
            });
            let left_out = |line: &BTreeMap<String, Value>| line.get("left_out")?.as_u64();
            let told: u64 = lines(&relay).iter().filter_map(left_out).sum();
            if connections >= least && told == dropped {
                return dropped;
            }
        }
    };
    assert!(told_of_all(CONNECTIONS) > 0, "none was left out");
    server.check();
}

instances! {
    everywhere: [],
    ringside: [
        a_line_says_what_became_of_a_connection,
        the_mode_says_which_connections_are_told_of,
        what_is_left_out_is_counted,
    ],
}
