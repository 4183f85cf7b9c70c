//! A worker on a real backend and real sockets of loopback, turned by hand: what it counts and keeps has to
//! add up after streams, stalls and ends.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use ringside_api::Settings;
use socket2::{Domain, SockAddr, Socket, Type};

use super::access_log::AccessLog;
use super::command::{Command, Mailbox};
use super::shared::{Relay, Shared};
use super::stats::{RelayStats, WorkerStats};
use super::{Connection, Exit, Surroundings, Worker};
use crate::backend::epoll::Epoll;
use crate::backend::{Backend, SocketOptions, listen};
use crate::flow::{CloseReason, Side};

/// Turns without success for so long are a failure.
const PATIENCE: Duration = Duration::from_secs(20);

struct Bench {
    worker: Worker<Epoll>,
    relay: Arc<Relay>,
    listener: Arc<listen::ListenSocket>,
    address: SocketAddr,
    target: TcpListener,
}

fn settings(change: impl FnOnce(&mut Settings)) -> Settings {
    let mut settings = Settings::default();
    change(&mut settings);
    settings
}

impl Bench {
    fn new(settings: &Settings) -> Self {
        let target = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        target.set_nonblocking(true).unwrap();
        let relay = Arc::new(Relay {
            name: "test".to_owned(),
            target: ArcSwap::from_pointee(String::new()),
            addresses: ArcSwap::from_pointee(vec![target.local_addr().unwrap().into()]),
            original_port: AtomicU16::new(0),
            proxy_protocol: AtomicBool::new(false),
            next_address: AtomicU32::new(0),
            stats: vec![Arc::new(RelayStats::default())],
        });
        let surroundings = Surroundings {
            index: 0,
            shared: Arc::new(Shared::new(0, 10_000)),
            stats: Arc::new(WorkerStats::default()),
            mailboxes: Arc::new([Mailbox::default()]),
            access_log: AccessLog::new().0,
        };
        let options = SocketOptions {
            no_delay: true,
            keepalive: Duration::ZERO,
            user_timeout: Duration::ZERO,
        };
        let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let mut listeners = listen::listen(any_port, 1, 16, &options).unwrap();
        let backend = Epoll::new(Instant::now(), 8 << 20).unwrap();
        let mut bench = Bench {
            worker: Worker::new(backend, surroundings, settings, 1),
            relay,
            listener: Arc::new(listeners.sockets.remove(0)),
            address: listeners.address,
            target,
        };
        let (relay, listener) = (bench.relay.clone(), bench.listener.clone());
        bench.tell(Command::Listen {
            relay,
            listener,
            of_worker: 0,
            lent_by: None,
        });
        bench
    }

    fn tell(&mut self, command: Command) {
        self.worker.surroundings.mailboxes[0].send(command);
        self.turn();
    }

    /// One turn that does not wait.
    fn turn(&mut self) -> Option<Exit> {
        self.worker.backend.waker().wake();
        self.worker.turn()
    }

    fn turn_until(&mut self, what: &str, mut done: impl FnMut(&mut Bench) -> bool) {
        let began = Instant::now();
        while !done(self) {
            assert!(began.elapsed() < PATIENCE, "waited in vain until {what}");
            assert_eq!(self.turn(), None);
        }
    }

    /// A relayed connection: the client's end and the target's.
    fn connect(&mut self) -> (TcpStream, TcpStream) {
        let client = TcpStream::connect(self.address).unwrap();
        client.set_nonblocking(true).unwrap();
        let mut accepted = None;
        self.turn_until("the target has a connection", |bench| {
            accepted = bench.target.accept().ok();
            accepted.is_some()
        });
        let upstream = accepted.unwrap().0;
        upstream.set_nonblocking(true).unwrap();
        (client, upstream)
    }

    fn connection(&mut self) -> &mut Connection {
        let id = self.worker.connections.ids()[0];
        self.worker.connections.get_mut(id).unwrap()
    }

    fn descriptors(&self) -> u32 {
        let shared = &self.worker.surroundings.shared;
        shared.descriptors_open.load(Ordering::Relaxed)
    }
}

