//! Where a relay listens and where it leads: every kind of address, and targets that are not there.

use std::ffi::OsString;
use std::fs;
use std::io::Read;
use std::net::SocketAddr;

use ringside_tests::await_that;
use ringside_tests::processes::{
    Process, await_listening, can_listen, command, free_port, installed,
};
use ringside_tests::relay::{Kind, Relay, Route, Setup};
use ringside_tests::skip::skip;
use ringside_tests::traffic::{Pattern, Server, Stream, echo};
use serde_json::json;

ringside_tests::instances! {
    everywhere: [
        ipv6_to_ipv6,
        ipv4_to_ipv6,
        a_dual_stack_listener,
        a_unix_target,
        several_relays_in_one_process,
        a_proxy_header_is_understood_by_haproxy,
    ],
    ringside: [
        a_host_name,
        the_second_address_of_a_host,
        a_target_that_refuses,
        a_unix_target_that_is_not_there,
        a_target_that_cannot_be_reached,
        a_target_that_comes_later,
    ],
}

const UP: Pattern = Pattern::new(6);

#[track_caller]
fn assert_echoes(relay: &Relay, stream: &Stream) {
    stream.exchange(UP, UP, 0..300_000, 30_000).unwrap();
    stream.finish().unwrap();
    stream.receive_end(300_000).unwrap();
    relay.settle();
}

/// Whether this machine has IPv6; written down as skipped if not.
fn has_ipv6(test: &str) -> bool {
    can_listen("[::1]:0")
        .inspect_err(|error| skip(test, &format!("no IPv6 here: {error}")))
        .is_ok()
}

fn ipv6_to_ipv6(kind: Kind) {
    if has_ipv6("ipv6_to_ipv6") {
        let server = Server::tcp("[::1]:0", echo);
        let relay = Setup::new(kind)
            .route(Route::new("web", &server.target()).listening("[::1]:0"))
            .start();
        assert!(relay.address().is_ipv6());
        assert_echoes(&relay, &relay.connect());
        server.settle();
    }
}

fn ipv4_to_ipv6(kind: Kind) {
    if has_ipv6("ipv4_to_ipv6") {
        let server = Server::tcp("[::1]:0", echo);
        let relay = Setup::new(kind).to(&server).start();
        assert_echoes(&relay, &relay.connect());
        server.settle();
    }
}

fn a_dual_stack_listener(kind: Kind) {
    if has_ipv6("a_dual_stack_listener") {
        let server = Server::local(echo);
        // HAProxy has to be told what for Ringside is the meaning of `[::]`.
        let listen = if kind == Kind::Reference {
            "[::]:0 v4v6"
        } else {
            "[::]:0"
        };
        let relay = Setup::new(kind)
            .route(Route::new("web", &server.target()).listening(listen))
            .start();
        let port = relay.address().port();
        assert_echoes(
            &relay,
            &relay.connect_to(SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], port))),
        );
        assert_echoes(
            &relay,
            &relay.connect_to(SocketAddr::from(([127, 0, 0, 1], port))),
        );
        server.settle();
    }
}

fn a_unix_target(kind: Kind) {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::unix(&folder.path().join("app.sock"), echo);
    let relay = Setup::new(kind).to(&server).start();
    for _ in 0..20 {
        assert_echoes(&relay, &relay.connect());
    }
    let stream = relay.connect();
    stream.exchange(UP, UP, 0..32 << 20, 256 << 10).unwrap();
    drop(stream);
    server.settle();
    relay.expect_closed("finished", 21);
}

fn several_relays_in_one_process(kind: Kind) {
    let answer =
        |number| move |stream: &Stream, _| stream.send(Pattern::new(number), 0, 1000, 1000);
    let servers: Vec<Server> = (0..5).map(|number| Server::local(answer(number))).collect();
    let mut setup = Setup::new(kind);
    for (number, server) in servers.iter().enumerate() {
        setup = setup.route(Route::new(&format!("r{number}"), &server.target()));
    }
    let relay = setup.start();
    for round in 0..10_u64 {
        for number in 0..servers.len() as u64 {
            let stream = relay.connect_to(relay.address_of(&format!("r{number}")));
            let came = stream.receive_to_end(Pattern::new(number), 0, 1000);
            came.unwrap_or_else(|trouble| panic!("relay {number}, round {round}: {trouble}"));
        }
    }
    relay.settle();
    if relay.tells() {
        for number in 0..servers.len() {
            let name = format!("r{number}");
            assert_eq!(
                relay.metric("connections_opened_total", &[("relay", &name)]),
                10.0,
                "{name}"
            );
        }
    }
}

