//! Operations in the simulated kernel: begun when they are taken, tried when something changed, ended once.
//!
//! It owns what is in flight. An operation that is over has had its last completion posted, and nothing of it is
//! looked at any more; before that what it points at is read again at each try, as a real kernel does.

use super::kernel::{Due, Kernel, Notice, Slot};
use crate::backend::pool::Pool;
use crate::backend::{Chunk, Errno, Event, Operation, Readiness, SocketId, Token};

/// An operation with all that it needs, as it waits in the submission queue.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) token: Token,
    pub(super) what: What,
}

/// [`Operation`], owned.
#[derive(Debug, Clone)]
pub(super) enum What {
    Accept {
        listener: SocketId,
        once: bool,
    },
    Connect {
        socket: SocketId,
    },
    Receive {
        socket: SocketId,
        left: u32,
    },
    Send {
        socket: SocketId,
        chunks: Vec<Chunk>,
    },
    Poll {
        socket: SocketId,
    },
    Watch {
        socket: SocketId,
    },
    Cancel {
        target: Token,
    },
}

impl What {
    pub(super) fn of(operation: &Operation<'_>) -> Self {
        match *operation {
            Operation::Accept { listener, once } => What::Accept { listener, once },
            Operation::Connect { socket, .. } => What::Connect { socket },
            Operation::Receive {
                socket,
                limit_bytes,
            } => What::Receive {
                socket,
                left: limit_bytes,
            },
            Operation::Send { socket, chunks } => What::Send {
                socket,
                chunks: chunks.to_vec(),
            },
            Operation::Poll { socket } => What::Poll { socket },
            Operation::Watch { socket } => What::Watch { socket },
            Operation::Cancel { target, .. } => What::Cancel { target },
        }
    }
}

/// An operation that the kernel took.
#[derive(Debug)]
pub(super) struct Running {
    what: What,
    /// When its last completion so far was posted: the next one comes no sooner.
    posted_at: u64,
}

impl Running {
    pub(super) fn socket(&self) -> SocketId {
        match self.what {
            What::Accept { listener, .. } => listener,
            What::Connect { socket }
            | What::Receive { socket, .. }
            | What::Send { socket, .. }
            | What::Poll { socket }
            | What::Watch { socket } => socket,
            What::Cancel { .. } => SocketId::NONE,
        }
    }
}

/// The most accepts of one try.
const ACCEPTS_AT_ONCE: usize = 16;

impl Kernel {
    /// Begins an operation that was taken from the queue.
    pub(super) fn begin(&mut self, entry: Entry, pool: &mut Pool, is_exact: bool) {
        let token = entry.token;
        if let What::Cancel { target } = entry.what {
            return self.cancel(target, pool, is_exact);
        }
        let running = Running {
            what: entry.what,
            posted_at: 0,
        };
        let socket = running.socket();
        if self.operations.insert(token.to_bits(), running).is_some() {
            self.violate(format!("two operations have the name {token:?}"));
        }
        if let Some(running) = self.operations.get(&token.to_bits())
            && self.has_story()
        {
            let step = format!("taken: {:x} {:?}", token.key(), running.what);
            self.tell(|| step);
        }
        let is_receive_or_send = self.link_of(socket).is_some();
        if is_receive_or_send && self.strikes(self.faults.arm_fails) {
            return self.end(token, Event::Failed(Errno(libc::EAGAIN)));
        }
        if is_receive_or_send && self.strikes(self.faults.cancels) {
            return self.end(token, Event::Cancelled);
        }
        if is_receive_or_send && self.strikes(self.faults.no_memory) {
            return self.end(token, Event::Failed(Errno(libc::ENOMEM)));
        }
        match self.operations.get(&token.to_bits()).map(|r| &r.what) {
            Some(What::Accept { .. }) => self.try_accept(socket),
            Some(What::Connect { .. }) => self.decide_connect(token),
            Some(What::Poll { .. }) => {
                if let Some(link) = self.link_of(socket) {
                    // What it is ready for already, it tells at once.
                    self.links[link].changed = self.links[link].readiness();
                    self.run(link, pool, is_exact);
                }
            }
            _ => match self.link_of(socket) {
                Some(link) => self.run(link, pool, is_exact),
                None => self.violate(format!("{token:?} on a socket without a connection")),
            },
        }
    }

    /// Ends an operation early, unless it has just ended by itself.
    pub(super) fn cancel(&mut self, target: Token, pool: &mut Pool, is_exact: bool) {
        let Some(running) = self.operations.get(&target.to_bits()) else {
            return;
        };
        let socket = running.socket();
        // What it could still do it may do first: a cancel is a race.
        if self.random.bool()
            && let Some(link) = self.link_of(socket)
        {
            self.run(link, pool, is_exact);
        }
        if self.operations.contains_key(&target.to_bits()) {
            self.tell(|| format!("cancelled: {:?} {:x}", target.kind(), target.key()));
            self.end(target, Event::Cancelled);
        }
    }

