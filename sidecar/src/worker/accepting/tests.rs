//! Two workers and one listener: whoever is paused by itself lends it, and takes it back.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU32};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use ringside_api::Settings;

use super::{Command, Relay, Worker};
use crate::backend::epoll::Epoll;
use crate::backend::{Backend, SocketOptions, listen};
use crate::pressure::shed::{LadderLimits, Pushback};
use crate::worker::Surroundings;
use crate::worker::access_log::AccessLog;
use crate::worker::command::Mailbox;
use crate::worker::shared::Shared;
use crate::worker::stats::{RelayStats, WorkerStats};

const PATIENCE: Duration = Duration::from_secs(20);

fn relay_to(target: &TcpListener) -> Arc<Relay> {
    Arc::new(Relay {
        name: "test".to_owned(),
        target: ArcSwap::from_pointee(String::new()),
        addresses: ArcSwap::from_pointee(vec![target.local_addr().unwrap().into()]),
        original_port: AtomicU16::new(0),
        proxy_protocol: AtomicBool::new(false),
        next_address: AtomicU32::new(0),
        stats: (0..2).map(|_| Arc::new(RelayStats::default())).collect(),
    })
}

fn two_workers() -> [Worker<Epoll>; 2] {
    let shared = Arc::new(Shared::new(0, 10_000));
    let mailboxes: Arc<[Mailbox]> = Arc::new([Mailbox::default(), Mailbox::default()]);
    [0, 1].map(|index| {
        let surroundings = Surroundings {
            index,
            shared: shared.clone(),
            stats: Arc::new(WorkerStats::default()),
            mailboxes: mailboxes.clone(),
            access_log: AccessLog::new().0,
        };
        let backend = Epoll::new(Instant::now(), 1 << 20).unwrap();
        Worker::new(backend, surroundings, &Settings::default(), 1)
    })
}

fn turn_until(workers: &mut [Worker<Epoll>], what: &str, done: impl Fn() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < PATIENCE, "waited in vain until {what}");
        for worker in workers.iter_mut() {
            worker.backend.waker().wake();
            assert_eq!(worker.turn(), None);
        }
    }
}

#[test]
fn a_worker_that_is_pushed_back_lends_its_listener_and_takes_it_back() {
    let target = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let relay = relay_to(&target);
    let mut workers = two_workers();
    let options = SocketOptions {
        no_delay: true,
        keepalive: Duration::ZERO,
        user_timeout: Duration::ZERO,
    };
    let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let mut listeners = listen::listen(any_port, 1, 16, &options).unwrap();
    workers[0].surroundings.mailboxes[0].send(Command::Listen {
        relay: relay.clone(),
        listener: Arc::new(listeners.sockets.remove(0)),
        of_worker: 0,
        lent_by: None,
    });
    let opened = |worker: usize| relay.stats[worker].opened.get();

    let _first = TcpStream::connect(listeners.address).unwrap();
    turn_until(&mut workers, "its own worker has the first", || {
        opened(0) == 1
    });

    // As after delays in a row, and it stays so while the test looks on.
    let pushed_back = Pushback {
        attempt: 11,
        stalled_since: Some(workers[0].now),
        share_percent: 100,
    };
    workers[0].ladder.set_limits(LadderLimits {
        step_down_after: Duration::from_secs(60),
        ..LadderLimits::default()
    });
    let now = workers[0].now;
    workers[0].ladder.update(&pushed_back, now);
    let paused = workers[0].surroundings.stats.clone();
    turn_until(&mut workers, "it has paused", || {
        paused.accept_pause.get() > 0
    });
    let _second = TcpStream::connect(listeners.address).unwrap();
    turn_until(&mut workers, "the other worker has the second", || {
        opened(1) == 1
    });

    workers[0].ladder = crate::pressure::shed::Ladder::default();
    turn_until(&mut workers, "it accepts again", || {
        paused.accept_pause.get() == 0
    });
    workers[1].backend.waker().wake();
    assert_eq!(workers[1].turn(), None);
    assert!(
        workers[1].listeners.is_empty(),
        "the listener was not given back"
    );
    let _third = TcpStream::connect(listeners.address).unwrap();
    turn_until(&mut workers, "its own worker has the third", || {
        opened(0) == 2
    });
    assert_eq!(opened(1), 1);
}

#[test]
fn a_listener_that_is_lent_while_its_relay_closes_is_not_kept() {
    let target = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let relay = relay_to(&target);
    let mut workers = two_workers();
    let options = SocketOptions {
        no_delay: true,
        keepalive: Duration::ZERO,
        user_timeout: Duration::ZERO,
    };
    let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let mut listeners = listen::listen(any_port, 1, 16, &options).unwrap();
    let listener = Arc::new(listeners.sockets.remove(0));
    workers[0].listen(relay.clone(), listener.clone(), 0);

    // The relay closes, of which the other worker hears first: between the two, its own worker lends the listener.
    listener.retire();
    drop(listener);
    workers[1].unlisten(&relay, None);
    workers[0].lend(true);
    workers[0].unlisten(&relay, None);
    for _ in 0..4 {
        for worker in &mut workers {
            worker.backend.waker().wake();
            assert_eq!(worker.turn(), None);
        }
    }
    assert!(workers[0].listeners.is_empty());
    assert!(workers[1].listeners.is_empty(), "it was kept");
    TcpStream::connect(listeners.address).unwrap_err();
}
