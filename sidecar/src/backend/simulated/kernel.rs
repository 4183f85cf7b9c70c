//! The simulated kernel's state: time, sockets, pipes, what is due, and what it tells.
//!
//! It owns the sockets' table and the order of events. Peers act on it through `peers`, the backend through
//! `operations`. Everything follows from one seed: no clock, no real descriptor, no map whose order varies.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};

use fastrand::Rng;

use super::faults::Faults;
use super::link::{Checker, Closed, Link};
use super::operations::Running;
use super::pipes::FIRST_PIPE;
use crate::backend::{Completion, Errno, Event, OperationKind, Readiness, SocketId, Token};

/// Simulated sockets are numbered from here, so that a call that reached a real descriptor by mistake would fail.
pub(super) const FIRST_SOCKET: i32 = 1 << 24;

/// Steps kept for a story.
const STEPS_KEPT: usize = 1 << 20;

/// A socket's place in the table.
#[derive(Debug)]
pub(super) enum Slot {
    Free,
    /// Made, and not connected.
    Fresh,
    Listener {
        /// Links whose handshake is done.
        backlog: VecDeque<usize>,
        most: usize,
    },
    Linked(usize),
}

/// Something that is due at some time.
#[derive(Debug)]
pub(super) enum Due {
    /// A peer wants to act: the number is its own.
    Alarm(u64),
    /// What waits on a link is tried.
    Run(usize),
    /// What waits on a listener is tried.
    RunListener(SocketId),
    /// A connect is decided.
    Connected(Token, Result<(), Errno>),
    /// A completion comes late; with the backend it belongs to.
    Post(u32, Completion),
}

/// What peers are told of.
#[derive(Debug, Clone, Copy)]
pub enum Notice {
    /// The relay connected to a target: its server has a link.
    Connected(usize),
    /// Something happened on a link: bytes, an end or a reset came.
    Touched(usize),
    /// The relay closed its end of a link.
    Closed(usize),
}

/// The simulated kernel.
pub struct Kernel {
    pub(super) now_nanos: u64,
    pub(super) random: Rng,
    /// What goes wrong.
    pub faults: Faults,
    pub(super) slots: Vec<Slot>,
    pub(super) links: Vec<Link>,
    pub(super) pipes: BTreeMap<i32, VecDeque<u8>>,
    pub(super) next_pipe: i32,
    pub(super) operations: BTreeMap<u64, Running>,
    /// Which backend runs: what is due for one that was given up concerns nobody.
    pub(super) epoch: u32,
    events: BinaryHeap<Reverse<(u64, u64)>>,
    dues: BTreeMap<u64, Due>,
    next_event: u64,
    pub(super) completed: VecDeque<Completion>,
    pub(super) overflow: VecDeque<Completion>,
    /// Late completions on their way, by operation.
    pub(super) late: BTreeMap<u64, u32>,
    /// The entry of the pool that receives fill.
    pub(super) filling: Option<u32>,
    /// For peers, oldest first.
    pub notices: VecDeque<Notice>,
    /// Descriptors open, and how many may be.
    pub descriptors: u32,
    /// RLIMIT_NOFILE.
    pub descriptor_limit: u32,
    /// Whether servers expect a PROXY header.
    pub sends_header: bool,
    /// Where redirected connections were to go, if any are redirected.
    pub redirects_from: Option<std::net::SocketAddr>,
    /// What streams of servers are numbered from.
    pub next_server_stream: u32,
    /// What kernels hold of a stream each way.
    pub capacity: u64,
    /// The backend is being given up: sockets are closed under its operations.
    pub is_given_up: bool,
    /// What was done wrong, oldest first.
    pub violations: Vec<String>,
    steps: Option<VecDeque<String>>,
    /// Figures for reports and for the checks of progress.
    pub counts: Counts,
    /// What connects came to that did not go well, by the key of their tokens: an errno, or 0 where there never is an answer.
    pub connect_faults: BTreeMap<u64, Vec<i32>>,
}

