//! The server against real TLS clients: those that behave, those that do not, and thousands that say nothing.

use std::io::Read;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::ConnectInfo;
use axum::http::{Request, StatusCode};
use axum::routing::get;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use k8s_openapi::jiff::Timestamp;
use ringside_controller::certificates::{Contents, Handle, Plan, Terms, plan};
use ringside_controller::serve::{Counts, HandshakeFailure, Limits, Server};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

const NAME: &str = "ringside-controller.ringside.svc";
const PATIENCE: Duration = Duration::from_secs(60);

fn contents() -> Contents {
    let terms = Terms::for_service("ringside-controller", "ringside", &[]).unwrap();
    match plan(None, Timestamp::now(), &terms).unwrap() {
        Plan::Write { contents, .. } => contents,
        kept @ Plan::Keep { .. } => panic!("{kept:?}"),
    }
}

/// A server that runs until it is stopped or dropped.
struct Running {
    address: SocketAddr,
    handle: Handle,
    counts: Arc<Counts>,
    /// Lets `/wait` answer.
    release: Arc<Notify>,
    /// Asks the connections that are open to end.
    leave: watch::Sender<bool>,
    stop: watch::Sender<bool>,
    served: JoinHandle<()>,
}

async fn start(limits: Limits) -> Running {
    let handle = Handle::default();
    handle.load(&contents()).unwrap();
    start_with(limits, handle).await
}

async fn start_with(limits: Limits, handle: Handle) -> Running {
    let release = Arc::new(Notify::new());
    let waits = release.clone();
    let here = |ConnectInfo(peer): ConnectInfo<SocketAddr>| async move { peer.to_string() };
    let wait = move || async move {
        waits.notified().await;
        "at last"
    };
    let router = Router::new()
        .route("/", get(here))
        .route("/wait", get(wait));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = Server::new(router, handle.resolver(), limits);
    let counts = server.counts();
    let (leave, leaves) = watch::channel(false);
    let (stop, stopped) = watch::channel(false);
    let served = tokio::spawn(server.serve(listener, leaves, stopped));
    Running {
        address,
        handle,
        counts,
        release,
        leave,
        stop,
        served,
    }
}

impl Running {
    async fn connect(&self, protocol: &str) -> std::io::Result<TlsStream<TcpStream>> {
        connect(self.address, &self.handle.ca_bundle(), protocol).await
    }

    async fn http2(&self) -> (Http2, JoinHandle<hyper::Result<()>>) {
        http2_over(self.connect("h2").await.unwrap()).await
    }

    fn failed(&self, why: HandshakeFailure) -> u64 {
        self.counts.handshakes_failed(why)
    }
}

async fn connect(
    address: SocketAddr,
    ca: &str,
    protocol: &str,
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    for der in CertificateDer::pem_slice_iter(ca.as_bytes()) {
        roots.add(der.unwrap()).unwrap();
    }
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from(NAME).unwrap();
    let connector = TlsConnector::from(Arc::new(config));
    connector.connect(name, stream).await
}

fn request(path: &str) -> Request<Empty<Bytes>> {
    let uri = format!("https://{NAME}{path}");
    let request = Request::get(uri).header("host", NAME);
    request.body(Empty::new()).unwrap()
}

type Http2 = http2::SendRequest<Empty<Bytes>>;

async fn http2_over(stream: TlsStream<TcpStream>) -> (Http2, JoinHandle<hyper::Result<()>>) {
    let shaken = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let (sender, connection) = shaken.unwrap();
    (sender, tokio::spawn(connection))
}

async fn ask(sender: &mut Http2, path: &str) -> (StatusCode, String) {
    let answer = sender.send_request(request(path)).await.unwrap();
    let status = answer.status();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

/// Waits until something holds that counts tell of.
async fn until(what: &str, holds: impl Fn() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Reads until the other side closes; an error is an end as well.
async fn ends(mut stream: impl tokio::io::AsyncRead + Unpin) -> Vec<u8> {
    let mut bytes = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut bytes)).await;
    let _ = read.expect("the server closes");
    bytes
}