/// HAProxy as the target, which answers with the client's address as the header told it.
fn a_proxy_header_is_understood_by_haproxy(kind: Kind) {
    if !installed("a_proxy_header_is_understood_by_haproxy", &["haproxy"]) {
        return;
    }
    let target = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let answering = Process::start("haproxy", |folder| {
        let text = format!(
            "defaults\n  mode http\n  timeout connect 2s\n  timeout client 20s\n  timeout server 20s\n\
             frontend web\n  bind {target} accept-proxy\n  \
             http-request return status 200 content-type text/plain lf-string \"%[src]|%[src_port]|%[dst]|%[dst_port]\"\n"
        );
        let path = folder.join("target.cfg");
        fs::write(&path, text).unwrap();
        let mut command = command("haproxy");
        command.arg("-db").arg("-f").arg(path);
        command
    });
    await_listening(target);
    let mut listening = vec!["127.0.0.1:0"];
    if has_ipv6("a_proxy_header_is_understood_by_haproxy (IPv6)") {
        listening.push("[::1]:0");
    }
    for listen in listening {
        let route = Route::new("web", &target.to_string())
            .listening(listen)
            .with_proxy_header();
        let relay = Setup::new(kind).route(route).start();
        let stream = relay.connect();
        let mut io = &stream;
        std::io::Write::write_all(&mut io, b"GET / HTTP/1.0\r\n\r\n").unwrap();
        let mut answer = String::new();
        io.read_to_string(&mut answer).unwrap();
        let (client, listener) = (stream.address().unwrap(), relay.address());
        let told = format!(
            "{}|{}|{}|{}",
            client.ip(),
            client.port(),
            listener.ip(),
            listener.port()
        );
        assert!(
            answer.contains(" 200 OK\r\n") && answer.ends_with(&told),
            "{told} is not told by {answer:?}"
        );
    }
    drop(answering);
}

fn a_host_name(kind: Kind) {
    let server = Server::local(echo);
    let target = format!("localhost:{}", server.address().port());
    let relay = Setup::new(kind).route(Route::new("web", &target)).start();
    assert_echoes(&relay, &relay.connect());
    server.settle();
}

/// A name with an IPv6 and an IPv4 address, and a server at only one of them, whichever is tried first.
fn the_second_address_of_a_host(kind: Kind) {
    if !has_ipv6("the_second_address_of_a_host") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let hosts = folder.path().join("hosts");
    fs::write(
        &hosts,
        "127.0.0.1 localhost\n::1 two.test\n127.0.0.1 two.test\n",
    )
    .unwrap();
    // The relay alone sees these names, in a mount namespace of its own.
    let script = "mount --bind \"$0\" /etc/hosts && exec \"$@\"";
    let with_hosts = ["unshare", "--mount", "/bin/sh", "-c", script].map(OsString::from);
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let server = Server::tcp(address, echo);
        let target = format!("two.test:{}", server.address().port());
        let under = with_hosts
            .iter()
            .cloned()
            .chain([hosts.clone().into_os_string()]);
        let relay = Setup::new(kind)
            .route(Route::new("web", &target))
            .under(under)
            .start();
        for _ in 0..10 {
            assert_echoes(&relay, &relay.connect());
        }
        server.settle();
        relay.expect_closed("finished", 10);
    }
}

/// A relay that listens also while its target refuses, so that what becomes of a connection then is seen.
fn listening_all_the_while(kind: Kind, target: &str) -> Relay {
    Setup::new(kind)
        .route(Route::new("web", target))
        .settings(json!({"targetCheck": {"mode": "Report"}}))
        .start()
}

fn a_target_that_refuses(kind: Kind) {
    let target = format!("127.0.0.1:{}", free_port());
    let relay = listening_all_the_while(kind, &target);
    for _ in 0..20 {
        relay.expect_turned_away();
    }
    relay.expect_closed("connect_refused", 20);
    relay.settle();
}

fn a_unix_target_that_is_not_there(kind: Kind) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.sock");
    let relay = listening_all_the_while(kind, &format!("unix:{}", path.display()));
    relay.expect_turned_away();
    relay.settle();
    let server = Server::unix(&path, echo);
    assert_echoes(&relay, &relay.connect());
    server.settle();
}

/// The test's namespace has a loopback and no other way out.
fn a_target_that_cannot_be_reached(kind: Kind) {
    let relay = Setup::new(kind)
        .route(Route::new("web", "192.0.2.1:9"))
        .start();
    relay.expect_turned_away();
    relay.expect_closed("connect_unreachable", 1);
    relay.settle();
}

fn a_target_that_comes_later(kind: Kind) {
    let address = format!("127.0.0.1:{}", free_port());
    let relay = listening_all_the_while(kind, &address);
    relay.expect_turned_away();
    let server = Server::tcp(&address, echo);
    assert_echoes(&relay, &relay.connect());
    drop(server);
    await_that("the target to be gone again", || {
        let Ok(stream) = Stream::connect(relay.address()) else {
            return true;
        };
        stream
            .ping(UP, 0, 1)
            .is_err_and(|trouble| trouble.is_reset())
    });
    relay.settle();
}
