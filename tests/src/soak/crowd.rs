//! The clients of the soak and the application behind the relay: threads that play scripts and write down how each ended.
//! Clients make no connection while they are held; nobody ends a connection of theirs but themselves.

use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use fastrand::Rng;

use super::accounts::Ledger;
use super::script::{End, Script};
use crate::traffic::{Server, Stream, Trouble};

/// After it was turned away a client waits a moment.
const TURNED_AWAY_PAUSE: Duration = Duration::from_millis(30);

/// How long a client waits between two connections, at most.
const LONGEST_PAUSE_MS: u64 = 40;

/// A mistake that the application makes on purpose, so that tests can see that it is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sabotage {
    /// The application takes some connections for others, and has other bytes for them.
    ForeignBytes,
    /// The application ends a connection early, now and then.
    EndEarly,
}

/// The books, and the clock they are kept by.
#[derive(Debug)]
pub struct Books {
    /// When the soak began.
    pub begin: Instant,
    ledger: Mutex<Ledger>,
}

impl Books {
    /// Empty ones.
    pub fn new(begin: Instant) -> Arc<Self> {
        Arc::new(Self {
            begin,
            ledger: Mutex::default(),
        })
    }

    /// Time since the begin.
    pub fn now(&self) -> Duration {
        self.begin.elapsed()
    }

    /// The connections.
    pub fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An application at `address` (port 0: the kernel's choice).
#[track_caller]
pub fn application(address: &str, books: &Arc<Books>, sabotage: Option<Sabotage>) -> Server {
    let books = Arc::clone(books);
    Server::tcp(address, move |stream, number| {
        // A connection that ends before its header is one whose client will tell.
        let Some(script) = Script::read(stream) else {
            return Ok(());
        };
        if !books.ledger().application_began(script.id) {
            return Ok(());
        }
        let end = match sabotage {
            Some(sabotage) if number % 20 == 19 => spoil(sabotage, stream, script),
            _ => script.play_application(stream),
        };
        let now = books.now();
        books.ledger().application_ended(script.id, end.into(), now);
        Ok(())
    })
}

/// What a relay with a mistake would make of a connection.
fn spoil(sabotage: Sabotage, stream: &Stream, script: Script) -> Result<(), Trouble> {
    match sabotage {
        Sabotage::ForeignBytes => Script {
            id: script.id ^ (1 << 63),
            ..script
        }
        .play_application(stream),
        Sabotage::EndEarly => Ok(()),
    }
}

#[derive(Debug, PartialEq, Eq, Clone, Copy)]
enum Order {
    Go,
    Hold,
    Stop,
}

#[derive(Debug)]
struct Shared {
    order: Mutex<Order>,
    changed: Condvar,
    books: Arc<Books>,
    address: SocketAddr,
}

impl Shared {
    fn give(&self, order: Order) {
        *self.order.lock().unwrap_or_else(PoisonError::into_inner) = order;
        self.changed.notify_all();
    }

    /// Waits until connections may be made; `false` when it is over.
    fn may_go(&self) -> bool {
        let order = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        let held = |order: &mut Order| *order == Order::Hold;
        let order = self
            .changed
            .wait_while(order, held)
            .unwrap_or_else(PoisonError::into_inner);
        *order == Order::Go
    }
}

/// Clients that make one connection after the other.
#[derive(Debug)]
pub struct Crowd {
    shared: Arc<Shared>,
    clients: Vec<JoinHandle<()>>,
}

impl Crowd {
    /// So many clients of what listens at `address`; they are held at first.
    pub fn new(count: u64, seed: u64, address: SocketAddr, books: &Arc<Books>) -> Self {
        let shared = Arc::new(Shared {
            order: Mutex::new(Order::Hold),
            changed: Condvar::new(),
            books: Arc::clone(books),
            address,
        });
        let clients = (0..count)
            .map(|number| {
                let shared = Arc::clone(&shared);
                thread::spawn(move || client(&shared, seed, number))
            })
            .collect();
        Self { shared, clients }
    }

    /// Lets them make connections.
    pub fn go(&self) {
        self.shared.give(Order::Go);
    }

    /// Lets them finish those that they have, and make no more.
    pub fn hold(&self) {
        self.shared.give(Order::Hold);
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.shared.give(Order::Stop);
        for client in self.clients.drain(..) {
            // A panic of that thread was already printed.
            let _ = client.join();
        }
    }
}

fn client(shared: &Shared, seed: u64, number: u64) {
    let random = &mut Rng::with_seed(seed ^ (number + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    let books = &shared.books;
    while shared.may_go() {
        // Bit 63 is for sabotage. Two alike are as good as never drawn.
        let id = random.u64(..) >> 1;
        let script = Script::random(random, id);
        let pause = Duration::from_millis(random.u64(0..LONGEST_PAUSE_MS));
        books.ledger().client_began(id, script.shape, books.now());
        let end = script.play_client(shared.address);
        let was_turned_away = matches!(end, End::TurnedAway(_));
        books.ledger().client_ended(id, end, books.now());
        thread::sleep(if was_turned_away {
            TURNED_AWAY_PAUSE
        } else {
            pause
        });
    }
}