/// What happened so far.
#[derive(Debug, Default, Clone, Copy)]
pub struct Counts {
    /// Calls of `enter`.
    pub enters: u64,
    /// Completions that the worker saw.
    pub completions: u64,
    /// Entries that were taken.
    pub taken: u64,
    /// Bytes spliced.
    pub spliced: u64,
    /// Bytes received by operations.
    pub received: u64,
    /// Turns in a row that moved nothing.
    pub idle_turns: u32,
    /// The most of them.
    pub idle_turns_most: u32,
    /// Submissions that met pushback.
    pub pushbacks: u64,
    /// Receives that found no buffer.
    pub shortages: u64,
    /// Times the completion queue overflowed.
    pub overflows: u64,
}

impl Kernel {
    /// A kernel at time zero.
    pub fn new(seed: u64, faults: Faults, descriptor_limit: u32, has_story: bool) -> Self {
        Kernel {
            now_nanos: 1_000,
            random: Rng::with_seed(seed),
            faults,
            slots: Vec::new(),
            links: Vec::new(),
            pipes: BTreeMap::new(),
            next_pipe: FIRST_PIPE,
            operations: BTreeMap::new(),
            epoch: 0,
            events: BinaryHeap::new(),
            dues: BTreeMap::new(),
            next_event: 0,
            completed: VecDeque::new(),
            overflow: VecDeque::new(),
            late: BTreeMap::new(),
            filling: None,
            notices: VecDeque::new(),
            descriptors: 0,
            descriptor_limit,
            sends_header: false,
            redirects_from: None,
            next_server_stream: 1_000_000,
            capacity: 64 << 10,
            is_given_up: false,
            violations: Vec::new(),
            steps: has_story.then(VecDeque::new),
            counts: Counts::default(),
            connect_faults: BTreeMap::new(),
        }
    }

    /// The simulated time, in nanoseconds.
    pub fn now_nanos(&self) -> u64 {
        self.now_nanos
    }

    /// Lets the clock jump.
    pub fn jump(&mut self, nanos: u64) {
        self.now_nanos += nanos;
        self.tell(|| format!("the clock jumps {} ms ahead", nanos / 1_000_000));
    }

    /// Keeps a step of the story, if one is kept.
    pub fn tell(&mut self, step: impl FnOnce() -> String) {
        let now = self.now_nanos;
        if let Some(steps) = &mut self.steps {
            if steps.len() == STEPS_KEPT {
                steps.pop_front();
            }
            steps.push_back(format!("{:>12.6} s  {}", now as f64 / 1e9, step()));
        }
    }

    pub(super) fn has_story(&self) -> bool {
        self.steps.is_some()
    }

    /// The story so far.
    pub fn take_steps(&mut self) -> Vec<String> {
        self.steps.take().map(Vec::from).unwrap_or_default()
    }

    /// Something was done that must never be.
    pub fn violate(&mut self, what: impl Into<String>) {
        let what = what.into();
        self.tell(|| format!("WRONG: {what}"));
        self.violations.push(what);
    }

    /// Pushback that ended is followed by another offer within the longest backoff.
    pub(super) fn check_progress(&mut self, pushed_until: Option<u64>, now: u64) {
        let late = pushed_until.map_or(0, |until| now.saturating_sub(until));
        if late > self.faults.patience {
            self.violate(format!(
                "pushback was over for {} us before the worker tried again",
                late / 1_000
            ));
        }
    }

    /// Whether a fault of this rate strikes now.
    pub(super) fn strikes(&mut self, rate: u32) -> bool {
        rate > 0 && self.now_nanos < self.faults.until && self.random.u32(0..1000) < rate
    }

    /// Has a peer act at some time.
    pub fn alarm_at(&mut self, nanos: u64, number: u64) {
        self.due(nanos, Due::Alarm(number));
    }

    pub(super) fn due(&mut self, nanos: u64, what: Due) {
        let id = self.next_event;
        self.next_event += 1;
        self.events.push(Reverse((nanos, id)));
        self.dues.insert(id, what);
    }

