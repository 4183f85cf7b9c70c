//! The model world: runs one flow through a [`Plan`], as the real worker would, and checks at every step what
//! must hold.

use std::collections::HashSet;
use std::time::Duration;

use super::kernel::{Piped, Receive, Send, Socket};
use super::memory::Memory;
use super::plan::{Answer, Ending, Plan};
use crate::backend::SocketId;
use crate::flow::{ChunkStore, CloseReason, Flow, Side, View};
use crate::time::Time;

pub(super) const HEADER_BYTES: u32 = 28;
/// More steps than this are a run that never ends.
const STEPS_MOST: usize = 60_000;

/// What may happen next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Connect,
    Receive(Side),
    Send(Side),
    Poll(Side),
    Watch(Side),
    Pump,
    PeerTakes(Side),
    PeerSends(Side),
    PeerEnds(Side),
    Relief,
    Timer,
    // What follows happens only while there is tape.
    Pass,
    Interrupt,
    ShareChanges,
    SplicingIsAllowed,
    Shortage,
    WorkerEnds,
}

/// How a run ended.
#[derive(Debug)]
pub(super) struct End {
    pub(super) reason: CloseReason,
    pub(super) reset: bool,
    /// Reasons for which the run gave cause; none if nothing but a clean end is right.
    pub(super) causes: HashSet<CloseReason>,
    pub(super) sockets: [Socket; 2],
    /// How often it went to splicing.
    pub(super) splices: u32,
}

pub(super) struct World {
    pub(super) plan: Plan,
    pub(super) tape_at: usize,
    pub(super) flow: Flow,
    pub(super) chunks: ChunkStore,
    pub(super) memory: Memory,
    pub(super) sockets: [Socket; 2],
    pub(super) stalled_until: [Option<Time>; 2],
    pub(super) now: Time,
    pub(super) connect: Option<(Answer, bool)>,
    pub(super) attempts: usize,
    pub(super) pipes: Vec<Piped>,
    pub(super) timer_at: Time,
    pub(super) share_bytes: u32,
    pub(super) share_most: u32,
    pub(super) may_splice: bool,
    pub(super) shortage: bool,
    pub(super) is_starved: bool,
    pub(super) is_streaming: bool,
    pub(super) moving_out: [bool; 2],
    pub(super) splices: u32,
    pub(super) holds_places: bool,
    pub(super) closed: Option<bool>,
    /// When a byte or an end last came or went.
    pub(super) moved_at: Time,
    pub(super) causes: HashSet<CloseReason>,
}

impl World {
    pub(super) fn new(plan: Plan) -> Self {
        let now = Time::from_nanos(1_000_000_000);
        let mut world = World {
            tape_at: 0,
            flow: Flow::new(SocketId(0), now),
            chunks: ChunkStore::default(),
            memory: Memory::default(),
            sockets: Default::default(),
            stalled_until: [None; 2],
            now,
            connect: None,
            attempts: 0,
            pipes: Vec::new(),
            timer_at: Time::MAX,
            share_bytes: plan.share_bytes,
            share_most: plan.share_bytes,
            may_splice: true,
            shortage: false,
            is_starved: false,
            is_streaming: false,
            moving_out: [false; 2],
            splices: 0,
            holds_places: false,
            closed: None,
            moved_at: now,
            causes: HashSet::new(),
            plan,
        };
        world.settle();
        world
    }

    /// Runs until the flow is closed.
    pub(super) fn run(mut self) -> End {
        for _ in 0..STEPS_MOST {
            if let Some(reset) = self.closed {
                assert_eq!(self.memory.live(), 0, "chunks are left");
                assert_eq!(self.chunks.queued_bytes(), 0, "bytes are left in the store");
                assert!(!self.holds_places, "places for pipes are left");
                return End {
                    reason: self.flow.closing().expect("a closed flow has a reason"),
                    reset,
                    causes: self.causes,
                    sockets: self.sockets,
                    splices: self.splices,
                };
            }
            let steps = self.steps();
            assert!(
                !steps.is_empty(),
                "nothing is left to happen: {:?}",
                self.flow
            );
            let step = steps[self.choose(steps.len())];
            if step == Step::Timer {
                self.check_nothing_is_left_undone();
            }
            self.take(step);
        }
        panic!("the run never ends: {:?} {:?}", self.flow, self.sockets);
    }

    pub(super) fn has_tape(&self) -> bool {
        self.tape_at < self.plan.tape.len()
    }

    /// One of `count` choices; the first one is the most ordinary.
    pub(super) fn choose(&mut self, count: usize) -> usize {
        let value = self.plan.tape.get(self.tape_at).copied().unwrap_or(0);
        self.tape_at += 1;
        usize::from(value) % count.max(1)
    }

    /// From 1 to `most`; mostly all.
    pub(super) fn amount(&mut self, most: u64) -> u32 {
        let most = most.min(u64::from(u32::MAX)) as u32;
        match self.choose(4) {
            0 | 1 => most,
            2 => (most / 2).max(1),
            _ => (1 + self.choose(256) as u32).min(most),
        }
    }

    /// Whether something goes wrong now, about one time in `of`.
    pub(super) fn goes_wrong(&mut self, of: usize) -> bool {
        self.plan.faults && self.has_tape() && self.choose(of) == of - 1
    }

    pub(super) fn socket(&mut self, side: Side) -> &mut Socket {
        &mut self.sockets[side as usize]
    }

    pub(super) fn total(&self, from: Side) -> u64 {
        u64::from(self.plan.bytes[from as usize])
    }

    pub(super) fn header(&self, from: Side) -> u64 {
        if self.plan.header && from == Side::Client {
            u64::from(HEADER_BYTES)
        } else {
            0
        }
    }