#[tokio::test]
async fn who_leaves_ends_what_is_open_and_answers_whoever_comes_still() {
    let server = start(Limits::default()).await;
    let (mut before, connection) = server.http2().await;
    assert_eq!(ask(&mut before, "/").await.0, StatusCode::OK);
    server.leave.send_replace(true);
    let ended = tokio::time::timeout(PATIENCE, connection).await;
    ended.expect("it is asked to end").unwrap().unwrap();
    for _ in 0..2 {
        let (mut after, _connection) = server.http2().await;
        for _ in 0..2 {
            assert_eq!(ask(&mut after, "/").await.0, StatusCode::OK);
        }
    }
    server.stop.send_replace(true);
    server.served.await.unwrap();
}

#[tokio::test]
async fn both_versions_of_http_are_answered_and_the_peer_is_known() {
    let server = start(Limits::default()).await;
    let stream = server.connect("h2").await.unwrap();
    let here = stream.get_ref().0.local_addr().unwrap().to_string();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (mut sender, _connection) = http2_over(stream).await;
    assert_eq!(ask(&mut sender, "/").await, (StatusCode::OK, here));
    assert_eq!(ask(&mut sender, "/no").await.0, StatusCode::NOT_FOUND);

    let stream = server.connect("http/1.1").await.unwrap();
    let here = stream.get_ref().0.local_addr().unwrap().to_string();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    let _connection = tokio::spawn(connection);
    for _ in 0..2 {
        sender.ready().await.unwrap();
        let answer = sender.send_request(request("/")).await.unwrap();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body, here);
    }
    assert_eq!((server.counts.open(), server.counts.requests()), (2, 4));
}

#[tokio::test]
async fn a_reloaded_certificate_is_for_new_connections_and_ends_no_other() {
    let server = start(Limits::default()).await;
    let before = server.handle.ca_bundle();
    let (mut sender, _connection) = server.http2().await;
    let mut changed = server.handle.changed();
    assert_eq!(server.handle.load(&contents()), Ok(true));
    changed.changed().await.unwrap();
    assert_eq!(changed.borrow().fingerprint, server.handle.ca_fingerprint());
    assert_ne!(server.handle.ca_bundle(), before);
    // Who trusts the one before only does not speak with it, which is counted.
    let refused = connect(server.address, &before, "h2").await.unwrap_err();
    let refused = refused.to_string();
    assert!(refused.contains("invalid peer certificate"), "{refused}");
    let tls = || server.failed(HandshakeFailure::Tls) == 1;
    until("the refusal is counted", tls).await;
    let (mut new, _new) = server.http2().await;
    assert_eq!(ask(&mut new, "/").await.0, StatusCode::OK);
    assert_eq!(ask(&mut sender, "/").await.0, StatusCode::OK);
    // What cannot be used changes nothing.
    let spoilt = Contents {
        tls_key: "garbage".to_owned(),
        ..contents()
    };
    assert!(server.handle.load(&spoilt).is_err());
    assert!(server.connect("h2").await.is_ok());
}

#[tokio::test]
async fn handshakes_that_fail_are_counted_by_reason() {
    let limits = Limits {
        handshake: Duration::from_millis(500),
        ..Limits::default()
    };
    let server = start(limits.clone()).await;
    let mut garbage = TcpStream::connect(server.address).await.unwrap();
    garbage.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    ends(garbage).await;
    assert_eq!(server.failed(HandshakeFailure::Tls), 1);

    // The first bytes of a hello, and then nothing.
    let mut slow = TcpStream::connect(server.address).await.unwrap();
    slow.write_all(&[22, 3, 1, 2, 0, 1]).await.unwrap();
    ends(slow).await;
    assert_eq!(server.failed(HandshakeFailure::Slow), 1);

    drop(TcpStream::connect(server.address).await.unwrap());
    let gone = || server.failed(HandshakeFailure::Gone) == 1;
    until("a client that went away", gone).await;
    until("nothing is open", || server.counts.open() == 0).await;

    let server = start_with(limits, Handle::default()).await;
    let refused = connect(server.address, &contents().ca_crt, "h2").await;
    refused.unwrap_err();
    let none = || server.failed(HandshakeFailure::NoCertificate) == 1;
    until("a server without a certificate", none).await;
}

