//! One connection from its handshake to its end: requests are passed to the router, and whoever asks nothing for too long is let go.
//!
//! It owns the connection's timers. It reads no request, and never outlives the server's grace.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::ConnectInfo;
use axum::http::{Request, Response};
use futures_util::FutureExt;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulConnection;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_rustls::server::TlsStream;

use super::Shared;
use super::counts::{Counts, HandshakeFailure};
use super::limits::Limits;
use super::room::Place;

/// The protocol of that name in a handshake.
pub(super) const HTTP2: &[u8] = b"h2";

/// Runs a connection until it is closed.
pub(crate) async fn run(
    shared: &Shared,
    stream: TcpStream,
    peer: SocketAddr,
    mut stop: watch::Receiver<bool>,
) {
    let place = shared.room.enter();
    // Without: the answer to a small request waits for the acknowledgement of what was sent before.
    let _ = stream.set_nodelay(true);
    let secured = tokio::select! {
        _ = stop.wait_for(|stop| *stop) => return,
        () = place.sent_away() => return,
        // On the heap, and gone with the handshake: its state is larger than a connection's.
        secured = Box::pin(secure(shared, stream)) => secured,
    };
    if let Some(stream) = secured {
        answer(shared, stream, peer, place, stop).await;
    }
}

async fn secure(shared: &Shared, stream: TcpStream) -> Option<TlsStream<TcpStream>> {
    let counts = &shared.counts;
    // Whoever says nothing takes no turn.
    match timeout(shared.limits.handshake, stream.peek(&mut [0])).await {
        Ok(Ok(0)) => {
            counts.handshake_failed(HandshakeFailure::Gone, &"before its first byte");
            return None;
        }
        Ok(Ok(_)) => {}
        Ok(Err(error)) => {
            counts.handshake_failed(HandshakeFailure::Gone, &error);
            return None;
        }
        Err(_) => {
            counts.handshake_failed(HandshakeFailure::Slow, &"it has sent nothing");
            return None;
        }
    }
    let _turn = shared.handshakes.acquire().await.ok()?;
    let has_certificate = |error: &std::io::Error| {
        // rustls says so in words only.
        !error
            .to_string()
            .contains("no server certificate chain resolved")
    };
    match timeout(shared.limits.handshake, shared.acceptor.accept(stream)).await {
        Ok(Ok(stream)) => {
            counts.handshake_done();
            return Some(stream);
        }
        Ok(Err(error)) => {
            let why = match error.kind() {
                std::io::ErrorKind::InvalidData if has_certificate(&error) => HandshakeFailure::Tls,
                std::io::ErrorKind::InvalidData => HandshakeFailure::NoCertificate,
                _ if !has_certificate(&error) => HandshakeFailure::NoCertificate,
                _ => HandshakeFailure::Gone,
            };
            counts.handshake_failed(why, &error);
        }
        Err(_) => {
            let most = shared.limits.handshake;
            let told = format_args!("{most:?} is the most").to_string();
            counts.handshake_failed(HandshakeFailure::Slow, &told);
        }
    }
    None
}

async fn answer(
    shared: &Shared,
    stream: TlsStream<TcpStream>,
    peer: SocketAddr,
    place: Place,
    stop: watch::Receiver<bool>,
) {
    let limits = &shared.limits;
    let calls = Arc::new(Calls::new(Instant::now(), place));
    let service = {
        let (router, counts) = (shared.router.clone(), shared.counts.clone());
        let calls = calls.clone();
        service_fn(move |request| {
            call(
                TowerToHyperService::new(router.clone()),
                &counts,
                &calls,
                peer,
                request,
            )
        })
    };
    // As was agreed in the handshake. Each kind on the heap by itself: sidecars' are many and HTTP/1.1, and the other's state is larger.
    let is_http2 = stream.get_ref().1.alpn_protocol() == Some(HTTP2);
    let stream = TokioIo::new(stream);
    if is_http2 {
        let connection = http2(limits).serve_connection(stream, service);
        Box::pin(drive(shared, connection, &calls, stop)).await;
    } else {
        let connection = http1(limits).serve_connection(stream, service);
        Box::pin(drive(shared, connection, &calls, stop)).await;
    }
}

