//! The application: HTTP/1.1 on one address. Each answer is its pod's name; `/stream` gives the name again and again until the application
//! ends. After SIGTERM it goes on for as long as it was told, asks clients that keep connections to close them, and then ends every stream as a
//! stream should end. It never resets anybody.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http_body_util::{Either, Full};
use hyper::body::{Body, Bytes, Frame, Incoming};
use hyper::header::{CONNECTION, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};

use crate::number;

/// Between two pieces of a stream.
const PIECE_EVERY: Duration = Duration::from_millis(100);

/// How long connections may take to close once all that they wait for has been said.
const LAST: Duration = Duration::from_secs(2);

/// What the application is about to do.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Phase {
    Serving,
    /// SIGTERM has come: connections are not kept.
    Lingering,
    /// Streams end.
    Ending,
}

pub(crate) async fn serve(address: &str, linger: &str) -> Result<(), String> {
    let linger = Duration::from_millis(number(linger)?);
    let name = std::env::var("POD_NAME").unwrap_or_else(|_| "nameless".to_owned());
    let listener = TcpListener::bind(address).await;
    let listener = listener.map_err(|error| format!("cannot listen at {address}: {error}"))?;
    let mut terminate =
        signal(SignalKind::terminate()).map_err(|error| format!("no SIGTERM: {error}"))?;
    let (tells, phase) = watch::channel(Phase::Serving);
    // Whoever serves a connection holds one; the last one gone closes the channel.
    let (open, mut closed) = mpsc::channel::<Infallible>(1);
    println!("{name} listens at {address}");

    let accepting = tokio::spawn(async move {
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                tokio::time::sleep(PIECE_EVERY).await;
                continue;
            };
            let _ = stream.set_nodelay(true);
            let (name, mut phase, open) = (name.clone(), phase.clone(), open.clone());
            tokio::spawn(async move {
                let answering = {
                    let phase = phase.clone();
                    service_fn(move |request| answer(request, name.clone(), phase.clone()))
                };
                let connection =
                    http1::Builder::new().serve_connection(TokioIo::new(stream), answering);
                let mut connection = std::pin::pin!(connection);
                let ended = tokio::select! {
                    ended = connection.as_mut() => Some(ended),
                    _ = phase.wait_for(|phase| *phase == Phase::Ending) => None,
                };
                if ended.is_none() {
                    connection.as_mut().graceful_shutdown();
                    // A client that went away is nobody's trouble.
                    let _ = connection.await;
                }
                drop(open);
            });
        }
    });
    terminate.recv().await;
    println!("SIGTERM: lingering for {linger:?}");
    tells.send_replace(Phase::Lingering);
    tokio::time::sleep(linger).await;
    accepting.abort();
    let _ = accepting.await;
    tells.send_replace(Phase::Ending);
    let all_closed = tokio::time::timeout(LAST, closed.recv()).await;
    println!("ended; all connections closed: {}", all_closed.is_ok());
    Ok(())
}

async fn answer(
    request: Request<Incoming>,
    name: String,
    phase: watch::Receiver<Phase>,
) -> Result<Response<Either<Full<Bytes>, Pieces>>, Infallible> {
    let text = Bytes::from(format!("{name}\n"));
    let is_serving = *phase.borrow() == Phase::Serving;
    let mut response = if request.uri().path() == "/stream" {
        Response::new(Either::Right(pieces(text, phase)))
    } else {
        Response::new(Either::Left(Full::new(text)))
    };
    if !is_serving {
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(CONNECTION, close);
    }
    Ok(response)
}

/// A body that comes piece by piece.
struct Pieces(mpsc::Receiver<Bytes>);

fn pieces(text: Bytes, mut phase: watch::Receiver<Phase>) -> Pieces {
    let (sends, pieces) = mpsc::channel(1);
    tokio::spawn(async move {
        while sends.send(text.clone()).await.is_ok() {
            tokio::select! {
                () = tokio::time::sleep(PIECE_EVERY) => {}
                _ = phase.wait_for(|phase| *phase == Phase::Ending) => return,
            }
        }
    });
    Pieces(pieces)
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let piece = self.0.poll_recv(context);
        piece.map(|piece| piece.map(|bytes| Ok(Frame::data(bytes))))
    }
}
