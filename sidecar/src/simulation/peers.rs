//! Clients, servers, and who tells the worker what to do: all that is outside the kernel in a run.
//!
//! It owns what each peer has done and seen, and never knows what goes on inside the relay.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use fastrand::Rng;
use socket2::SockAddr;

use super::plan::{Ending, Order, Plan, Script, Start, script};
use crate::backend::listen::ListenSocket;
use crate::backend::simulated::{Kernel, Notice, Outside};
use crate::worker::command::{Command, Mailbox};
use crate::worker::shared::Relay;

/// Where the target is.
pub(super) fn target() -> std::net::SocketAddr {
    std::net::SocketAddr::from(([10, 255, 0, 2], 80))
}

/// One end outside the relay.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) link: usize,
    pub(super) script: Script,
    ended: bool,
    stalled: bool,
    /// It will do nothing more.
    is_done: bool,
    is_scheduled: bool,
    /// It has read an end of the relay's stream, at this many nanoseconds.
    pub(super) end_seen_at: Option<u64>,
}

/// Everyone outside.
pub(super) struct Peers {
    random: Rng,
    pub(super) plan: Plan,
    pub(super) peers: Vec<Peer>,
    /// By link.
    of_link: Vec<Option<usize>>,
    mailboxes: Arc<[Mailbox]>,
    relay: Arc<Relay>,
    listener: Arc<ListenSocket>,
    next_stream: u32,
    /// The link of the client that comes when all is well again.
    pub(super) probe: Option<usize>,
    pub(super) is_calm: bool,
    pub(super) has_finish: bool,
}

/// How long after all is well those who vanished or stall are reset, in nanoseconds.
const PATIENCE: u64 = 200_000_000;
/// When after that a client comes for whom all must be well: the longest debt of the rate, and the pauses of the gate,
/// are over.
const PROBE_AFTER: u64 = 15_000_000_000;
/// How long it may take.
const PROBE_TAKES: u64 = 3_000_000_000;

const PEER: u64 = 0;
const CLIENT: u64 = 1 << 32;
const ORDER: u64 = 2 << 32;
const CALM: u64 = 3 << 32;
const CLEAR: u64 = 4 << 32;
const PROBE: u64 = 5 << 32;
const END: u64 = 6 << 32;

impl Peers {
    pub(super) fn new(
        plan: Plan,
        mailboxes: Arc<[Mailbox]>,
        relay: Arc<Relay>,
        listener: Arc<ListenSocket>,
    ) -> Self {
        Peers {
            random: Rng::with_seed(plan.seed ^ 0x5eed),
            plan,
            peers: Vec::new(),
            of_link: Vec::new(),
            mailboxes,
            relay,
            listener,
            next_stream: 1,
            probe: None,
            is_calm: false,
            has_finish: false,
        }
    }

    /// Sets the times at which something happens.
    pub(super) fn schedule(&self, kernel: &mut Kernel) {
        for (index, (at, _)) in self.plan.clients.iter().enumerate() {
            kernel.alarm_at(*at, CLIENT | index as u64);
        }
        for (index, (at, _)) in self.plan.orders.iter().enumerate() {
            kernel.alarm_at(*at, ORDER | index as u64);
        }
        kernel.alarm_at(self.plan.calm_at, CALM);
    }

    fn command(&mut self, command: Command, kernel: &mut Kernel) {
        self.mailboxes[0].send(command);
        kernel.wake();
    }

    pub(super) fn listen(&self) -> Command {
        Command::Listen {
            relay: self.relay.clone(),
            listener: self.listener.clone(),
            of_worker: 0,
            lent_by: None,
        }
    }

