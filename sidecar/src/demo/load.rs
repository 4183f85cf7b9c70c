//! The load of the demo: clients that ask, check every byte of each answer, and count.
//! It owns a thread; it stops when told, after each client's last answer has come.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use super::application::body;

/// Clients at work at once.
const CLIENTS: u64 = 32;

/// Requests on one connection before the client makes another one, so that there is always something to accept.
const REQUESTS_PER_CONNECTION: u32 = 200;

/// A client's pause between two requests.
const THINKING: Duration = Duration::from_millis(4);

/// An answer that takes longer is lost. Longer than any fault of the demo.
const PATIENCE: Duration = Duration::from_secs(15);

/// What was asked and answered so far.
#[derive(Debug, Clone, Default)]
pub(super) struct Totals {
    pub(super) requests: u64,
    pub(super) bytes: u64,
    pub(super) lost: u64,
    /// What happened to the first request that was lost.
    pub(super) first_loss: Option<String>,
}

#[derive(Default)]
struct Counts {
    requests: AtomicU64,
    bytes: AtomicU64,
    lost: AtomicU64,
    first_loss: Mutex<Option<String>>,
    stop: AtomicBool,
    mark: Mutex<Option<Instant>>,
    first_after_mark: Mutex<Option<Duration>>,
}

/// Clients at work.
pub(super) struct Load {
    counts: Arc<Counts>,
    thread: Option<JoinHandle<()>>,
}

impl Load {
    pub(super) fn start(target: SocketAddr) -> Self {
        let counts = Arc::new(Counts::default());
        let theirs = counts.clone();
        let thread = std::thread::Builder::new()
            .name("load".to_owned())
            .spawn(move || {
                let Ok(runtime) = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                else {
                    return;
                };
                runtime.block_on(async {
                    let clients: Vec<_> = (0..CLIENTS)
                        .map(|client| tokio::spawn(be_client(client, target, theirs.clone())))
                        .collect();
                    for client in clients {
                        let _ = client.await;
                    }
                });
            });
        Load {
            counts,
            thread: thread.ok(),
        }
    }

    pub(super) fn totals(&self) -> Totals {
        let counts = &self.counts;
        Totals {
            requests: counts.requests.load(Ordering::Relaxed),
            bytes: counts.bytes.load(Ordering::Relaxed),
            lost: counts.lost.load(Ordering::Relaxed),
            first_loss: lock(&counts.first_loss).clone(),
        }
    }

    /// From now on the first answer that comes is waited for.
    pub(super) fn mark(&self) {
        *lock(&self.counts.mark) = Some(Instant::now());
    }

    /// How long after the mark the first answer came.
    pub(super) fn first_after_mark(&self) -> Option<Duration> {
        *lock(&self.counts.first_after_mark)
    }

    /// Has the clients finish what they have asked, and says how it went.
    pub(super) fn stop(mut self) -> Totals {
        self.counts.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        self.totals()
    }
}

async fn be_client(client: u64, target: SocketAddr, counts: Arc<Counts>) {
    let mut number = client << 32;
    while !counts.stop.load(Ordering::Relaxed) {
        let result = ask_on_one_connection(&mut number, target, &counts).await;
        if let Err(error) = result {
            counts.lost.fetch_add(1, Ordering::Relaxed);
            lock(&counts.first_loss).get_or_insert_with(|| format!("{error:#}"));
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

async fn ask_on_one_connection(
    number: &mut u64,
    target: SocketAddr,
    counts: &Counts,
) -> anyhow::Result<()> {
    let connect = tokio::time::timeout(PATIENCE, TcpStream::connect(target));
    let connection = connect
        .await
        .context("connecting took too long")?
        .context("connecting failed")?;
    let mut connection = BufReader::new(connection);
    for _ in 0..REQUESTS_PER_CONNECTION {
        if counts.stop.load(Ordering::Relaxed) {
            break;
        }
        *number += 1;
        let answer = tokio::time::timeout(PATIENCE, ask(*number, &mut connection));
        let bytes = answer.await.context("an answer took too long")??;
        counts.requests.fetch_add(1, Ordering::Relaxed);
        counts.bytes.fetch_add(bytes, Ordering::Relaxed);
        if let Some(mark) = *lock(&counts.mark) {
            lock(&counts.first_after_mark).get_or_insert_with(|| mark.elapsed());
        }
        tokio::time::sleep(THINKING).await;
    }
    Ok(())
}

/// One request and its answer; how many bytes went both ways.
async fn ask(number: u64, connection: &mut BufReader<TcpStream>) -> anyhow::Result<u64> {
    let request = format!("GET /{number} HTTP/1.1\r\nhost: demo\r\n\r\n");
    connection
        .write_all(request.as_bytes())
        .await
        .context("a request could not be sent")?;
    let mut head = 0;
    loop {
        let mut line = String::new();
        let length = connection
            .read_line(&mut line)
            .await
            .context("an answer broke off")?;
        ensure!(length > 0, "the connection ended before the answer");
        head += length;
        if line == "\r\n" {
            break;
        }
    }
    let wanted = body(number);
    let mut got = vec![0; wanted.len()];
    connection
        .read_exact(&mut got)
        .await
        .context("an answer broke off")?;
    ensure!(
        got == wanted,
        "an answer came with other bytes than were sent"
    );
    Ok((request.len() + head + got.len()) as u64)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