    pub(super) fn is_short_of_buffers(&self) -> bool {
        let view = self.view();
        !view.may_receive && self.flow.lacks_receive(view.share_bytes)
    }

    pub(super) fn view(&self) -> View {
        View {
            now: self.now,
            share_bytes: self.share_bytes,
            may_receive: !self.shortage,
            exact_receive_limit: self.plan.exact_receive_limit,
            may_splice: self.may_splice,
        }
    }

    pub(super) fn steps(&mut self) -> Vec<Step> {
        let mut steps = Vec::new();
        let connecting = self
            .connect
            .map(|(answer, cancelled)| cancelled || answer != Answer::Silence);
        steps.extend(connecting.unwrap_or(false).then_some(Step::Connect));
        for side in Side::BOTH {
            let socket = &self.sockets[side as usize];
            let receives = |op: &Receive| op.is_cancelled || socket.is_readable();
            let sends = |op: &Send| op.is_cancelled || socket.is_writable();
            steps.extend(
                socket
                    .receive
                    .as_ref()
                    .is_some_and(receives)
                    .then_some(Step::Receive(side)),
            );
            steps.extend(
                socket
                    .send
                    .as_ref()
                    .is_some_and(sends)
                    .then_some(Step::Send(side)),
            );
            let polls = socket
                .poll
                .as_ref()
                .is_some_and(|op| op.is_cancelled || op.news.is_some());
            steps.extend(polls.then_some(Step::Poll(side)));
            let over = socket.reset || socket.refuses || socket.ended;
            let watches = socket
                .watch
                .is_some_and(|is_cancelled| is_cancelled || over);
            steps.extend(watches.then_some(Step::Watch(side)));
        }
        steps.extend(self.is_streaming.then_some(Step::Pump));
        for side in Side::BOTH {
            let is_connected = side == Side::Client || !self.flow.is_connecting();
            steps.extend((is_connected && self.may_take(side)).then_some(Step::PeerTakes(side)));
        }
        for side in Side::BOTH {
            let is_connected = side == Side::Client || !self.flow.is_connecting();
            let socket = &self.sockets[side as usize];
            let open = is_connected && !socket.ended && !socket.reset;
            let sends = open && socket.sent < self.total(side);
            steps.extend(sends.then_some(Step::PeerSends(side)));
            let ends = open
                && match self.plan.ending[side as usize] {
                    Ending::Never => false,
                    Ending::Reset => true,
                    Ending::Shut | Ending::Close => socket.sent == self.total(side),
                };
            steps.extend(ends.then_some(Step::PeerEnds(side)));
        }
        steps.extend(self.shortage.then_some(Step::Relief));
        let stalls = self
            .stalled_until
            .iter()
            .flatten()
            .any(|&until| until > self.now);
        if self.has_tape() {
            steps.extend([Step::Pass, Step::ShareChanges, Step::SplicingIsAllowed]);
            steps.extend(self.plan.moves_out.then_some(Step::Interrupt));
            steps.extend((self.plan.faults && !self.shortage).then_some(Step::Shortage));
            let ends = self.plan.is_ended && self.tape_at + 40 > self.plan.tape.len();
            steps.extend(ends.then_some(Step::WorkerEnds));
        }
        // Time passes on its own only when nothing else happens.
        if steps.is_empty() && (self.timer_at != Time::MAX || stalls) {
            steps.push(Step::Timer);
        }
        steps
    }

    pub(super) fn may_take(&self, side: Side) -> bool {
        let socket = &self.sockets[side as usize];
        let until = self.stalled_until[side as usize];
        socket.room < 256 * 1024 && !socket.reset && until.is_none_or(|until| self.now >= until)
    }

    pub(super) fn take(&mut self, step: Step) {
        match step {
            Step::Connect => self.connect_ends(),
            Step::Receive(side) => self.receive_goes_on(side),
            Step::Send(side) => self.send_goes_on(side),
            Step::Poll(side) => self.poll_reports(side),
            Step::Watch(side) => self.watch_reports(side),
            Step::Pump => self.pump(),
            Step::PeerTakes(side) => return self.peer_takes(side),
            Step::PeerSends(side) => return self.peer_sends(side),
            Step::PeerEnds(side) => return self.peer_ends(side),
            Step::Relief => {
                self.shortage = false;
                if !std::mem::take(&mut self.is_starved) {
                    return;
                }
            }
            Step::Timer => {
                let stalls = self.stalled_until.iter().flatten().copied();
                let next = stalls
                    .filter(|&until| until > self.now)
                    .fold(self.timer_at, Time::min);
                return self.pass_to(next);
            }
            Step::Pass => {
                let millis = [1, 4, 20, 60, 250, 700, 3000][self.choose(7)];
                return self.pass_to(self.now.saturating_add(Duration::from_millis(millis)));
            }
            Step::Interrupt => return self.interrupt(),
            Step::ShareChanges => {
                self.share_bytes = [self.plan.share_bytes, 4096, 65_536][self.choose(3)];
                self.share_most = self.share_most.max(self.share_bytes);
                return;
            }
            Step::SplicingIsAllowed => {
                self.may_splice = self.choose(2) == 0;
                return;
            }
            Step::Shortage => {
                self.shortage = true;
                return;
            }
            Step::WorkerEnds => {
                self.causes.insert(CloseReason::DrainLimit);
                self.flow.end(CloseReason::DrainLimit);
            }
        }
        self.settle();
    }
}

pub(super) fn reset_by(side: Side) -> CloseReason {
    match side {
        Side::Client => CloseReason::ClientReset,
        Side::Upstream => CloseReason::UpstreamReset,
    }
}