/// Sends the bytes of a pattern that tells one place from another.
struct Sender(u64);

impl Sender {
    fn send(&mut self, to: &mut TcpStream, until: u64) {
        let mut block = [0; 64 * 1024];
        while self.0 < until {
            let most = block.len().min((until - self.0) as usize);
            (self.0..)
                .zip(&mut block[..most])
                .for_each(|(at, byte)| *byte = pattern(at));
            match to.write(&block[..most]) {
                Ok(sent) => self.0 += sent as u64,
                Err(error) => return assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
        }
    }
}

/// Takes the bytes of a [`Sender`].
struct Taker(u64);

impl Taker {
    fn take(&mut self, from: &mut TcpStream, most: u64) {
        let mut block = [0; 64 * 1024];
        let until = self.0 + most;
        while self.0 < until {
            match from.read(&mut block) {
                Ok(0) => return,
                Ok(got) => {
                    for &byte in &block[..got] {
                        assert_eq!(byte, pattern(self.0), "byte {} is another's", self.0);
                        self.0 += 1;
                    }
                }
                Err(error) => return assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
        }
    }
}

fn pattern(at: u64) -> u8 {
    (at % 251) as u8
}

/// Sends a stream until it is spliced.
fn spliced(bench: &mut Bench, client: &mut TcpStream, upstream: &mut TcpStream) -> (Sender, Taker) {
    let (mut sender, mut taker) = (Sender(0), Taker(0));
    bench.turn_until("a stream is spliced", |bench| {
        let sent = sender.0 + (1 << 20);
        sender.send(client, sent);
        taker.take(upstream, 1 << 20);
        bench.worker.surroundings.stats.spliced_bytes.get() > 0
    });
    (sender, taker)
}

#[test]
fn a_stream_gives_back_its_pipes_and_a_lower_limit_closes_them() {
    let mut bench = Bench::new(&Settings::default());
    let (mut client, mut upstream) = bench.connect();
    let (mut sender, mut taker) = spliced(&mut bench, &mut client, &mut upstream);
    assert_eq!(bench.worker.pipes.held, 2);
    let all = sender.0 + (4 << 20);
    bench.turn_until("the stream is through", |_| {
        sender.send(&mut client, all);
        taker.take(&mut upstream, 1 << 20);
        taker.0 == all
    });
    client.shutdown(Shutdown::Both).unwrap();
    upstream.shutdown(Shutdown::Both).unwrap();
    bench.turn_until("the connection is over", |bench| {
        bench.worker.connections.is_empty()
    });
    let pipes = &bench.worker.pipes;
    assert_eq!((pipes.held, pipes.free.len() as u32), (0, pipes.made));
    assert!(pipes.made > 0);
    assert_eq!(bench.descriptors(), 2 * bench.worker.pipes.made);
    let none = settings(|settings| settings.buffers.pipes = 0);
    bench.tell(Command::Settings(Arc::new(none)));
    bench.turn_until("the pipes are closed", |bench| bench.descriptors() == 0);
    assert_eq!(bench.worker.pipes.made, 0);
}

#[test]
fn a_stream_ended_with_bytes_in_its_pipe_is_reset_and_leaves_nothing_behind() {
    let mut bench = Bench::new(&Settings::default());
    let (mut client, mut upstream) = bench.connect();
    let (mut sender, _taker) = spliced(&mut bench, &mut client, &mut upstream);
    // The target takes no more: the pipe fills.
    bench.turn_until("bytes are stuck in the pipe", |bench| {
        let sent = sender.0 + (1 << 20);
        sender.send(&mut client, sent);
        let is_quiet = bench.worker.streams.is_empty();
        is_quiet && bench.connection().flow.pipe(Side::Client).is_some()
    });
    bench.tell(Command::Finish(Duration::ZERO));
    bench.turn_until("the connection is over", |bench| {
        bench.worker.connections.is_empty()
    });
    let pipes = &bench.worker.pipes;
    assert_eq!((pipes.held, pipes.free.len() as u32), (0, pipes.made));
    assert_eq!(bench.descriptors(), 2 * bench.worker.pipes.made);
    assert_eq!(bench.worker.chunks.queued_bytes(), 0);
    let closed = &bench.relay.stats[0].closed[CloseReason::DrainLimit.index()];
    assert_eq!(closed.get(), 1);
    let reset = std::iter::repeat_with(|| upstream.read(&mut [0; 4096])).find_map(Result::err);
    assert_eq!(
        reset.map(|error| error.kind()),
        Some(ErrorKind::ConnectionReset)
    );
}

#[test]
fn a_taker_that_stalls_again_has_its_bytes_moved_out_again() {
    let mut bench = Bench::new(&settings(|settings| settings.buffers.pipes = 0));
    let (mut client, mut upstream) = bench.connect();
    let (mut sender, mut taker) = (Sender(0), Taker(0));
    for stall in 1..=2 {
        bench.turn_until("the target has stalled with bytes in the pool", |bench| {
            let sent = sender.0 + (1 << 20);
            sender.send(&mut client, sent);
            let queue = *bench.connection().flow.queue(Side::Client);
            let moved = bench.connection().flow.last_activity();
            let quiet = bench.worker.now.saturating_since(moved);
            bench.worker.chunks.holds_entries(&queue) && quiet > Duration::from_millis(20)
        });
        bench.worker.move_out_held_up();
        bench.turn_until(
            &format!("its bytes are moved out in stall {stall}"),
            |bench| {
                let queue = *bench.connection().flow.queue(Side::Client);
                !queue.is_empty() && !bench.worker.chunks.holds_entries(&queue)
            },
        );
        let stuck = sender.0;
        bench.turn_until("the target goes on", |_| {
            taker.take(&mut upstream, 1 << 20);
            taker.0 == stuck
        });
    }
    client.shutdown(Shutdown::Write).unwrap();
    upstream.shutdown(Shutdown::Write).unwrap();
    bench.turn_until("the connection is over", |bench| {
        bench.worker.connections.is_empty()
    });
    assert_eq!(taker.0, sender.0);
    assert_eq!(bench.worker.chunks.queued_bytes(), 0);
}

#[test]
fn a_connection_stays_small() {
    // Of the 512 bytes of user memory that an idle connection may cost: the rest is its timer, its slot in
    // the lists and what the backend keeps of two sockets.
    const MOST_BYTES: usize = 288;
    let size = size_of::<Option<Connection>>();
    assert!(size <= MOST_BYTES, "a connection takes {size} bytes");
}

#[test]
fn a_full_backlog_of_a_unix_socket_is_waited_for() {
    let mut bench = Bench::new(&Settings::default());
    let folder = tempfile::tempdir().unwrap();
    let address = SockAddr::unix(folder.path().join("target")).unwrap();
    let stream = || {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        socket.set_nonblocking(true).unwrap();
        socket
    };
    let target = stream();
    target.bind(&address).unwrap();
    target.listen(0).unwrap();
    // Others fill the backlog.
    let others: Vec<Socket> = std::iter::repeat_with(stream)
        .take_while(|other| other.connect(&address).is_ok())
        .collect();
    bench.relay.addresses.store(Arc::new(vec![address]));
    let mut client = TcpStream::connect(bench.address).unwrap();
    client.write_all(b"x").unwrap();
    bench.turn_until("the relay was turned away", |bench| {
        let was_accepted = !bench.worker.connections.is_empty();
        was_accepted && !bench.connection().flow.socket(Side::Upstream).is_some()
    });
    for _ in &others {
        target.accept().unwrap();
    }
    let mut accepted = None;
    bench.turn_until("the target has the connection", |_| {
        accepted = target.accept().ok();
        accepted.is_some()
    });
    let mut accepted = accepted.unwrap().0;
    accepted.set_nonblocking(true).unwrap();
    bench.turn_until("the byte is through", |_| {
        matches!(accepted.read(&mut [0; 8]), Ok(1))
    });
    // The client's, the target's.
    assert_eq!(bench.descriptors(), 2);
}
