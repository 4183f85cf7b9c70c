//! One TLS server for all that calls the controller: sidecars, the API server's webhooks, people who look.
//!
//! It owns sockets, handshakes, their limits and their ends. What is answered is the router's, what is shown the resolver's; it knows
//! neither. Every limit has a name in [`Limits`], and whatever reaches one is counted in [`Counts`].

mod calls;
mod connection;
mod counts;
mod limits;
mod room;
mod takeover;

pub use calls::OpenCall;
pub use counts::{Counts, HandshakeFailure};
pub use limits::Limits;
pub use takeover::{Activity, Session, Takeover};

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::server::{NoServerSessionStorage, ResolvesServerCert};
use tokio_rustls::rustls::version::TLS13;

use room::Room;

/// The first pause after an accept that failed, and the longest.
const ACCEPT_PAUSE: Duration = Duration::from_millis(5);
const ACCEPT_PAUSE_MOST: Duration = Duration::from_secs(1);

/// A server that is not serving yet.
#[derive(Clone)]
pub struct Server {
    shared: Arc<Shared>,
}

/// What all connections share.
pub(crate) struct Shared {
    acceptor: TlsAcceptor,
    router: Router,
    limits: Limits,
    counts: Arc<Counts>,
    handshakes: Arc<Semaphore>,
    room: Arc<Room>,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server")
            .field("limits", &self.shared.limits)
            .finish_non_exhaustive()
    }
}

impl Server {
    /// A server that shows what `resolver` says and answers by `router`, in HTTP/2 and HTTP/1.1 over TLS 1.3. Requests carry
    /// [`axum::extract::ConnectInfo`] of their peer's address.
    pub fn new(router: Router, resolver: Arc<dyn ResolvesServerCert>, limits: Limits) -> Self {
        let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let mut config = builder
            .with_protocol_versions(&[&TLS13])
            .expect("the provider knows TLS 1.3")
            .with_no_client_auth()
            .with_cert_resolver(resolver);
        config.alpn_protocols = vec![connection::HTTP2.to_vec(), b"http/1.1".to_vec()];
        // No resumption: whoever comes back verifies anew, and nothing is kept per client.
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        let handshakes = Arc::new(Semaphore::new(limits.handshakes_most));
        Self {
            shared: Arc::new(Shared {
                acceptor: TlsAcceptor::from(Arc::new(config)),
                router,
                limits,
                counts: Arc::default(),
                handshakes,
                room: Arc::default(),
            }),
        }
    }

    /// What happens, counted.
    pub fn counts(&self) -> Arc<Counts> {
        self.shared.counts.clone()
    }

    /// Serves until `stop` says so or its sender is gone; then open calls have [`Limits::grace`] to end, and it returns when all
    /// connections are closed. Once `leaves` says so, the connections that are open are asked to end, since whoever comes anew may be led to
    /// another replica; who is led here still is answered. It comes before `stop`, or with it.
    pub async fn serve(
        self,
        listener: TcpListener,
        leaves: watch::Receiver<bool>,
        mut stop: watch::Receiver<bool>,
    ) {
        let limits = &self.shared.limits;
        let connections = Arc::new(Semaphore::new(limits.connections_most));
        let mut pause = ACCEPT_PAUSE;
        while !*stop.borrow() {
            let accepted = tokio::select! {
                _ = stop.wait_for(|stop| *stop) => break,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => {
                    pause = ACCEPT_PAUSE;
                    let ends = if *leaves.borrow() { &stop } else { &leaves };
                    self.begin(stream, peer, &connections, ends);
                }
                // It was gone before it was taken: nothing is wrong here.
                Err(error) if is_of_the_peer(&error) => {}
                Err(error) => {
                    self.shared.counts.accept_failed(&error);
                    let jittered = pause.mul_f64(0.5 + fastrand::f64());
                    pause = (pause * 2).min(ACCEPT_PAUSE_MOST);
                    tokio::select! {
                        _ = stop.wait_for(|stop| *stop) => break,
                        () = tokio::time::sleep(jittered) => {}
                    }
                }
            }
        }
        drop(listener);
        // Each connection ends by itself, within the grace.
        let all = u32::try_from(limits.connections_most).unwrap_or(u32::MAX);
        let _ = connections.acquire_many(all).await;
    }

    fn begin(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
        connections: &Arc<Semaphore>,
        stop: &watch::Receiver<bool>,
    ) {
        let permit = connections.clone().try_acquire_owned();
        let most = self.shared.limits.connections_most;
        if permit.is_err() && !self.shared.room.make() {
            // Closed at once rather than left to wait: whoever it is may try another replica.
            self.shared.counts.connection_refused(most);
            return;
        }
        let (shared, stop) = (self.shared.clone(), stop.clone());
        let connections = connections.clone();
        tokio::spawn(async move {
            let permit = match permit {
                Ok(permit) => permit,
                // Whoever was sent away goes at once.
                Err(_) => {
                    shared.counts.connection_sent_away(most);
                    match connections.acquire_owned().await {
                        Ok(permit) => permit,
                        Err(_) => return,
                    }
                }
            };
            let open = shared.counts.clone().connection_opened();
            connection::run(&shared, stream, peer, stop).await;
            drop((open, permit));
        });
    }
}

fn is_of_the_peer(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}
