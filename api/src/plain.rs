//! Connections without TLS that anybody may open, to probes, metrics and pages of either program: how many, how long, and how slow a client
//! may be.
//!
//! The newest is always served, because it may be a probe: where there are too many, the oldest goes, and where load has
//! used up the process's descriptors, there are some to spare.

use std::collections::VecDeque;
use std::fs::File;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

/// The most connections at once.
const CONNECTIONS_MAX: usize = 64;

/// How long a client may take to send a request's head, or be quiet between two requests.
const HEAD_LIMIT: Duration = Duration::from_secs(5);

/// How long a connection lasts, which bounds how slowly an answer may be read.
const LIFE_LIMIT: Duration = Duration::from_secs(60);

/// The most bytes of a request's head.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// How long accepting rests after it failed, such as for want of descriptors.
const REST: Duration = Duration::from_millis(100);

/// Descriptors held for connections that come when the process has none left.
const SPARES: usize = 4;

/// How often spares that were used are held again.
const REFILL: Duration = Duration::from_secs(1);

/// Accepts and serves until it is dropped; what is open then goes on until the runtime ends. `hold` is asked for each connection, and what it gives
/// is kept as long as that. `listener_name` is for the log.
pub async fn accept<H: Send + 'static>(
    listener: TcpListener,
    listener_name: &'static str,
    router: Router,
    hold: impl Fn() -> H,
) {
    // Dropping a sender ends its connection; a connection that ended has dropped its receiver.
    let mut open: VecDeque<oneshot::Sender<()>> = VecDeque::new();
    let mut spares = Spares::default();
    let mut refill = tokio::time::interval(REFILL);
    let mut is_failing = false;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = refill.tick() => {
                spares.refill();
                continue;
            }
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(_) if spares.release() => continue,
            // The oldest makes room: its task ends while this one waits.
            Err(_) if open.pop_front().is_some() => {
                tokio::task::yield_now().await;
                continue;
            }
            Err(error) => {
                if !is_failing {
                    tracing::warn!(%error, "{listener_name} cannot accept: it tries again");
                }
                is_failing = true;
                tokio::time::sleep(REST).await;
                continue;
            }
        };
        is_failing = false;
        open.retain(|ends| !ends.is_closed());
        while open.len() >= CONNECTIONS_MAX {
            open.pop_front();
        }
        let (ends, ended) = oneshot::channel();
        open.push_back(ends);
        tokio::spawn(serve(stream, router.clone(), ended, hold()));
    }
}

/// Descriptors that are open for nothing, to be closed when one is needed.
#[derive(Default)]
struct Spares(Vec<File>);

impl Spares {
    fn refill(&mut self) {
        while self.0.len() < SPARES
            && let Ok(file) = File::open("/dev/null")
        {
            self.0.push(file);
        }
    }

    fn release(&mut self) -> bool {
        self.0.pop().is_some()
    }
}

async fn serve<H>(stream: TcpStream, router: Router, ended: oneshot::Receiver<()>, _held: H) {
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_LIMIT)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    tokio::select! {
        // A client's mistakes and departures are its own.
        _ = connection => {}
        _ = ended => {}
        () = tokio::time::sleep(LIFE_LIMIT) => {}
    }
}
