//! Every order of what threads do with shared state, tried by loom.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use loom::thread;

use crate::backend::Waker;
use crate::pressure::rate::Rate;
use crate::time::Time;
use crate::worker::command::{Command, Mailbox};
use crate::worker::shared::Shared;

const NOW: Time = Time::from_nanos(1_000_000_000);

#[test]
fn no_connection_is_lost_from_the_shared_rate() {
    loom::model(|| {
        let rate = Rate::per_second(1000);
        let shared = Arc::new(Shared::new(0, 100));
        let workers: Vec<_> = [3, 5]
            .map(|connections| {
                let shared = shared.clone();
                thread::spawn(move || shared.spend(rate, connections, NOW))
            })
            .into();
        shared.spend(rate, 2, NOW);
        for worker in workers {
            worker.join().unwrap();
        }
        assert_eq!(shared.paid_until(), rate.spend(Time::ZERO, 10, NOW));
    });
}

#[test]
fn descriptors_are_counted_up_and_down() {
    loom::model(|| {
        let shared = Arc::new(Shared::new(7, 100));
        let other = shared.clone();
        let worker = thread::spawn(move || {
            other.count_descriptors(2);
            other.count_descriptors(-2);
        });
        shared.count_descriptors(3);
        shared.count_descriptors(-1);
        worker.join().unwrap();
        assert_eq!(shared.descriptors_open.load(Ordering::Relaxed), 9);
    });
}

#[test]
fn a_command_is_found_or_its_worker_is_woken() {
    loom::model(|| {
        let mailbox = Arc::new(Mailbox::default());
        let waker = Waker::new().unwrap();
        let senders: Vec<_> = [1, 2]
            .map(|seconds| {
                let mailbox = mailbox.clone();
                let finish = Command::Finish(Duration::from_secs(seconds));
                thread::spawn(move || mailbox.send(finish))
            })
            .into();
        // The worker: its backend is made, it can be woken from now on, and it looks once by itself.
        mailbox.set_waker(waker.clone());
        let found = std::iter::from_fn(|| mailbox.take()).count();
        for sender in senders {
            sender.join().unwrap();
        }
        let left = std::iter::from_fn(|| mailbox.take()).count();
        assert_eq!(found + left, 2);
        assert!(
            left == 0 || waker.clear(),
            "{left} commands wait, and nobody wakes the worker"
        );
    });
}
