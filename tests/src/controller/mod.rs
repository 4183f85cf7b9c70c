//! A controller that does what a test says: a real server, TLS 1.3 and HTTP/1.1, on a thread of its own; gone when dropped.

pub mod identity;
pub mod pod;
pub mod script;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::http::{Request, Response};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use ringside_api::sync::{HOLD_MILLIS, PATH, REPORT_BYTES_MOST, Report};
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
        .await;
}

async fn answer(
    request: Request<Incoming>,
    shared: Arc<Shared>,
) -> Result<Response<Body>, Infallible> {
    assert_eq!(
        (request.method().as_str(), request.uri().path()),
        ("POST", PATH)
    );
    let authorization = request.headers()["authorization"]
        .to_str()
        .expect("text")
        .to_owned();
    let body = to_bytes(Body::new(request.into_body()), REPORT_BYTES_MOST).await;
    let Ok(body) = body else {
        // The call was given up.
        return Ok(Response::new(Body::empty()));
    };
    let report: Report = serde_json::from_slice(&body).expect("a report");
    let number = {
        let mut calls = shared.calls.lock().unwrap_or_else(PoisonError::into_inner);
        calls.push(Call {
            at: std::time::Instant::now(),
            authorization,
            report: report.clone(),
        });
        calls.len()
    };
    shared.newest.send_replace(number);
    let mut newest = shared.newest.subscribe();
    let held = tokio::time::timeout(
        Duration::from_millis(HOLD_MILLIS),
        held(report, shared.script.subscribe()),
    );
    tokio::select! {
        biased;
        answer = held => Ok(answer.unwrap_or_else(|_| Response::new(Body::from(r#"{"offer":{"Keep":""}}"#)))),
        _ = newest.wait_for(|newest| *newest > number) => {
            let overtaken = Response::builder().status(409).body(Body::empty());
            Ok(overtaken.expect("an answer"))
        }
    }
}

/// The answer, as soon as the script has one.
async fn held(report: Report, mut script: watch::Receiver<Script>) -> Response<Body> {
    loop {
        let now = script.borrow_and_update().clone();
        match &now.manner {
            Manner::Answers => {
                if let Some(answer) = now.answer(&report) {
                    let text = serde_json::to_vec(&answer).expect("an answer");
                    return Response::new(Body::from(text));
                }
            }
            Manner::Says(status, headers, body) => {
                let mut response = Response::builder().status(*status);
                for (name, value) in headers {
                    response = response.header(*name, value);
                }
                return response.body(Body::from(body.clone())).expect("an answer");
            }
            Manner::Endless => return Response::new(Body::new(Trickle(Duration::ZERO, None))),
            Manner::Slow => {
                let pause = Duration::from_millis(100);
                return Response::new(Body::new(Trickle(pause, None)));
            }
            Manner::Silent => {}
        }
        if script.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Spaces without end: many at once, or one after each pause.
struct Trickle(Duration, Option<Pin<Box<tokio::time::Sleep>>>);

impl hyper::body::Body for Trickle {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let pause = self.0;
        if pause.is_zero() {
            return Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[b' '; 8192])))));
        }
        let sleep = self
            .1
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(pause)));
        std::task::ready!(sleep.as_mut().poll(context));
        self.1 = None;
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b" ")))))
    }
}