#[tokio::test]
async fn whoever_asks_nothing_is_let_go_and_whoever_waits_for_an_answer_is_not() {
    let limits = Limits {
        first_request: Duration::from_millis(200),
        idle: Duration::from_millis(500),
        grace: Duration::from_millis(100),
        ..Limits::default()
    };
    let server = start(limits).await;
    // Nothing at all, also not the preface of HTTP/2.
    ends(server.connect("h2").await.unwrap()).await;
    ends(server.connect("http/1.1").await.unwrap()).await;
    assert_eq!(server.counts.idle_closed(), 2);

    let (mut waits, _waits) = server.http2().await;
    let call = tokio::spawn(async move { ask(&mut waits, "/wait").await });
    until("the call is open", || server.counts.requests() == 1).await;
    // One that asked once is closed while the other, older than it, stays.
    let (mut once, closed) = server.http2().await;
    assert_eq!(ask(&mut once, "/").await.0, StatusCode::OK);
    let closed = tokio::time::timeout(PATIENCE, closed).await;
    let _ = closed.expect("it is closed");
    assert_eq!(server.counts.idle_closed(), 3);
    server.release.notify_one();
    assert_eq!(call.await.unwrap(), (StatusCode::OK, "at last".to_owned()));
}

#[tokio::test]
async fn open_calls_may_end_when_the_server_stops_but_not_for_ever() {
    let limits = Limits {
        grace: Duration::from_millis(500),
        ..Limits::default()
    };
    for is_answered in [true, false] {
        let server = start(limits.clone()).await;
        let (mut sender, _connection) = server.http2().await;
        let call = tokio::spawn(async move { sender.send_request(request("/wait")).await });
        until("the call is open", || server.counts.requests() == 1).await;
        // In its handshake, with nobody to finish it.
        let _slow = TcpStream::connect(server.address).await.unwrap();
        server.leave.send(true).unwrap();
        server.stop.send(true).unwrap();
        let is_closed = || std::net::TcpStream::connect(server.address).is_err();
        until("the listener is closed", is_closed).await;
        if is_answered {
            server.release.notify_one();
        }
        let answer = call.await.unwrap();
        assert_eq!(answer.is_ok(), is_answered, "{answer:?}");
        let ended = tokio::time::timeout(PATIENCE, server.served).await;
        ended.expect("it ends").unwrap();
        assert_eq!(server.counts.open(), 0);
    }
}

#[tokio::test]
async fn heads_that_are_too_large_or_too_slow_are_refused() {
    let limits = Limits {
        head: Duration::from_millis(300),
        ..Limits::default()
    };
    let server = start(limits).await;
    let mut slow = server.connect("http/1.1").await.unwrap();
    let begun = b"GET / HTTP/1.1\r\nhost: a\r\n";
    slow.write_all(begun).await.unwrap();
    ends(slow).await;

    let mut large = server.connect("http/1.1").await.unwrap();
    let head = format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "a".repeat(64 << 10));
    // It may be closed before all is written.
    let _ = large.write_all(head.as_bytes()).await;
    let answer = ends(large).await;
    let answer = String::from_utf8_lossy(&answer);
    assert!(
        answer.is_empty() || answer.starts_with("HTTP/1.1 431"),
        "{answer}"
    );

    let (mut sender, _connection) = server.http2().await;
    let mut large = request("/");
    let value = "a".repeat(64 << 10).parse().unwrap();
    large.headers_mut().insert("x", value);
    let refused = sender.send_request(large).await;
    assert!(refused.map_or(true, |answer| answer.status() == 431));
    assert_eq!(server.counts.requests(), 0);
}

