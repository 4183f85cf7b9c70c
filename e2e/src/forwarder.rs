//! A way to the API server that stalls, slows down or breaks on command: bytes are passed on as they are, encrypted.
//!
//! It owns its connections and its thread. It knows nothing of what it carries; [`crate::proxy`] does.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use kube::config::Kubeconfig;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;
use tokio::sync::watch;

use crate::apiserver::ApiServer;

/// What happens to bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Passage {
    /// They go through.
    #[default]
    Open,
    /// They are kept back, and go through later; connections are still accepted.
    Stalled,
    /// So many at a time, each after a pause.
    Slow {
        /// Bytes at a time, at least 1.
        bytes: usize,
        /// The pause before each.
        every: Duration,
    },
    /// Connections are accepted and reset at once, and those that were open as well.
    Closed,
}

#[derive(Debug, Clone, Copy, Default)]
struct Orders {
    passage: Passage,
    /// Connections older than this are cut.
    cuts: u64,
}

/// Listens at a port of its own, until it is dropped.
#[derive(Debug)]
pub struct Forwarder {
    address: SocketAddr,
    orders: Option<watch::Sender<Orders>>,
    thread: Option<JoinHandle<()>>,
}

impl Forwarder {
    /// Passes on to `target`.
    ///
    /// # Panics
    /// Without a port, a thread or a runtime.
    pub fn start(target: SocketAddr) -> Self {
        let listener =
            std::net::TcpListener::bind("127.0.0.1:0").expect("a port for the forwarder");
        listener
            .set_nonblocking(true)
            .expect("a listener can be non-blocking");
        let address = listener.local_addr().expect("a bound listener");
        let (orders, taken) = watch::channel(Orders::default());
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime for the forwarder");
        let name = thread::Builder::new().name("forwarder".to_owned());
        let thread = name.spawn(move || runtime.block_on(serve(listener, target, taken)));
        Self {
            address,
            orders: Some(orders),
            thread: Some(thread.expect("a thread for the forwarder")),
        }
    }

    /// A forwarder to `server`, and a kubeconfig that leads through it.
    ///
    /// # Panics
    /// If the API server is not at an address of IPv4 with a port.
    #[track_caller]
    pub fn to(server: &ApiServer) -> (Self, PathBuf) {
        let url = server.config().cluster_url;
        let host = url
            .host()
            .expect("the API server's URL has a host")
            .to_owned();
        let target = format!("{host}:{}", url.port_u16().unwrap_or(443));
        let target = std::net::ToSocketAddrs::to_socket_addrs(&target)
            .ok()
            .and_then(|mut found| found.next());
        let this = Self::start(target.expect("the API server's address"));
        let mut kubeconfig = Kubeconfig::read_from(server.kubeconfig()).expect("read before");
        for cluster in &mut kubeconfig.clusters {
            if let Some(cluster) = &mut cluster.cluster {
                cluster.server = Some(format!("https://{}", this.address));
                cluster.tls_server_name.get_or_insert_with(|| host.clone());
            }
        }
        let path = server.write_kubeconfig(&kubeconfig);
        (this, path)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on, for new connections and those that are open.
    pub fn set(&self, passage: Passage) {
        self.change(|orders| orders.passage = passage);
    }

    /// Resets all connections that are open; new ones are taken.
    pub fn cut(&self) {
        self.change(|orders| orders.cuts += 1);
    }

    fn change(&self, change: impl FnOnce(&mut Orders)) {
        if let Some(orders) = &self.orders {
            orders.send_modify(change);
        }
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        drop(self.orders.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Until nobody can give orders any more; what is open ends with the runtime.
async fn serve(
    listener: std::net::TcpListener,
    target: SocketAddr,
    mut orders: watch::Receiver<Orders>,
) {
    let listener = TcpListener::from_std(listener).expect("a listener for the runtime");
    loop {
        tokio::select! {
            changed = orders.changed() => if changed.is_err() { return },
            accepted = listener.accept() => if let Ok((client, _)) = accepted {
                tokio::spawn(carry(client, target, orders.clone()));
            },
        }
    }
}

/// One connection, to its end or until it is cut.
async fn carry(client: TcpStream, target: SocketAddr, mut orders: watch::Receiver<Orders>) {
    // A reset and no orderly end: what is cut must not look finished.
    let _ = client.set_zero_linger();
    let begun = orders.borrow().cuts;
    let is_over = move |now: &Orders| now.cuts != begun || now.passage == Passage::Closed;
    let directions = {
        let orders = orders.clone();
        async move {
            let server = TcpStream::connect(target).await?;
            let (mut from_client, mut to_client) = client.into_split();
            let (mut from_server, mut to_server) = server.into_split();
            let up = copy(&mut from_client, &mut to_server, orders.clone());
            let down = copy(&mut from_server, &mut to_client, orders);
            tokio::try_join!(up, down).map(drop)
        }
    };
    tokio::select! {
        biased;
        // An error here is the forwarder's end.
        _ = orders.wait_for(is_over) => {}
        // Why a connection failed is its two ends' to know.
        _ = directions => {}
    }
}

async fn copy(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    mut orders: watch::Receiver<Orders>,
) -> io::Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let count = from.read(&mut buffer).await?;
        let mut left = &buffer[..count];
        loop {
            let open = orders.wait_for(|now| now.passage != Passage::Stalled).await;
            let passage = open.map_or(Passage::Closed, |now| now.passage);
            if left.is_empty() {
                break;
            }
            let part = match passage {
                Passage::Slow { bytes, every } => {
                    tokio::time::sleep(every).await;
                    left.len().min(bytes.max(1))
                }
                _ => left.len(),
            };
            to.write_all(&left[..part]).await?;
            left = &left[part..];
        }
        if count == 0 {
            return to.shutdown().await;
        }
    }
}
