//! Requests to the admin port of a real sidecar. It answers with HTTP or hangs up, goes on answering probes, and keeps
//! nothing. Its coverage is another process's and not seen from here.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

use ringside_tests::fuzz::Target;
use ringside_tests::relay::{Kind, Relay, Setup};
use ringside_tests::traffic::{Pattern, Server, echo};
use ringside_tests::{PATIENCE, await_that, namespaced};
use serde_json::json;

const TARGET: Target = Target {
    name: "admin",
    words: &[
        "GET ",
        "PUT ",
        "POST ",
        "HEAD ",
        "OPTIONS ",
        "CONNECT ",
        "TRACE ",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        " HTTP/1.1\r\n",
        " HTTP/1.0\r\n",
        "Host: a\r\n",
        "\r\n",
        "\r\n\r\n",
        "Content-Length: 5\r\n",
        "Transfer-Encoding: chunked\r\n",
        "5\r\ndebug\r\n0\r\n\r\n",
        "Expect: 100-continue\r\n",
        "Upgrade: h2c\r\n",
        "Connection: close\r\n",
        "Connection: keep-alive\r\n",
        "Origin: http://a\r\n",
        "Sec-Fetch-Site: cross-site\r\n",
        "/livez",
        "/readyz",
        "/startupz",
        "/statusz",
        "/history",
        "/metrics",
        "/config",
        "/log-level",
        "/drain",
        "/",
        "%00",
        "..",
        "?",
        "#",
        "info",
        "debug",
        "http://a/livez",
    ],
};

/// A request, the whole of it, and the answers.
fn ask(admin: SocketAddr, request: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(admin).expect("the admin port accepts");
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // It may hang up before it has read all.
    let _ = stream.write_all(request);
    let _ = stream.shutdown(Shutdown::Write);
    let mut answer = Vec::new();
    let ended = stream.read_to_end(&mut answer);
    let in_time = |error: &std::io::Error| error.kind() == std::io::ErrorKind::ConnectionReset;
    assert!(
        ended.as_ref().err().is_none_or(in_time),
        "no end of the answer: {ended:?}"
    );
    answer
}

fn check(admin: SocketAddr, request: &[u8]) {
    let answer = ask(admin, request);
    if answer.is_empty() {
        return;
    }
    let head = String::from_utf8_lossy(&answer[..answer.len().min(12)]).into_owned();
    let status = head
        .strip_prefix("HTTP/1.1 ")
        .or_else(|| head.strip_prefix("HTTP/1.0 "));
    let status: Option<u16> = status.and_then(|rest| rest.parse().ok());
    let status = status.unwrap_or_else(|| panic!("no HTTP: {head:?}"));
    // 503 is what a probe says of a sidecar that drains.
    assert!(
        (100..500).contains(&status) || status == 503,
        "status {status}"
    );
}

fn resident_bytes(relay: &Relay) -> f64 {
    relay.metrics().sum("process_resident_memory_bytes", &[])
}

namespaced!(admin, {
    let server = Server::local(echo);
    let relay = Setup::new(Kind::Auto)
        .to(&server)
        .settings(json!({"timeouts": {"drain": "1h", "drainNotice": "0s", "idle": "1h"}}))
        .start();
    let admin = relay.admin_address();
    // A drain that some request asks for waits for this one.
    let stream = relay.connect();
    stream.ping(Pattern::new(1), 0, 640).unwrap();
    for _ in 0..100 {
        ask(admin, b"GET /statusz HTTP/1.0\r\n\r\n");
    }
    let (descriptors, resident) = (relay.process().descriptors(), resident_bytes(&relay));
    let mut asked = 0_u32;
    TARGET.fuzz(|request| {
        check(admin, request);
        asked += 1;
        if asked.is_multiple_of(64) {
            assert_eq!(relay.admin("GET", "/livez").unwrap().status, 200);
            let at = u64::from(asked) * 10;
            stream.ping(Pattern::new(1), at, at + 10).unwrap();
        }
    });
    await_that("the admin port's connections to end", || {
        relay.process().descriptors() <= descriptors
    });
    let grown = resident_bytes(&relay) - resident;
    assert!(grown < 16e6, "{grown} bytes more after {asked} requests");
});