#[tokio::test]
async fn whoever_asks_nothing_gives_its_place_to_newcomers_and_whoever_is_served_keeps_it() {
    let limits = Limits {
        connections_most: 3,
        ..Limits::default()
    };
    let server = start(limits).await;
    let mut calls = Vec::new();
    for count in 1..=2 {
        let (mut sender, connection) = server.http2().await;
        let call = tokio::spawn(async move { ask(&mut sender, "/wait").await });
        until("the call is open", || server.counts.requests() == count).await;
        calls.push((call, connection));
    }
    // The third place is for whoever came last, at any stage.
    let silent = TcpStream::connect(server.address).await.unwrap();
    until("the silent one is there", || server.counts.open() == 3).await;
    let (_unused, asks_nothing) = server.http2().await;
    ends(silent).await;
    let (mut sender, connection) = server.http2().await;
    let gone = tokio::time::timeout(PATIENCE, asks_nothing).await;
    let _ = gone.expect("it is closed");
    assert_eq!(ask(&mut sender, "/").await.0, StatusCode::OK);
    let call = tokio::spawn(async move { ask(&mut sender, "/wait").await });
    until("the call is open", || server.counts.requests() == 4).await;
    calls.push((call, connection));
    // All are served: whoever comes is closed at once.
    for _ in 0..20 {
        ends(TcpStream::connect(server.address).await.unwrap()).await;
    }
    assert_eq!((server.counts.open(), server.counts.refused()), (3, 20));
    assert_eq!(server.counts.sent_away(), 2);
    for (call, _connection) in calls {
        server.release.notify_one();
        assert_eq!(call.await.unwrap().0, StatusCode::OK);
    }
    until("there is room again", || server.counts.open() == 0).await;
    assert!(server.connect("h2").await.is_ok());
}

/// A process of this program with many clients, which ends with the test.
struct Clients(Child);

impl Drop for Clients {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

const CLIENTS: &str = "RINGSIDE_TEST_CLIENTS";
const COUNT: u64 = 2_000;

fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes = line.unwrap().trim().trim_end_matches(" kB");
    kibibytes.parse::<u64>().unwrap() << 10
}

async fn thousands(protocol: &str, bytes_most: u64) {
    let limits = Limits {
        idle: Duration::from_secs(2),
        grace: Duration::from_secs(1),
        ..Limits::default()
    };
    let server = start(limits).await;
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.pem");
    std::fs::write(&ca, server.handle.ca_bundle().as_bytes()).unwrap();
    let before = resident_bytes();
    let told = format!("{} {protocol} {}", server.address, ca.display());
    let clients = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "clients_of_another_process", "--ignored"])
        .env(CLIENTS, told)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn();
    let clients = Clients(clients.unwrap());
    until("all calls are open", || server.counts.requests() == COUNT).await;
    let each = resident_bytes().saturating_sub(before) / COUNT;
    println!("{protocol}: {each} resident bytes for each of {COUNT} connections with an open call");
    assert_eq!(server.counts.open(), COUNT);
    assert!(each < bytes_most, "{protocol}: {each} for each connection");
    until("all that ask nothing any more are let go", || {
        server.release.notify_waiters();
        server.counts.open() == 0
    })
    .await;
    assert_eq!(server.counts.idle_closed(), COUNT);
    drop(clients);
}

// One test, so that neither is measured while the other runs. Other tests of this file add little to thousands.
#[tokio::test]
async fn thousands_that_wait_cost_little_and_are_let_go_when_nothing_is_asked() {
    thousands("h2", 80 << 10).await;
    thousands("http/1.1", 60 << 10).await;
}

#[tokio::test]
#[ignore = "the other half of the test above, in a process of its own"]
async fn clients_of_another_process() {
    let Ok(told) = std::env::var(CLIENTS) else {
        return;
    };
    let told: Vec<&str> = told.split(' ').collect();
    let [address, protocol, ca] = told[..] else {
        panic!("{told:?}");
    };
    let address: SocketAddr = address.parse().unwrap();
    let ca = std::fs::read_to_string(ca).unwrap();
    for _ in 0..COUNT {
        let stream = connect(address, &ca, protocol).await.unwrap();
        if protocol == "h2" {
            let (mut sender, _connection) = http2_over(stream).await;
            tokio::spawn(async move {
                let _answer = sender.send_request(request("/wait")).await;
                std::future::pending::<()>().await;
            });
        } else {
            let shaken = http1::handshake(TokioIo::new(stream)).await;
            let (mut sender, connection) = shaken.unwrap();
            tokio::spawn(connection);
            tokio::spawn(async move {
                let answer = sender.send_request(request("/wait")).await;
                let _ = answer.unwrap().into_body().collect().await;
                std::future::pending::<()>().await;
            });
        }
    }
    // Until the test is over, however it ends.
    let ended = tokio::task::spawn_blocking(|| std::io::stdin().read(&mut [0]));
    let _ = ended.await;
}
