//! A controller that does what a test says: a real server, TLS 1.3, HTTP/1.1 and then frames, on a thread of its own; gone when dropped.

pub mod identity;
mod line;
pub mod pod;
pub mod script;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use axum::body::{Body, to_bytes};
use axum::http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use ringside_api::sync::frames::PROTOCOL;
use ringside_api::sync::{PATH, REPORT_BYTES_MOST, Report};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;

pub use identity::{Authority, NAME, Valid};
pub use pod::Pod;
pub use script::{Call, Manner, SESSION, Script, assigned};

use crate::await_some;

#[derive(Debug)]
struct Shared {
    script: watch::Sender<Script>,
    calls: Mutex<Vec<Call>>,
    connections: AtomicUsize,
    /// The newest call's number. As one pod calls, it overtakes those before.
    newest: watch::Sender<usize>,
}

/// A running controller.
#[derive(Debug)]
pub struct Controller {
    address: SocketAddr,
    shared: Arc<Shared>,
    ends: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Controller {
    /// One that shows a certificate of `authority`, on a port of 127.0.0.1.
    #[track_caller]
    pub fn start(authority: &Authority, script: Script) -> Self {
        Self::start_as(authority.identity(NAME, Valid::Now), 0, script)
    }

    /// One that shows any identity, on this port of 127.0.0.1.
    #[track_caller]
    pub fn start_as(identity: Arc<ServerConfig>, port: u16, script: Script) -> Self {
        let shared = Arc::new(Shared {
            script: watch::Sender::new(script),
            calls: Mutex::default(),
            connections: AtomicUsize::new(0),
            newest: watch::Sender::new(0),
        });
        // A process that another test starts at this moment holds the port of one before for as long as it takes to begin.
        let listener = await_some("the port of a controller", || {
            std::net::TcpListener::bind(("127.0.0.1", port)).ok()
        });
        let address = listener
            .local_addr()
            .expect("a bound listener has an address");
        listener
            .set_nonblocking(true)
            .expect("a listener that does not block");
        let (ends, ended) = oneshot::channel();
        let serving = shared.clone();
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(async {
                let listener = TcpListener::from_std(listener).expect("a listener");
                tokio::select! {
                    () = accept(listener, TlsAcceptor::from(identity), serving) => {}
                    _ = ended => {}
                }
            });
        });
        Self {
            address,
            shared,
            ends: Some(ends),
            thread: Some(thread),
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes what it does; calls that are held are answered anew.
    pub fn change<T>(&self, change: impl FnOnce(&mut Script) -> T) -> T {
        let mut result = None;
        self.shared
            .script
            .send_modify(|script| result = Some(change(script)));
        result.expect("the change was made")
    }

    /// The calls so far.
    pub fn calls(&self) -> Vec<Call> {
        self.lock().clone()
    }

    /// TLS connections so far.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Waits for a call of which `holds`, among those from number `from` on.
    #[track_caller]
    pub fn await_call(&self, what: &str, from: usize, holds: impl Fn(&Report) -> bool) -> Call {
        await_some(what, || {
            let calls = self.lock();
            calls
                .iter()
                .skip(from)
                .find(|call| holds(&call.report))
                .cloned()
        })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Call>> {
        self.shared
            .calls
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        drop(self.ends.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn accept(listener: TcpListener, tls: TlsAcceptor, shared: Arc<Shared>) {
    loop {
        if let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, tls.clone(), shared.clone()));
        }
    }
}

async fn serve(stream: TcpStream, tls: TlsAcceptor, shared: Arc<Shared>) {
    // Some sidecars of a test do not trust it.
    let Ok(stream) = tls.accept(stream).await else {
        return;
    };
    shared.connections.fetch_add(1, Ordering::SeqCst);
    let service = service_fn(move |request| answer(request, shared.clone()));
    let _ = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades()
        .await;
}

async fn answer(
    mut request: Request<Incoming>,
    shared: Arc<Shared>,
) -> Result<Response<Body>, Infallible> {
    assert_eq!(
        (request.method().as_str(), request.uri().path()),
        ("POST", PATH)
    );
    assert_eq!(request.headers()["upgrade"], PROTOCOL);
    let authorization = request.headers()["authorization"]
        .to_str()
        .expect("text")
        .to_owned();
    let upgrade = hyper::upgrade::on(&mut request);
    let body = to_bytes(Body::new(request.into_body()), REPORT_BYTES_MOST).await;
    let Ok(body) = body else {
        // The call was given up.
        return Ok(Response::new(Body::empty()));
    };
    let report: Report = serde_json::from_slice(&body).expect("a report");
    let called = shared.take(authorization, &report);
    let manner = shared.script.borrow().manner.clone();
    if let Manner::Says(status, headers, body) = manner
        && status != 200
    {
        let mut response = Response::builder().status(status);
        for (name, value) in headers {
            response = response.header(name, value);
        }
        return Ok(response.body(Body::from(body)).expect("an answer"));
    }
    tokio::spawn(async move {
        if let Ok(upgraded) = upgrade.await {
            line::speak(TokioIo::new(upgraded), shared, called, report).await;
        }
    });
    let agreed = Response::builder()
        .status(101)
        .header("connection", "upgrade")
        .header("upgrade", PROTOCOL);
    Ok(agreed.body(Body::empty()).expect("an answer"))
}

impl Shared {
    /// A call has come; returns its number.
    fn take(&self, authorization: String, report: &Report) -> usize {
        let number = {
            let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
            calls.push(Call {
                at: std::time::Instant::now(),
                authorization,
                report: report.clone(),
            });
            calls.len()
        };
        self.newest.send_replace(number);
        number
    }
}
