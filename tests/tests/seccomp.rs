//! The shipped seccomp profile: the file is what its list makes, the sidecar does everything under it, and under
//! RuntimeDefault it falls back and says why.

use std::fs;
use std::path::Path;
use std::time::Duration;

use ringside_tests::relay::{Kind, Relay, Route, Setup};
use ringside_tests::seccomp::{Filter, IO_URING, profile, shipped};
use ringside_tests::traffic::{Pattern, Server, Stream, echo};
use ringside_tests::{await_that, namespaced};
use serde_json::{Value, json};

const UP: Pattern = Pattern::new(12);

/// Enough, in large pieces, that a connection is taken for a stream.
const BULK_BYTES: u64 = 64 << 20;

fn file() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests/seccomp/ringside.json");
    fs::read_to_string(path).unwrap()
}

fn shipped_profile() -> Value {
    serde_json::from_str(&file()).unwrap()
}

#[test]
fn the_file_is_what_the_list_makes() {
    assert!(
        file() == shipped(),
        "manifests/seccomp/ringside.json is not what the list makes: run `make manifests`"
    );
}

#[test]
fn it_allows_three_calls_more_than_runtime_default() {
    let names = |profile: &Value| -> Vec<String> {
        serde_json::from_value(profile["syscalls"][0]["names"].clone()).unwrap()
    };
    let (ours, mut default) = (shipped_profile(), profile(&[]));
    let mut both = names(&default);
    both.extend(IO_URING.map(str::to_owned));
    both.sort_unstable();
    assert_eq!(names(&ours), both);
    // And nothing else differs.
    default["syscalls"][0]["names"] = json!(both);
    assert_eq!(ours, default);
    let mut once = both.clone();
    once.dedup();
    assert_eq!(once, both, "a name is listed twice");
}

/// The same rules, but what is not allowed ends the process: the sidecar does not even try it.
fn strict(mut profile: Value) -> Value {
    profile["defaultAction"] = json!("SCMP_ACT_KILL_PROCESS");
    profile.as_object_mut().unwrap().remove("defaultErrnoRet");
    profile
}

/// Every feature in use, on the backend that `expected` names.
fn everything_works(kind: Kind, profile: &Value, expected: &str) {
    let folder = tempfile::tempdir().unwrap();
    // One of its connections is reset on purpose.
    let plain = Server::local(|stream, number| echo(stream, number).or(Ok(())));
    let unix = Server::unix(&folder.path().join("app.sock"), echo);
    let named = format!("localhost:{}", plain.address().port());
    let settings = |idle: &str| {
        json!({
            "accessLog": {"mode": "All"},
            "timeouts": {"idle": idle, "drain": "30s", "drainNotice": "100ms"},
        })
    };
    let mut relay = Setup::new(kind)
        .to(&plain)
        .route(Route::new("named", &named))
        .route(Route::new("unix", &unix.target()))
        .route(Route::new("v6", &plain.target()).listening("[::1]:0"))
        .route(Route::new("own", &format!("*:{}", plain.address().port())))
        .settings(settings("1h"))
        .workers(2)
        .held_to(&Filter::of(profile).unwrap())
        .start();
    assert_eq!(backend(&relay).0, expected);

    // Small messages and streams, through each kind of target.
    for name in ["web", "named", "unix", "v6"] {
        let stream = relay.connect_to(relay.address_of(name));
        stream.ping(UP, 0, 1000).unwrap();
        stream
            .exchange(UP, UP, 1000..BULK_BYTES, 1 << 20)
            .unwrap_or_else(|trouble| panic!("{name}: {trouble}"));
        stream.finish().unwrap();
        stream.receive_end(BULK_BYTES).unwrap();
    }
    relay.settle();
    assert!(
        relay.metric("spliced_bytes_total", &[]) > 0.0,
        "nothing was spliced"
    );
    // A connection that breaks, and one whose target is gone.
    let broken = relay.connect();
    broken.ping(UP, 0, 10).unwrap();
    broken.reset().unwrap();
    relay.expect_closed("client_reset", 1);
    // One that nothing redirected to a relay of what is.
    Stream::expect_turned_away(Stream::connect(relay.address_of("own")));
    relay.expect_closed("not_redirected", 1);

    everything_is_told(&relay);

    // Settings by the watched file, with a connection open.
    let stream = relay.connect();
    stream.ping(UP, 0, 1000).unwrap();
    relay.reconfigure(|setup| setup.settings(settings("31m")));
    await_that("the new settings to be in effect", || {
        let answer = relay.admin("GET", "/config").unwrap();
        answer.status == 200 && answer.body.contains("31m")
    });

    // A drain, with that connection on its way.
    assert_eq!(relay.admin("POST", "/drain").unwrap().status, 202);
    let address = relay.address();
    await_that("new connections to be refused", || {
        Stream::connect(address).is_err()
    });
    stream.exchange(UP, UP, 1000..4 << 20, 100_000).unwrap();
    stream.finish().unwrap();
    stream.receive_end(4 << 20).unwrap();
    assert_eq!(relay.process_mut().await_end().code(), Some(0));
    let log = relay.process().log();
    assert!(
        log.contains("relay=unix") || log.contains("\"unix\""),
        "no access log: {log}"
    );
    assert!(!log.contains("panicked"), "{log}");
    plain.check();
    unix.check();
}

