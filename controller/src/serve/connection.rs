//! One connection from its handshake to its end: requests are passed to the router, and whoever asks nothing for too long is let go.
//!
//! It owns the connection's timers. It reads no request, and never outlives the server's grace.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
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
use super::calls::{Calls, OpenCall};
use super::counts::{Counts, HandshakeFailure};
use super::limits::Limits;
use super::takeover::{Activity, Session, Takeover};

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
        // On the heap, as HTTP is, and gone with the handshake: sidecars' connections are many, and little is to be held for them.
        secured = Box::pin(secure(shared, stream)) => secured,
    };
    let Some(stream) = secured else { return };
    let calls = Arc::new(Calls::new(Instant::now(), place));
    let speaking = Box::pin(speak_http(shared, stream, peer, &calls, &mut stop));
    if let Some(mut session) = speaking.await {
        drive(shared, session.as_mut(), |_| {}, &calls, &mut stop).await;
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

/// Speaks HTTP until the connection is to end, or speaks something else from then on.
async fn speak_http(
    shared: &Shared,
    stream: TlsStream<TcpStream>,
    peer: SocketAddr,
    calls: &Arc<Calls>,
    stop: &mut watch::Receiver<bool>,
) -> Option<Session> {
    let limits = &shared.limits;
    let takeover = Takeover::default();
    // As was agreed in the handshake.
    let is_http2 = stream.get_ref().1.alpn_protocol() == Some(HTTP2);
    let service = {
        let (router, counts) = (shared.router.clone(), shared.counts.clone());
        let calls = calls.clone();
        let takeover = (!is_http2).then(|| takeover.clone());
        service_fn(move |mut request: Request<Incoming>| {
            if let Some(takeover) = &takeover {
                request.extensions_mut().insert(takeover.clone());
            }
            call(
                TowerToHyperService::new(router.clone()),
                &counts,
                &calls,
                peer,
                request,
            )
        })
    };
    let stream = TokioIo::new(stream);
    if is_http2 {
        let mut connection = Box::pin(http2(limits).serve_connection(stream, service));
        drive(shared, connection.as_mut(), shut_down, calls, stop).await;
        return None;
    }
    let mut connection = Box::pin(http1(limits).serve_connection(stream, service));
    drive(shared, connection.as_mut(), shut_down, calls, stop).await;
    let begin = takeover.take()?;
    let parts = Pin::into_inner(connection).into_parts();
    // Nothing follows a request before its answer.
    parts
        .read_buf
        .is_empty()
        .then(|| begin(parts.io.into_inner(), Activity(calls.clone())))
}

fn shut_down<C: GracefulConnection>(connection: Pin<&mut C>) {
    connection.graceful_shutdown();
}

/// Runs a connection until it ends, is idle for too long, or the server is to stop; `ask_to_end` asks it to end as soon as nothing is asked on it.
async fn drive<C: Future + ?Sized>(
    shared: &Shared,
    mut connection: Pin<&mut C>,
    ask_to_end: impl Fn(Pin<&mut C>),
    calls: &Calls,
    stop: &mut watch::Receiver<bool>,
) {
    let limits = &shared.limits;
    let mut ends: Option<Instant> = None;
    loop {
        let look = ends.unwrap_or_else(|| calls.look_at(limits, Instant::now()));
        tokio::select! {
            // Its errors are its client's: gone, or speaking no HTTP.
            _ = &mut connection => return,
            _ = stop.wait_for(|stop| *stop), if ends.is_none() => {
                ask_to_end(connection.as_mut());
                ends = Some(Instant::now() + limits.grace);
            }
            () = calls.place.sent_away(), if ends.is_none() => {
                // Unless something was asked meanwhile.
                if calls.is_quiet() {
                    return;
                }
            }
            () = sleep_until(look) => {
                if ends.is_some() {
                    return;
                }
                if calls.is_idle(limits, Instant::now()) {
                    shared.counts.closed_idle();
                    ask_to_end(connection.as_mut());
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