    /// Posts an operation's last completion.
    fn end(&mut self, token: Token, event: Event) {
        if let Some(running) = self.operations.remove(&token.to_bits()) {
            self.tell(|| format!("{:?} {:x} ends: {event:?}", token.kind(), token.key()));
            self.post(token, event, false, running.posted_at);
        }
    }

    fn goes_on(&mut self, token: Token, event: Event) {
        let Some(running) = self.operations.get(&token.to_bits()) else {
            return;
        };
        let posted_at = running.posted_at;
        self.tell(|| format!("{:?} {:x}: {event:?}", token.kind(), token.key()));
        let posted_at = self.post(token, event, true, posted_at);
        if let Some(running) = self.operations.get_mut(&token.to_bits()) {
            running.posted_at = posted_at;
        }
    }

    /// Completes a multishot operation once more, and at any time for the last time.
    fn again(&mut self, token: Token, event: Event, is_last: bool) {
        if is_last || self.strikes(self.faults.multishot_ends) {
            self.end(token, event);
        } else {
            self.goes_on(token, event);
        }
    }

    fn find(&self, socket: SocketId, is_wanted: impl Fn(&What) -> bool) -> Option<Token> {
        self.operations
            .iter()
            .find(|(_, running)| running.socket() == socket && is_wanted(&running.what))
            .map(|(&bits, _)| Token::from_bits(bits))
    }

    pub(super) fn try_accept(&mut self, listener: SocketId) {
        for _ in 0..ACCEPTS_AT_ONCE {
            let Some(token) = self.find(listener, |what| matches!(what, What::Accept { .. }))
            else {
                return;
            };
            let Some(What::Accept { once, .. }) = self
                .operations
                .get(&token.to_bits())
                .map(|r| r.what.clone())
            else {
                return;
            };
            let Some(Slot::Listener { backlog, .. }) = self.slot(listener) else {
                return;
            };
            if backlog.is_empty() {
                return;
            }
            let is_full = self.descriptors >= self.descriptor_limit;
            if is_full || self.strikes(self.faults.accept_fails) {
                let errors = [libc::EMFILE, libc::ENFILE, libc::ENOMEM, libc::ECONNABORTED];
                let index = if is_full { 0 } else { self.random.usize(0..4) };
                return self.end(token, Event::Failed(Errno(errors[index])));
            }
            let Some(Slot::Listener { backlog, .. }) = self.slot(listener) else {
                return;
            };
            let Some(link) = backlog.pop_front() else {
                return;
            };
            self.descriptors += 1;
            let socket = self.place(Slot::Linked(link));
            self.tell(|| format!("link {link} is accepted as socket {}", socket.0));
            self.again(token, Event::Accepted(socket), once);
        }
        let soon = self.now_nanos + 10_000;
        self.due(soon, Due::RunListener(listener));
    }

    fn decide_connect(&mut self, token: Token) {
        let faults = self.faults.connect;
        let calm = self.now_nanos >= self.faults.until;
        let dice = if calm { 1000 } else { self.random.u32(0..1000) };
        let mut bound = 0;
        let mut falls = |rate: u32| {
            let before = bound;
            bound += rate;
            dice >= before && dice < bound
        };
        let result = if falls(faults.refused) {
            Err(Errno(libc::ECONNREFUSED))
        } else if falls(faults.unreachable) {
            Err(Errno(libc::EHOSTUNREACH))
        } else if falls(faults.other) {
            let errors = [libc::ETIMEDOUT, libc::EADDRNOTAVAIL];
            Err(Errno(errors[self.random.usize(0..2)]))
        } else if falls(faults.again) {
            Err(Errno(libc::EAGAIN))
        } else if falls(faults.black_hole) {
            self.connect_faults.entry(token.key()).or_default().push(0);
            return self.tell(|| format!("connect {:x} will never be answered", token.key()));
        } else {
            Ok(())
        };
        if let Err(errno) = result {
            let faults = self.connect_faults.entry(token.key()).or_default();
            faults.push(errno.0);
        }
        if calm || self.random.bool() {
            self.connected(token, result);
        } else {
            let later = self.now_nanos + self.random.u64(1_000..20_000_000);
            self.due(later, Due::Connected(token, result));
        }
    }

    pub(super) fn connected(&mut self, token: Token, result: Result<(), Errno>) {
        let Some(running) = self.operations.get(&token.to_bits()) else {
            return;
        };
        let socket = running.socket();
        match result {
            Ok(()) => {
                let stream = self.next_server_stream;
                self.next_server_stream += 1;
                let link = self.new_link(stream, false);
                match self.slot(socket) {
                    Some(slot @ Slot::Fresh) => *slot = Slot::Linked(link),
                    _ => return self.violate("a connect on a socket that is not fresh"),
                }
                self.notices.push_back(Notice::Connected(link));
                self.tell(|| format!("link {link} to the target is connected"));
                self.end(token, Event::Connected);
            }
            Err(errno) => self.end(token, Event::Failed(errno)),
        }
    }

    /// Tries all that waits on a link.
    pub(super) fn run(&mut self, link: usize, pool: &mut Pool, is_exact: bool) {
        let is_linked = |slot: &Slot| matches!(slot, Slot::Linked(other) if *other == link);
        let Some(index) = self.slots.iter().position(is_linked) else {
            return;
        };
        let socket = self.socket_at(index);
        self.try_receive(link, socket, pool, is_exact);
        self.try_send(link, socket, pool);
        self.try_polls(link, socket);
    }

