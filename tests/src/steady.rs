//! Steady traffic through a relay, for as long as somebody looks at it: clients that send, await the echo, rest, and now and then
//! connect anew. It judges nothing; a relay that is gone is waited for.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::PATIENCE;

/// Rounds of one connection.
const ROUNDS: u64 = 200;

/// The rest between two rounds.
const REST: Duration = Duration::from_millis(10);

/// Clients that go on until they are dropped.
#[derive(Debug)]
pub struct Steady {
    stop: Arc<AtomicBool>,
    rounds: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl Steady {
    /// So many clients of the relay at this address, whose messages have about so many bytes.
    #[track_caller]
    pub fn start(address: SocketAddr, clients: u64, bytes: usize) -> Self {
        let (stop, rounds) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU64::new(0)),
        );
        let threads = (0..clients).map(|number| {
            let (stop, rounds) = (stop.clone(), rounds.clone());
            let client = thread::Builder::new().name(format!("client-{number}"));
            let work = move || {
                let began = Instant::now();
                while !stop.load(Ordering::Relaxed) {
                    if connection(address, bytes, number, began, &stop, &rounds).is_err() {
                        thread::sleep(REST * 10);
                    }
                }
            };
            client.spawn(work).expect("a thread for a client")
        });
        let threads = threads.collect();
        Self {
            stop,
            rounds,
            threads,
        }
    }

    /// Rounds that were answered so far.
    pub fn rounds(&self) -> u64 {
        self.rounds.load(Ordering::Relaxed)
    }
}

fn connection(
    address: SocketAddr,
    bytes: usize,
    number: u64,
    began: Instant,
    stop: &AtomicBool,
    rounds: &AtomicU64,
) -> std::io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    for round in 0..ROUNDS + number * 7 {
        if stop.load(Ordering::Relaxed) {
            return Ok(());
        }
        // It comes and goes, as real load does.
        let wave = (began.elapsed().as_secs_f64() / 7.0 + number as f64).sin() * 0.4 + 0.6;
        let message = vec![round as u8; ((bytes as f64 * wave) as usize).max(1)];
        stream.write_all(&message)?;
        let mut echo = vec![0; message.len()];
        stream.read_exact(&mut echo)?;
        rounds.fetch_add(1, Ordering::Relaxed);
        thread::sleep(REST);
    }
    Ok(())
}

impl Drop for Steady {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // A panic of that thread was already printed.
            let _ = thread.join();
        }
    }
}