/// The admin port's pages.
fn everything_is_told(relay: &Relay) {
    for path in [
        "/",
        "/livez",
        "/readyz",
        "/startupz",
        "/statusz",
        "/history",
        "/metrics",
        "/config",
    ] {
        let answer = relay.admin("GET", path).unwrap();
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
    }
}

/// The backend in use and why, as the metric tells it.
fn backend(relay: &Relay) -> (String, String) {
    let metrics = relay.metrics();
    let mut infos = metrics
        .matching("ringside_backend_info", &[])
        .filter(|sample| sample.value == 1.0);
    let labels = &infos.next().expect("a backend is told").labels;
    (labels["backend"].clone(), labels["reason"].clone())
}

namespaced!(the_ring_under_the_shipped_profile, {
    everything_works(Kind::Ring, &shipped_profile(), "ring");
});

namespaced!(epoll_under_the_shipped_profile, {
    everything_works(Kind::Epoll, &shipped_profile(), "epoll");
});

namespaced!(nothing_that_the_profile_refuses_is_tried, {
    everything_works(Kind::Ring, &strict(shipped_profile()), "ring");
});

namespaced!(runtime_default_falls_back_and_says_why, {
    everything_works(Kind::Auto, &profile(&[]), "epoll");
    let server = Server::local(echo);
    let relay = Setup::new(Kind::Auto)
        .to(&server)
        .held_to(&Filter::of(&profile(&[])).unwrap())
        .start();
    let (name, reason) = backend(&relay);
    let status = relay.status().to_string();
    assert_eq!(name, "epoll");
    for told in [&reason, &status, &relay.process().log()] {
        for word in ["io_uring_setup", "not permitted", "seccomp"] {
            assert!(told.contains(word), "`{word}` is not told by {told}");
        }
    }
});

namespaced!(each_of_the_three_calls_is_needed, {
    for spared in IO_URING {
        let others: Vec<&str> = IO_URING
            .into_iter()
            .filter(|&name| name != spared)
            .collect();
        let server = Server::local(echo);
        let relay = Setup::new(Kind::Auto)
            .to(&server)
            .held_to(&Filter::of(&profile(&others)).unwrap())
            .start();
        let (name, reason) = backend(&relay);
        assert_eq!(name, "epoll", "without {spared}");
        assert!(reason.contains(spared), "{spared} is not named: {reason}");
        let stream = relay.connect();
        stream.set_patience(Duration::from_secs(10)).unwrap();
        stream.ping(UP, 0, 1000).unwrap();
    }
});