    fn try_receive(&mut self, link: usize, socket: SocketId, pool: &mut Pool, is_exact: bool) {
        loop {
            let Some(token) = self.find(socket, |what| matches!(what, What::Receive { .. })) else {
                return;
            };
            if self.links[link].splices {
                self.violate(format!("link {link}: a receive on a socket in splice mode"));
            }
            let state = &mut self.links[link];
            let unread = state.unread();
            if unread == 0 {
                return match (state.error, state.peer_ended) {
                    (Some(errno), _) => self.end(token, Event::Failed(errno)),
                    (None, true) => {
                        state.end_was_told = true;
                        self.end(token, Event::EndOfStream);
                    }
                    (None, false) => {}
                };
            }
            if self.strikes(self.faults.no_buffers) {
                self.counts.shortages += 1;
                return self.end(token, Event::NoBuffers);
            }
            let Some(entry) = self.entry_to_fill(pool) else {
                self.counts.shortages += 1;
                return self.end(token, Event::NoBuffers);
            };
            let Some(running) = self.operations.get_mut(&token.to_bits()) else {
                return;
            };
            let What::Receive { left, .. } = &mut running.what else {
                return;
            };
            let mut bytes = unread.min(u64::from(pool.room(entry)));
            if is_exact {
                bytes = bytes.min(u64::from(*left));
            }
            let is_short =
                self.now_nanos < self.faults.until && self.random.u32(0..1000) < self.faults.short;
            if is_short {
                bytes = self.random.u64(1..=bytes);
            }
            *left = left.saturating_sub(bytes as u32);
            let is_last = is_exact && *left == 0;
            let taken = self.links[link].take(bytes);
            self.counts.received += bytes;
            let chunk = pool.fill(entry, &taken);
            self.notices.push_back(Notice::Touched(link));
            self.again(token, Event::Received(chunk), is_last);
            if self.random.u32(0..4) == 0 {
                // The rest in another turn.
                let soon = self.now_nanos + self.random.u64(1_000..100_000);
                return self.due(soon, Due::Run(link));
            }
        }
    }

    /// The entry that receives fill: a new one when the last is full, now and then before.
    fn entry_to_fill(&mut self, pool: &mut Pool) -> Option<u32> {
        if let Some(entry) = self.filling {
            if pool.room(entry) > 0 && self.random.u32(0..16) > 0 {
                return Some(entry);
            }
            pool.end_filling(entry);
        }
        self.filling = pool.begin_filling();
        self.filling
    }

    fn try_send(&mut self, link: usize, socket: SocketId, pool: &Pool) {
        let Some(token) = self.find(socket, |what| matches!(what, What::Send { .. })) else {
            return;
        };
        let state = &self.links[link];
        if let Some(errno) = state.error {
            let errors = [errno, Errno(libc::EPIPE)];
            let errno = errors[self.random.usize(0..2)];
            return self.end(token, Event::Failed(errno));
        }
        let mut left = state.room() as usize;
        if left == 0 {
            return;
        }
        if self.strikes(self.faults.short) {
            left = self.random.usize(1..=left);
        }
        let Some(What::Send { chunks, .. }) = self
            .operations
            .get(&token.to_bits())
            .map(|r| r.what.clone())
        else {
            return;
        };
        let mut sent = 0;
        for chunk in chunks {
            let bytes = &pool.bytes(chunk)[..left.min(chunk.len as usize)];
            self.write(link, bytes);
            sent += bytes.len();
            left -= bytes.len();
        }
        self.end(token, Event::Sent(sent as u32));
    }

    fn try_polls(&mut self, link: usize, socket: SocketId) {
        let state = &mut self.links[link];
        let (ready, changed) = (state.readiness(), state.changed);
        if ready.broken
            && let Some(token) = self.find(socket, |what| matches!(what, What::Watch { .. }))
        {
            self.end(token, Event::Ready(ready));
        }
        if (changed.readable || changed.writable || changed.broken)
            && let Some(token) = self.find(socket, |what| matches!(what, What::Poll { .. }))
        {
            self.links[link].changed = Readiness::default();
            self.again(token, Event::Ready(ready), false);
        }
    }

    pub(super) fn socket_at(&self, index: usize) -> SocketId {
        SocketId(super::kernel::FIRST_SOCKET + index as i32)
    }

    /// Gives up all that is in flight: its backend is gone.
    pub(super) fn abandon(&mut self) {
        self.operations.clear();
        self.completed.clear();
        // Connections that were accepted and not told of end with their ring.
        for completion in std::mem::take(&mut self.overflow) {
            if let Event::Accepted(socket) = completion.event {
                self.close(socket, true);
            }
        }
        self.late.clear();
        self.filling = None;
        self.epoch += 1;
        // The next backend's worker names its connections anew.
        self.connect_faults.clear();
        self.is_given_up = false;
        self.tell(|| "the backend is given up".to_owned());
    }
}