    fn obey(&mut self, order: Order, kernel: &mut Kernel) {
        kernel.tell(|| match &order {
            Order::Settings(_) => "order: other settings".to_owned(),
            other => format!("order: {other:?}"),
        });
        let relay = self.relay.clone();
        let command = match order {
            Order::Settings(settings) => Command::Settings(Arc::new(*settings)),
            Order::Unlisten => Command::Unlisten {
                relay,
                of_worker: None,
            },
            Order::Listen if self.has_finish => return,
            Order::Listen => self.listen(),
            Order::Finish(limit) => {
                if self.has_finish {
                    return;
                }
                self.has_finish = true;
                let unlisten = Command::Unlisten {
                    relay,
                    of_worker: None,
                };
                self.command(unlisten, kernel);
                Command::Finish(limit)
            }
            Order::Addresses(has_some) => {
                let count = if has_some { 2 } else { 0 };
                let address = SockAddr::from(target());
                return self.relay.addresses.store(Arc::new(vec![address; count]));
            }
            Order::Jump(nanos) => return kernel.jump(nanos),
        };
        self.command(command, kernel);
    }

    fn add(&mut self, link: usize, script: Script, kernel: &mut Kernel) {
        if self.of_link.len() <= link {
            self.of_link.resize(link + 1, None);
        }
        self.of_link[link] = Some(self.peers.len());
        self.peers.push(Peer {
            link,
            script,
            ended: false,
            stalled: false,
            is_done: false,
            is_scheduled: false,
            end_seen_at: None,
        });
        self.act_soon(self.peers.len() - 1, kernel);
    }

    fn act_soon(&mut self, index: usize, kernel: &mut Kernel) {
        let peer = &mut self.peers[index];
        if !peer.is_scheduled && !peer.is_done {
            peer.is_scheduled = true;
            // Nobody dawdles when all is well: what is left comes to its end.
            let longest = if self.is_calm { 100_000 } else { u64::MAX };
            let pause = self.random.u64(0..=peer.script.pause.min(longest));
            kernel.alarm_at(kernel.now_nanos() + pause, PEER | index as u64);
        }
    }

    fn client(&mut self, script: Script, kernel: &mut Kernel) -> Option<usize> {
        let stream = self.next_stream;
        self.next_stream += 1;
        let link = kernel.arrive(self.listener.id(), stream)?;
        kernel.tell(|| format!("link {link}: a client connects: {script:?}"));
        self.add(link, script, kernel);
        Some(link)
    }

    /// A peer acts: reads, sends, ends.
    fn act(&mut self, index: usize, kernel: &mut Kernel) {
        let calm = self.is_calm;
        let peer = &mut self.peers[index];
        peer.is_scheduled = false;
        if peer.is_done {
            return;
        }
        let (link, script) = (peer.link, peer.script);
        let sent = kernel.link(link).sent;
        match script.ending {
            Ending::Vanish(after) if sent >= after => {
                peer.is_done = true;
                return kernel.tell(|| format!("link {link}: the peer vanishes"));
            }
            Ending::Reset(after) if sent >= after => {
                peer.is_done = true;
                return kernel.peer_reset(link);
            }
            _ => {}
        }
        if script.stall > 0 && !peer.stalled && !calm && sent >= script.total / 2 {
            peer.stalled = true;
            peer.is_scheduled = true;
            kernel.tell(|| format!("link {link}: the peer stalls for {} ns", script.stall));
            return kernel.alarm_at(kernel.now_nanos() + script.stall, PEER | index as u64);
        }
        let least = if calm { 65_536 } else { 1 };
        let most = self.random.u64(1..=script.piece.max(least));
        let state = kernel.link(link);
        let unread = state.written - state.read;
        // Who reads byte by byte comes to an end all the same.
        let has_read = kernel.peer_read(link, most.max(unread / 20)) > 0;
        let state = kernel.link(link);
        if let Some(closed) = state.closed
            && (closed.reset || state.read == state.written)
        {
            peer.is_done = true;
            return;
        }
        let sees_end = state.is_shut && state.read == state.written;
        if sees_end && peer.end_seen_at.is_none() {
            peer.end_seen_at = Some(kernel.now_nanos());
        }
        let has_started = match script.start {
            Start::AtOnce => true,
            Start::AfterBytes(bytes) => state.checker.bytes >= bytes || sees_end || calm,
            Start::AfterTheEnd => sees_end || calm,
        };
        let mut has_sent = false;
        if has_started && !peer.ended {
            let limit = match script.ending {
                Ending::InOrder => script.total,
                Ending::Reset(after) | Ending::Vanish(after) => after,
            };
            let left = limit - sent.min(limit);
            has_sent = kernel.peer_write(link, left.min(most)) > 0;
            if left == 0 && script.ending == Ending::InOrder {
                kernel.peer_end(link);
                self.peers[index].ended = true;
            }
        }
        // Who could do nothing acts again when the relay has.
        if has_read || has_sent {
            self.act_soon(index, kernel);
        }
    }

