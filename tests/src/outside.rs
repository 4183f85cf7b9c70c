//! A network outside a test's own, joined to it by a pair of virtual Ethernet devices, as a node's is to a pod's: what comes from
//! there comes in by an interface, not by the loopback.
//!
//! It owns the other network's thread; both devices go with the namespace when that ends. Nothing leads anywhere else.
#![allow(unsafe_code)]

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::panic::{self, AssertUnwindSafe};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::await_that;
use crate::namespace;
use crate::processes::output;
use crate::traffic::Stream;

/// How long one try to reach an address may take.
const ONE_TRY: Duration = Duration::from_millis(200);

type Work = Box<dyn FnOnce() + Send>;

/// A network beside this test's.
#[derive(Debug)]
pub struct Outside {
    work: Option<SyncSender<Work>>,
    thread: Option<JoinHandle<()>>,
    number: u8,
}

impl Outside {
    /// A network joined to that of the calling thread, which is a test's own. `number` tells several from each other: it is
    /// part of the addresses and of the devices' names.
    #[track_caller]
    pub fn join(number: u8) -> Self {
        let (work, works) = sync_channel::<Work>(0);
        let (says, said) = sync_channel(1);
        let thread = thread::Builder::new()
            .name(format!("outside-{number}"))
            .spawn(move || live(&says, &works));
        let outside = Self {
            work: Some(work),
            thread: Some(thread.expect("a thread for a network")),
            number,
        };
        let entered: io::Result<i32> = said.recv().expect("the thread says how it went");
        let task = entered.expect("a second network namespace").to_string();
        let device = format!("eth{number}");
        let ip = |arguments: &str| output("ip", arguments.split_whitespace());
        ip(&format!(
            "link add {device} type veth peer name {device} netns {task}"
        ));
        for address in outside.pod() {
            ip(&format!("addr add {} dev {device} nodad", network(address)));
        }
        ip(&format!("link set {device} up"));
        let own = outside.own();
        outside.run(move || {
            let ip = |arguments: &str| output("ip", arguments.split_whitespace());
            for address in own {
                ip(&format!("addr add {} dev {device} nodad", network(address)));
            }
            ip(&format!("link set {device} up"));
        });
        let pod = outside.pod();
        pod.into_iter().for_each(await_reachable);
        outside.run(move || pod.into_iter().for_each(await_reachable));
        outside
    }

    /// The addresses by which the test's network is reached from here, of IPv4 and of IPv6.
    pub fn pod(&self) -> [IpAddr; 2] {
        self.addresses(2)
    }

    /// Our own addresses, of IPv4 and of IPv6.
    pub fn own(&self) -> [IpAddr; 2] {
        self.addresses(1)
    }

    fn addresses(&self, host: u8) -> [IpAddr; 2] {
        let v6 = [
            0xfd77,
            0,
            0,
            u16::from(self.number),
            0,
            0,
            0,
            u16::from(host),
        ];
        [
            Ipv4Addr::from([10, 77, self.number, host]).into(),
            Ipv6Addr::from(v6).into(),
        ]
    }

    /// Does something there, and waits for it. What it starts stays there.
    #[track_caller]
    pub fn run<T: Send + 'static>(&self, body: impl FnOnce() -> T + Send + 'static) -> T {
        let (says, said) = sync_channel(1);
        let work = move || {
            let _ = says.send(panic::catch_unwind(AssertUnwindSafe(body)));
        };
        let thread = self.work.as_ref().expect("it lives until it is dropped");
        thread.send(Box::new(work)).expect("the thread takes work");
        match said.recv().expect("the thread does its work") {
            Ok(done) => done,
            Err(panicked) => panic::resume_unwind(panicked),
        }
    }

    /// Connects from there.
    ///
    /// # Errors
    /// What the kernel answered.
    pub fn connect(&self, address: SocketAddr) -> io::Result<Stream> {
        self.run(move || Stream::connect(address))
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        self.work = None;
        if let Some(thread) = self.thread.take() {
            // A panic of that thread was already printed.
            let _ = thread.join();
        }
    }
}

fn live(says: &SyncSender<io::Result<i32>>, works: &Receiver<Work>) {
    // SAFETY: it takes nothing and cannot fail.
    let entered = namespace::enter().map(|()| unsafe { libc::gettid() });
    let _ = says.send(entered);
    for work in works {
        work();
    }
}

/// Devices carry traffic a moment after they are up, and until then a connection waits for an answer in vain.
#[track_caller]
fn await_reachable(address: IpAddr) {
    // Where nobody listens the answer is a refusal, at once.
    await_that(&format!("{address} to be reachable"), || {
        let connected = TcpStream::connect_timeout(&(address, 1).into(), ONE_TRY);
        connected.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
    });
}

fn network(address: IpAddr) -> String {
    match address {
        IpAddr::V4(v4) => format!("{v4}/24"),
        IpAddr::V6(v6) => format!("{v6}/64"),
    }
}
