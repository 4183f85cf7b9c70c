//! A connection to the controller: TCP, TLS, and HTTP/1.1 for the first call, within a time. It owns the socket and the task that drives
//! HTTP; dropping it ends both. What follows the first call is the line's ([`super::line`]).

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpStream, lookup_host};
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::call::not_upgraded;
use super::failure::Failure;
use super::trust::{self, Trust};
use super::{Controller, Host};

/// How long TCP and TLS may take together.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// How long nothing comes before the kernel asks whether the other end is there.
const PROBE_AFTER: Duration = Duration::from_secs(10);

/// How often it asks again, and so many times, before the connection is over.
const PROBE_EVERY: Duration = Duration::from_secs(3);
const PROBES: u32 = 2;

/// The most bytes of an answer's head.
const HEAD_BYTES_MAX: usize = 16 << 10;

/// An open connection, on which nothing was said yet.
pub(super) struct Connection {
    sender: SendRequest<Body>,
    /// The other end.
    pub(super) peer: SocketAddr,
    driver: JoinHandle<()>,
    descriptor: Arc<Descriptor>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// A descriptor that counts towards the process's limit for as long as this lives.
pub(super) struct Descriptor(Arc<dyn Host>);

impl Descriptor {
    fn of(host: &Arc<dyn Host>) -> Self {
        host.count_descriptors(1);
        Self(host.clone())
    }
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        self.0.count_descriptors(-1);
    }
}

impl Connection {
    /// Makes the first call. What was agreed to follow it goes over what is returned.
    pub(super) async fn upgrade(
        mut self,
        request: Request<Body>,
    ) -> Result<(Upgraded, Arc<Descriptor>), Failure> {
        let broke = |error: hyper::Error| broke(self.peer, &error);
        self.sender.ready().await.map_err(broke)?;
        let answer = self.sender.send_request(request).await.map_err(broke)?;
        if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(not_upgraded(answer).await);
        }
        let upgraded = hyper::upgrade::on(answer).await.map_err(broke)?;
        Ok((upgraded, self.descriptor.clone()))
    }

    /// Connects to `leader`, or to where the controller is said to be.
    pub(super) async fn open(
        controller: &Controller,
        host: &Arc<dyn Host>,
        leader: Option<SocketAddr>,
        trust: &Trust,
    ) -> Result<Self, Failure> {
        let opening = Self::open_unbounded(controller, host, leader, trust);
        let opened = tokio::time::timeout(CONNECT_LIMIT, opening).await;
        opened.unwrap_or_else(|_| {
            Err(Failure::TimedOut(format!(
                "there was no connection to {} within {CONNECT_LIMIT:?}; a NetworkPolicy may be in the way",
                place(controller, leader)
            )))
        })
    }

    async fn open_unbounded(
        controller: &Controller,
        host: &Arc<dyn Host>,
        leader: Option<SocketAddr>,
        trust: &Trust,
    ) -> Result<Self, Failure> {
        let descriptor = Descriptor::of(host);
        let (stream, peer) = secured(controller, leader, trust).await?;
        let (sender, connection) = http1::Builder::new()
            .max_buf_size(HEAD_BYTES_MAX)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| Failure::Unreachable(format!("{peer}: {error}")))?;
        // How it ends is told by the call that it takes with it.
        let driver = tokio::spawn(async move { drop(connection.with_upgrades().await) });
        Ok(Self {
            sender,
            peer,
            driver,
            descriptor: Arc::new(descriptor),
        })
    }
}

/// A connection that came to nothing.
fn broke(peer: SocketAddr, error: &hyper::Error) -> Failure {
    let cause = std::error::Error::source(error).map(|cause| format!(": {cause}"));
    let cause = cause.unwrap_or_default();
    Failure::Unreachable(format!("the connection to {peer} broke: {error}{cause}"))
}

/// Whether the controller can be reached and is who it should be: connects, and hangs up. Says where it is.
///
/// # Errors
/// A sentence.
pub fn reach(controller: &Controller) -> Result<SocketAddr, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("no runtime to connect by: {error}"))?;
    let trust = Trust::find(controller, None).map_err(|failure| failure.to_string())?;
    let reaching = async {
        let connected = secured(controller, None, &trust);
        tokio::time::timeout(CONNECT_LIMIT, connected).await
    };
    match runtime.block_on(reaching) {
        Ok(Ok((_, peer))) => Ok(peer),
        Ok(Err(failure)) => Err(failure.to_string()),
        Err(_) => Err(format!(
            "{} does not answer within {CONNECT_LIMIT:?}",
            place(controller, None)
        )),
    }
}

/// TCP and TLS.
async fn secured(
    controller: &Controller,
    leader: Option<SocketAddr>,
    trust: &Trust,
) -> Result<(TlsStream<TcpStream>, SocketAddr), Failure> {
    let unreachable =
        |error: io::Error| Failure::Unreachable(format!("{}: {error}", place(controller, leader)));
    let stream = match leader.or(controller.connect_to) {
        Some(address) => TcpStream::connect(address).await.map_err(unreachable)?,
        None => by_name(controller).await.map_err(unreachable)?,
    };
    let peer = stream.peer_addr().map_err(unreachable)?;
    let probes = TcpKeepalive::new().with_time(PROBE_AFTER);
    let probes = probes.with_interval(PROBE_EVERY).with_retries(PROBES);
    SockRef::from(&stream)
        .set_tcp_keepalive(&probes)
        .map_err(unreachable)?;
    let name = &controller.address.name;
    let stream = TlsConnector::from(trust.tls.clone())
        .connect(name.clone(), stream)
        .await
        .map_err(|error| trust::failure(&error, &name.to_str()))?;
    let alpn = stream.get_ref().1.alpn_protocol();
    if alpn.is_some_and(|protocol| protocol != trust::PROTOCOL) {
        return Err(Failure::Untrusted(format!(
            "{peer} does not speak HTTP/1.1: the address is another server's"
        )));
    }
    Ok((stream, peer))
}

/// Where a connection is to lead, for a sentence.
fn place(controller: &Controller, leader: Option<SocketAddr>) -> String {
    match leader.or(controller.connect_to) {
        Some(address) => format!("{} at {address}", controller.address),
        None => controller.address.to_string(),
    }
}

async fn by_name(controller: &Controller) -> io::Result<TcpStream> {
    let address = &controller.address;
    let name = address.name.to_str();
    let mut last = io::Error::other(format!("{name} has no address"));
    for address in lookup_host((name.as_ref(), address.port)).await? {
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}