    /// Whoever vanished or waits for one that did is reset, so that nothing is left but what the relay owes.
    fn clear(&mut self, kernel: &mut Kernel) {
        for peer in &mut self.peers {
            let is_open = kernel.link(peer.link).closed.is_none();
            if is_open && matches!(peer.script.ending, Ending::Vanish(_) | Ending::Reset(_)) {
                peer.is_done = true;
                kernel.peer_reset(peer.link);
            }
        }
    }
}

/// Everyone outside, as the kernel calls on them.
pub(super) struct Everyone(pub(super) Rc<RefCell<Peers>>);

impl Outside for Everyone {
    fn alarm(&mut self, number: u64, kernel: &mut Kernel) {
        let peers = &mut *self.0.borrow_mut();
        let index = number as u32 as usize;
        match number & !0xffff_ffff {
            PEER => peers.act(index, kernel),
            CLIENT => {
                let script = peers.plan.clients[index].1;
                peers.client(script, kernel);
            }
            ORDER => {
                let order = peers.plan.orders[index].1.clone();
                peers.obey(order, kernel);
            }
            CALM => {
                kernel.tell(|| "from here on all is well".to_owned());
                peers.is_calm = true;
                let now = kernel.now_nanos();
                kernel.alarm_at(now + PATIENCE, CLEAR);
                if !peers.plan.ends_early() {
                    kernel.alarm_at(now + PROBE_AFTER, PROBE);
                }
                kernel.alarm_at(now + PROBE_AFTER + PROBE_TAKES, END);
                for index in 0..peers.peers.len() {
                    peers.act_soon(index, kernel);
                }
            }
            CLEAR => peers.clear(kernel),
            PROBE => {
                let script = Script {
                    total: 1_000,
                    piece: 1_000,
                    pause: 10_000,
                    start: Start::AtOnce,
                    ending: Ending::InOrder,
                    stall: 0,
                };
                kernel.tell(|| "a client comes for whom all must be well".to_owned());
                peers.probe = peers.client(script, kernel);
                if peers.probe.is_none() {
                    kernel.violate("the listener takes nobody though all is well");
                }
            }
            _ => peers.obey(Order::Finish(std::time::Duration::from_secs(2)), kernel),
        }
    }

    fn notice(&mut self, notice: Notice, kernel: &mut Kernel) {
        let peers = &mut *self.0.borrow_mut();
        match notice {
            Notice::Connected(link) => {
                let calm = peers.is_calm;
                let mut script = script(&mut peers.random, false);
                if calm {
                    script.ending = Ending::InOrder;
                    script.stall = 0;
                    script.piece = script.piece.max(4_096);
                }
                kernel.tell(|| format!("link {link}: its server: {script:?}"));
                peers.add(link, script, kernel);
            }
            Notice::Touched(link) | Notice::Closed(link) => {
                if let Some(index) = peers.of_link.get(link).copied().flatten() {
                    peers.act_soon(index, kernel);
                }
            }
        }
    }
}