    pub(super) fn next_due(&self) -> Option<u64> {
        self.events.peek().map(|Reverse((at, _))| *at)
    }

    /// What is due now, if anything.
    pub(super) fn pop_due(&mut self) -> Option<Due> {
        let Reverse((at, id)) = *self.events.peek()?;
        if at > self.now_nanos {
            return None;
        }
        self.events.pop();
        self.dues.remove(&id)
    }

    /// A listener.
    pub fn listen(&mut self, most: usize) -> SocketId {
        let backlog = VecDeque::new();
        self.descriptors += 1;
        self.place(Slot::Listener { backlog, most })
    }

    /// Closes a listener: who waits there is reset.
    pub fn close_listener(&mut self, socket: SocketId) {
        if let Some(Slot::Listener { backlog, .. }) = self.slot(socket) {
            for link in std::mem::take(backlog) {
                self.links[link].error = Some(Errno(libc::ECONNRESET));
                self.links[link].closed = Some(Closed {
                    reset: true,
                    unread: 0,
                    room: 0,
                    at: self.now_nanos,
                });
                self.notices.push_back(Notice::Closed(link));
            }
            self.free(socket);
        }
    }

    /// How many wait to be accepted.
    pub fn waiting(&mut self, socket: SocketId) -> usize {
        match self.slot(socket) {
            Some(Slot::Listener { backlog, .. }) => backlog.len(),
            _ => 0,
        }
    }

    pub(super) fn place(&mut self, slot: Slot) -> SocketId {
        // The lowest free number, as a kernel does: what is still known of the number is about one that is gone.
        let free = self
            .slots
            .iter()
            .position(|slot| matches!(slot, Slot::Free));
        let index = free.unwrap_or_else(|| {
            self.slots.push(Slot::Free);
            self.slots.len() - 1
        });
        self.slots[index] = slot;
        SocketId(FIRST_SOCKET + index as i32)
    }

    pub(super) fn slot(&mut self, socket: SocketId) -> Option<&mut Slot> {
        let index = usize::try_from(socket.0 - FIRST_SOCKET).ok()?;
        self.slots.get_mut(index)
    }

    /// The link of a socket; a socket without one is misused.
    pub(super) fn link_of(&mut self, socket: SocketId) -> Option<usize> {
        match self.slot(socket) {
            Some(Slot::Linked(link)) => Some(*link),
            _ => None,
        }
    }

    fn free(&mut self, socket: SocketId) {
        if let Some(slot) = self.slot(socket) {
            *slot = Slot::Free;
            self.descriptors -= 1;
        }
    }

    pub(super) fn new_link(&mut self, stream: u32, is_client: bool) -> usize {
        let capacity = self.capacity;
        let checker = Checker::new(self.sends_header && !is_client);
        self.links.push(Link {
            stream,
            is_client,
            sent: 0,
            taken: 0,
            receive_capacity: capacity,
            peer_ended: false,
            end_was_told: false,
            error: None,
            written: 0,
            read: 0,
            send_capacity: capacity,
            is_shut: false,
            was_shut: false,
            closed: None,
            splices: false,
            changed: Readiness::default(),
            checker,
            stirred_at: self.now_nanos,
            peer_gone: false,
        });
        self.links.len() - 1
    }

    /// A link, to look at.
    pub fn link(&self, link: usize) -> &Link {
        &self.links[link]
    }

    /// How many links there have been.
    pub fn links(&self) -> usize {
        self.links.len()
    }

    /// Sockets that the relay has open, listeners aside.
    pub fn sockets_open(&self) -> usize {
        let is_open = |slot: &&Slot| matches!(slot, Slot::Fresh | Slot::Linked(_));
        self.slots.iter().filter(is_open).count()
    }

    /// Operations that are not over, by name.
    pub fn operations_left(&self) -> usize {
        self.operations.len()
    }

    pub(super) fn socket(&mut self) -> Result<SocketId, Errno> {
        if self.descriptors >= self.descriptor_limit || self.strikes(self.faults.no_descriptor) {
            return Err(Errno(if self.random.bool() {
                libc::EMFILE
            } else {
                libc::ENFILE
            }));
        }
        self.descriptors += 1;
        Ok(self.place(Slot::Fresh))
    }