/// Runs a connection until it ends, is idle for too long, or the server is to stop.
async fn drive(
    shared: &Shared,
    connection: impl GracefulConnection,
    calls: &Calls,
    mut stop: watch::Receiver<bool>,
) {
    let limits = &shared.limits;
    let mut connection = pin!(connection);
    let mut ends: Option<Instant> = None;
    loop {
        let look = ends.unwrap_or_else(|| calls.look_at(limits, Instant::now()));
        tokio::select! {
            // Its errors are its client's: gone, or speaking no HTTP.
            _ = &mut connection => return,
            _ = stop.wait_for(|stop| *stop), if ends.is_none() => {
                connection.as_mut().graceful_shutdown();
                ends = Some(Instant::now() + limits.grace);
            }
            () = calls.place.sent_away(), if ends.is_none() => {
                // Unless something was asked meanwhile.
                if calls.state().open == 0 {
                    return;
                }
            }
            () = sleep_until(look) => {
                if ends.is_some() {
                    return;
                }
                if calls.is_idle(limits, Instant::now()) {
                    shared.counts.closed_idle();
                    connection.as_mut().graceful_shutdown();
                    ends = Some(Instant::now() + limits.grace);
                }
            }
        }
    }
}

fn http1(limits: &Limits) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head)
        .max_headers(limits.headers_most)
        .max_buf_size(limits.head_bytes_most.max(8_192));
    builder
}

fn http2(limits: &Limits) -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .initial_stream_window_size(limits.window_bytes)
        .initial_connection_window_size(limits.window_bytes)
        .max_concurrent_streams(limits.streams_most)
        .max_header_list_size(u32::try_from(limits.head_bytes_most).unwrap_or(u32::MAX))
        .max_send_buf_size(limits.send_bytes_most)
        .keep_alive_interval(limits.ping)
        .keep_alive_timeout(limits.ping);
    builder
}

/// Passes a request to the router; it counts as open until its answer's last byte is sent, or nobody wants it any more.
fn call(
    router: TowerToHyperService<axum::Router>,
    counts: &Counts,
    calls: &Arc<Calls>,
    peer: SocketAddr,
    mut request: Request<Incoming>,
) -> impl Future<Output = Result<Response<Body>, Infallible>> + use<> {
    counts.request_begun();
    let open = Calls::begin(calls);
    request.extensions_mut().insert(ConnectInfo(peer));
    let answer = hyper::service::Service::call(&router, request);
    answer.map(move |answer| answer.map(|answer| answer.map(|body| Body::new(Held { body, open }))))
}

/// The calls of a connection.
struct Calls {
    state: Mutex<CallsState>,
    place: Place,
}

struct CallsState {
    open: u32,
    any: bool,
    /// When it was accepted, or the last call ended.
    since: Instant,
}

impl Calls {
    fn new(since: Instant, place: Place) -> Self {
        let (open, any) = (0, false);
        let state = Mutex::new(CallsState { open, any, since });
        Self { state, place }
    }

    fn begin(calls: &Arc<Self>) -> OpenCall {
        let mut state = calls.state();
        state.open += 1;
        state.any = true;
        if state.open == 1 {
            calls.place.is_idle(false);
        }
        drop(state);
        OpenCall(calls.clone())
    }

    /// When it may be idle for too long at the earliest.
    fn look_at(&self, limits: &Limits, now: Instant) -> Instant {
        let state = self.state();
        match state.open {
            0 => state.over(limits),
            _ => now + limits.idle,
        }
    }

    fn is_idle(&self, limits: &Limits, now: Instant) -> bool {
        let state = self.state();
        state.open == 0 && now >= state.over(limits)
    }

    fn state(&self) -> std::sync::MutexGuard<'_, CallsState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CallsState {
    fn over(&self, limits: &Limits) -> Instant {
        self.since
            + if self.any {
                limits.idle
            } else {
                limits.first_request
            }
    }
}

/// A call that is being answered, until it is dropped.
struct OpenCall(Arc<Calls>);

impl Drop for OpenCall {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.open -= 1;
        state.since = Instant::now();
        if state.open == 0 {
            self.0.place.is_idle(true);
        }
    }
}

/// A body that keeps its call open.
struct Held {
    body: Body,
    #[expect(dead_code, reason = "it is there to be dropped")]
    open: OpenCall,
}

impl HttpBody for Held {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