    pub(super) fn shutdown_write(&mut self, socket: SocketId) {
        let Some(link) = self.link_of(socket) else {
            return self.violate("the end of a stream that has no connection");
        };
        self.links[link].is_shut = true;
        self.links[link].was_shut = true;
        self.notices.push_back(Notice::Touched(link));
        self.tell(|| format!("link {link}: the relay ends its stream"));
    }

    pub(super) fn close(&mut self, socket: SocketId, reset: bool) {
        let uses = |running: &Running| running.socket() == socket;
        if !self.is_given_up
            && let Some((&token, _)) = self.operations.iter().find(|(_, running)| uses(running))
        {
            let kind = Token::from_bits(token).kind();
            self.violate(format!(
                "socket {} is closed while a {kind:?} uses it",
                socket.0
            ));
        }
        if let Some(link) = self.link_of(socket) {
            let now = self.now_nanos;
            let state = &mut self.links[link];
            let (unread, room) = (state.unread(), state.room());
            let reset = reset || unread > 0;
            state.closed = Some(Closed {
                reset,
                unread,
                room,
                at: now,
            });
            state.is_shut = true;
            self.notices.push_back(Notice::Closed(link));
            let how = if reset { "by a reset" } else { "in order" };
            self.tell(|| format!("link {link}: the relay closes it {how}"));
        }
        match self.slot(socket) {
            Some(Slot::Fresh | Slot::Linked(_)) => self.free(socket),
            _ => self.violate(format!("socket {} is closed, and is not open", socket.0)),
        }
    }

    /// Takes bytes of the relay's into a connection, and checks them.
    pub(super) fn write(&mut self, link: usize, bytes: &[u8]) {
        let state = &mut self.links[link];
        if state.is_shut {
            return self.violate(format!("link {link}: bytes after the end of its stream"));
        }
        state.written += bytes.len() as u64;
        if let Err(wrong) = state.checker.check(bytes) {
            self.violate(format!("link {link}: {wrong}"));
        }
        self.notices.push_back(Notice::Touched(link));
    }

    /// Puts a completion into the queue, at once or after what already waits of the same operation.
    pub(super) fn post(&mut self, token: Token, event: Event, more: bool, not_before: u64) -> u64 {
        let completion = Completion { token, event, more };
        let mut at = self.now_nanos.max(not_before);
        if self.strikes(self.faults.late) {
            at += self.random.u64(1_000..2_000_000);
        }
        // What one operation tells keeps its order.
        if at > self.now_nanos || self.late.contains_key(&token.to_bits()) {
            let epoch = self.epoch;
            *self.late.entry(token.to_bits()).or_default() += 1;
            self.due(at, Due::Post(epoch, completion));
        } else {
            self.complete(completion);
        }
        at
    }

    /// A completion that was late comes.
    pub(super) fn post_late(&mut self, epoch: u32, completion: Completion) {
        if epoch != self.epoch {
            // A connection that was accepted and not told of ended with its ring.
            if let Event::Accepted(socket) = completion.event {
                self.close(socket, true);
            }
            return;
        }
        let bits = completion.token.to_bits();
        if let Some(left) = self.late.get_mut(&bits) {
            *left -= 1;
            if *left == 0 {
                self.late.remove(&bits);
            }
        }
        self.complete(completion);
    }

    pub(super) fn complete(&mut self, completion: Completion) {
        // What comes after what has overflowed waits behind it.
        let is_full = self.completed.len() >= self.faults.completions_most;
        if is_full || !self.overflow.is_empty() {
            self.overflow.push_back(completion);
        } else {
            self.completed.push_back(completion);
        }
    }

    /// Wakes the worker: a command is there for it.
    pub fn wake(&mut self) {
        self.complete(Completion {
            token: Token::new(OperationKind::Wake, 0),
            event: Event::Woken,
            more: true,
        });
    }
}
