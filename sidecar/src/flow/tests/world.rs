//! The model world: runs one flow through a [`Plan`], as the real worker would, and checks at every step what
//! must hold.

use std::collections::HashSet;
use std::time::Duration;

use super::kernel::{Piped, Receive, Send, Socket, pipe_name};
use super::memory::Memory;
use super::plan::{Answer, Ending, Plan, Taker};
use crate::backend::{Chunk, Errno, GATHER_MOST, SocketId};
use crate::flow::{Action, ChunkStore, CloseReason, Ending as What, Flow, Side, Timeouts, View};
use crate::time::Time;

pub(super) const HEADER_BYTES: u32 = 28;
const TICK: Duration = Duration::from_millis(4);
const STALL: Duration = Duration::from_secs(120);
const TIMEOUTS: Timeouts = Timeouts {
    connect: Duration::from_secs(2),
    idle: Duration::from_secs(600),
    half_close: Duration::from_secs(300),
};
/// More actions than this after one event are a loop.
const ACTIONS_MOST: usize = 64;
/// More steps than this are a run that never ends.
const STEPS_MOST: usize = 60_000;

/// What may happen next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Connect,
    Receive(Side),
    Send(Side),
    Poll(Side),
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
    pub(super) lasted: Duration,
}

pub(super) struct World {
    plan: Plan,
    tape_at: usize,
    pub(super) flow: Flow,
    chunks: ChunkStore,
    memory: Memory,
    sockets: [Socket; 2],
    stalled_until: [Option<Time>; 2],
    now: Time,
    connect: Option<(Answer, bool)>,
    attempts: usize,
    pipes: Vec<Piped>,
    timer_at: Time,
    share_bytes: u32,
    share_most: u32,
    may_splice: bool,
    shortage: bool,
    is_starved: bool,
    is_streaming: bool,
    moving_out: [bool; 2],
    splices: u32,
    holds_places: bool,
    closed: Option<bool>,
    causes: HashSet<CloseReason>,
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
            causes: HashSet::new(),
            plan,
        };
        world.settle();
        world
    }

    /// Runs until the flow is closed.
    pub(super) fn run(mut self) -> End {
        let began = self.now;
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
                    lasted: self.now.saturating_since(began),
                };
            }
            let steps = self.steps();
            assert!(
                !steps.is_empty(),
                "nothing is left to happen: {:?}",
                self.flow
            );
            let step = steps[self.choose(steps.len())];
            self.take(step);
        }
        panic!("the run never ends: {:?} {:?}", self.flow, self.sockets);
    }

    fn has_tape(&self) -> bool {
        self.tape_at < self.plan.tape.len()
    }

    /// One of `count` choices; the first one is the most ordinary.
    fn choose(&mut self, count: usize) -> usize {
        let value = self.plan.tape.get(self.tape_at).copied().unwrap_or(0);
        self.tape_at += 1;
        usize::from(value) % count.max(1)
    }

    /// From 1 to `most`; mostly all.
    fn amount(&mut self, most: u64) -> u32 {
        let most = most.min(u64::from(u32::MAX)) as u32;
        match self.choose(4) {
            0 | 1 => most,
            2 => (most / 2).max(1),
            _ => (1 + self.choose(256) as u32).min(most),
        }
    }

    /// Whether something goes wrong now, about one time in `of`.
    fn goes_wrong(&mut self, of: usize) -> bool {
        self.plan.faults && self.has_tape() && self.choose(of) == of - 1
    }

    fn socket(&mut self, side: Side) -> &mut Socket {
        &mut self.sockets[side as usize]
    }

    fn total(&self, from: Side) -> u64 {
        u64::from(self.plan.bytes[from as usize])
    }

    fn header(&self, from: Side) -> u64 {
        if self.plan.header && from == Side::Client {
            u64::from(HEADER_BYTES)
        } else {
            0
        }
    }

    fn view(&self) -> View {
        View {
            now: self.now,
            share_bytes: self.share_bytes,
            may_receive: !self.shortage,
            exact_receive_limit: self.plan.exact_receive_limit,
            may_splice: self.may_splice,
        }
    }

    // ----- the worker ---------------------------------------------------------------------------------

    /// Asks the flow for all that it wants, as the worker does after an event.
    fn settle(&mut self) {
        let view = self.view();
        for count in 0.. {
            assert!(count < ACTIONS_MOST, "actions without end: {:?}", self.flow);
            let Some(action) = self.flow.next_action(&view) else {
                break;
            };
            self.carry_out(action);
            if self.closed.is_some() {
                return;
            }
        }
        self.is_starved |= self.flow.is_starved(&view);
        self.is_streaming |= self.flow.has_splice_work(self.plan.share_bytes, self.now);
        assert_eq!(
            self.flow.holds_pipes(),
            self.holds_places,
            "places for pipes do not add up"
        );
        // Without an exact limit there is what came before the cancel took hold.
        for from in Side::BOTH
            .into_iter()
            .filter(|_| self.plan.exact_receive_limit)
        {
            let queued = u64::from(self.flow.queue(from).bytes());
            let most = u64::from(self.share_most) + self.header(from);
            assert!(queued <= most, "{queued} bytes are queued");
        }
        let deadline = self.flow.deadline(&TIMEOUTS).unwrap_or(Time::MAX);
        self.timer_at = self.timer_at.min(deadline);
        for chunk in self.chunks.take_released() {
            self.memory.release(chunk);
        }
    }

    fn carry_out(&mut self, action: Action) {
        match action {
            Action::Connect => self.start_connect(),
            Action::Receive { side, limit_bytes } => {
                assert!(limit_bytes > 0, "a receive of nothing");
                assert!(!self.shortage, "a receive is started though none may be");
                let socket = self.socket(side);
                assert!(socket.receive.is_none() && !socket.is_non_blocking);
                socket.receive = Some(Receive {
                    left_bytes: limit_bytes,
                    is_cancelled: false,
                });
            }
            Action::Send { from } => self.start_send(from),
            Action::Poll { side } => {
                let socket = self.socket(side);
                assert!(socket.poll.is_none() && socket.is_non_blocking);
                socket.start_poll();
            }
            Action::Cancel { side, what } => self.cancel(side, what),
            Action::ShutdownWrite { side } => {
                let from = side.other();
                let all = self.header(from) + self.sockets[from as usize].sent;
                assert!(
                    self.sockets[from as usize].ended,
                    "an end that was not sent"
                );
                let socket = self.socket(side);
                assert!(!socket.shut, "an end of stream is passed on twice");
                assert_eq!(socket.taken, all, "an end of stream overtakes bytes");
                socket.shut = true;
            }
            Action::BeginSplicing => {
                assert!(self.may_splice && !self.holds_places);
                self.holds_places = true;
                self.splices += 1;
                self.set_splice_mode(true);
            }
            Action::EndSplicing => {
                assert!(self.holds_places);
                self.holds_places = false;
                self.set_splice_mode(false);
            }
            Action::Close { reset } => self.close(reset),
        }
    }

    fn start_connect(&mut self) {
        assert!(self.connect.is_none());
        let answer = self.plan.addresses[self.attempts];
        self.attempts += 1;
        if self.plan.faults && self.choose(8) == 7 {
            // socket(2) failed: told at once, in the midst of the asking.
            self.causes.insert(CloseReason::ConnectFailed);
            return self.connect_failed(CloseReason::ConnectFailed);
        }
        self.flow.connecting_by(SocketId(1));
        self.connect = Some((answer, false));
    }

    fn connect_failed(&mut self, reason: CloseReason) {
        self.causes.insert(reason);
        let more = self.attempts < self.plan.addresses.len();
        self.flow.on_connect_failed(reason, more, self.now);
        assert_eq!(self.flow.socket(Side::Upstream), SocketId::NONE);
    }

    fn start_send(&mut self, from: Side) {
        let mut chunks = [Chunk::of_place(0, 0, 0); GATHER_MOST];
        let (count, bytes) = self.chunks.gather(self.flow.queue(from), &mut chunks);
        assert!(bytes > 0, "a send of nothing");
        let sink = self.socket(from.other());
        assert!(sink.send.is_none() && !sink.is_non_blocking && !sink.shut);
        sink.send = Some(Send {
            chunks: chunks[..count].to_vec(),
            done_bytes: 0,
            is_cancelled: false,
        });
    }

    fn cancel(&mut self, side: Side, what: What) {
        let connect = &mut self.connect;
        let socket = &mut self.sockets[side as usize];
        let flag = match what {
            What::Connect => connect.as_mut().map(|(_, is_cancelled)| is_cancelled),
            What::Receive => socket.receive.as_mut().map(|op| &mut op.is_cancelled),
            What::Send => socket.send.as_mut().map(|op| &mut op.is_cancelled),
            What::Poll => socket.poll.as_mut().map(|op| &mut op.is_cancelled),
        };
        let flag = flag.expect("what is cancelled is in flight");
        assert!(!*flag, "cancelled twice");
        *flag = true;
    }

    fn set_splice_mode(&mut self, splice: bool) {
        for side in Side::BOTH {
            assert!(self.flow.queue(side).is_empty(), "bytes are queued");
            assert!(self.flow.pipe(side).is_none(), "a pipe is lent");
            let socket = self.socket(side);
            assert!(!socket.is_in_use(), "an operation is in flight");
            socket.is_non_blocking = splice;
        }
    }

    fn close(&mut self, reset: bool) {
        assert!(self.connect.is_none(), "closed with a connect in flight");
        let in_use = self.sockets.iter().any(Socket::is_in_use);
        assert!(!in_use, "closed with an operation in flight");
        let mut cut_short = false;
        for from in Side::BOTH {
            cut_short |= !self.flow.queue(from).is_empty();
        }
        self.holds_places &= !self.flow.holds_pipes();
        for (pipe, is_empty) in self.flow.dispose(&mut self.chunks).into_iter().flatten() {
            let piped = &self.pipes[pipe.read as usize / 2];
            assert_eq!(piped.bytes == 0, is_empty, "the flow miscounts its pipe");
            cut_short |= !is_empty;
        }
        assert!(reset || !cut_short, "a close without reset cuts short");
        for chunk in self.chunks.take_released() {
            self.memory.release(chunk);
        }
        self.closed = Some(reset);
    }

    fn move_out(&mut self, from: Side) {
        if !std::mem::take(&mut self.moving_out[from as usize])
            || self.flow.closing().is_some()
            || self.flow.queue(from).is_empty()
        {
            return;
        }
        let position = self.sockets[from.other() as usize].taken;
        let mut at = position;
        let memory = &self.memory;
        self.chunks.for_each(self.flow.queue(from), |chunk| {
            assert_eq!(memory.position(from, chunk), at, "a queue out of order");
            at += u64::from(chunk.len);
        });
        let own = self.memory.own(from, position, (at - position) as u32);
        self.flow.replace_queue(from, own, &mut self.chunks);
    }

    // ----- what may happen ----------------------------------------------------------------------------

    fn steps(&mut self) -> Vec<Step> {
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

    fn may_take(&self, side: Side) -> bool {
        let socket = &self.sockets[side as usize];
        let until = self.stalled_until[side as usize];
        socket.room < 256 * 1024 && !socket.reset && until.is_none_or(|until| self.now >= until)
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Connect => self.connect_ends(),
            Step::Receive(side) => self.receive_goes_on(side),
            Step::Send(side) => self.send_goes_on(side),
            Step::Poll(side) => self.poll_reports(side),
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

    /// Time passes; timers come at the tick at or after their deadline.
    fn pass_to(&mut self, to: Time) {
        let tick = TICK.as_nanos() as u64;
        let to = Time::from_nanos(to.as_nanos().div_ceil(tick) * tick).max(self.now);
        while self.timer_at <= to && self.closed.is_none() {
            let due = Time::from_nanos(self.timer_at.as_nanos().div_ceil(tick) * tick);
            self.now = self.now.max(due);
            self.timer_at = Time::MAX;
            let connecting = self.flow.is_connecting();
            self.flow.on_timer(&TIMEOUTS, self.now);
            match self.flow.closing() {
                Some(CloseReason::ConnectTimeout) if connecting => {
                    self.causes.insert(CloseReason::ConnectTimeout);
                }
                Some(reason @ (CloseReason::IdleTimeout | CloseReason::HalfCloseTimeout)) => {
                    self.causes.insert(reason);
                }
                _ => {}
            }
            self.settle();
            assert!(
                self.timer_at > self.now,
                "a timer that was handled is due again: {:?}",
                self.flow
            );
        }
        self.now = self.now.max(to);
    }

    fn interrupt(&mut self) {
        for (from, interrupted) in Side::BOTH.into_iter().zip(self.flow.interrupt_sends()) {
            if interrupted {
                self.moving_out[from as usize] = true;
                self.cancel(from.other(), What::Send);
            }
        }
    }

    // ----- the kernel ---------------------------------------------------------------------------------

    fn connect_ends(&mut self) {
        let Some((answer, is_cancelled)) = self.connect.take() else {
            return;
        };
        if is_cancelled && (answer == Answer::Silence || self.choose(2) == 0) {
            return self.connect_failed(CloseReason::ConnectTimeout);
        }
        match answer {
            Answer::Connects => {
                let header = self
                    .plan
                    .header
                    .then(|| self.memory.own(Side::Client, 0, HEADER_BYTES));
                self.flow.on_connected(header, &mut self.chunks, self.now);
            }
            Answer::Refuses => self.connect_failed(CloseReason::ConnectRefused),
            Answer::Silence => {}
        }
    }

    fn receive_goes_on(&mut self, side: Side) {
        let now = self.now;
        let exact = self.plan.exact_receive_limit;
        let socket = &self.sockets[side as usize];
        let Some(op) = &socket.receive else {
            return;
        };
        let (is_cancelled, left) = (op.is_cancelled, op.left_bytes);
        let (unread, ended, error) = (socket.unread(), socket.ended, socket.read_error());
        let received = socket.received;
        if is_cancelled && (!socket.is_readable() || self.choose(3) == 0) {
            self.socket(side).receive = None;
            return self.flow.on_receive_stopped(side, false);
        }
        if let Some(errno) = error {
            self.socket(side).receive = None;
            return self.flow.on_receive_failed(side, errno, now);
        }
        if self.goes_wrong(8) {
            self.socket(side).receive = None;
            match self.choose(4) {
                // No buffers.
                0 => {
                    self.flow.on_receive_stopped(side, false);
                    self.shortage = true;
                }
                // The kernel ended a multishot.
                1 => self.flow.on_receive_stopped(side, false),
                2 => self.flow.on_receive_failed(side, Errno(libc::ENOMEM), now),
                _ => self.flow.on_receive_failed(side, Errno(libc::EAGAIN), now),
            }
            return;
        }
        if unread == 0 {
            assert!(ended, "nothing to receive");
            self.socket(side).receive = None;
            return self.flow.on_end_of_stream(side, now);
        }
        let most = if exact {
            unread.min(u64::from(left))
        } else {
            unread
        };
        let bytes = self.amount(most.min(65_536));
        let left = left.saturating_sub(bytes);
        let more =
            !(exact && left == 0) && !(is_cancelled && self.choose(2) == 1) && !self.goes_wrong(8);
        let adjacent = self.choose(2) == 0;
        let position = self.header(side) + received;
        let chunk = self.memory.fill(side, position, bytes, adjacent);
        let socket = self.socket(side);
        socket.received += u64::from(bytes);
        socket.receive = more.then_some(Receive {
            left_bytes: left,
            is_cancelled,
        });
        self.flow
            .on_received(side, chunk, more, &mut self.chunks, now);
    }

    fn send_goes_on(&mut self, sink: Side) {
        let from = sink.other();
        let Some(mut op) = self.socket(sink).send.take() else {
            return;
        };
        let over = |world: &mut World, op: Send, errno: i32| {
            if op.done_bytes > 0 {
                world
                    .flow
                    .on_sent(from, op.done_bytes, &mut world.chunks, world.now);
            } else {
                world.flow.on_send_failed(from, Errno(errno), world.now);
            }
            world.move_out(from);
        };
        let is_writable = self.sockets[sink as usize].is_writable();
        if op.is_cancelled && (!is_writable || self.choose(2) == 0) {
            return over(self, op, libc::ECANCELED);
        }
        if let Some(errno) = self.sockets[sink as usize].write_error() {
            self.causes.insert(reset_by(sink));
            return over(self, op, errno.0);
        }
        if self.goes_wrong(8) {
            let errno = [libc::ENOMEM, libc::EAGAIN, libc::EINTR][self.choose(3)];
            return over(self, op, errno);
        }
        let all: u32 = op.chunks.iter().map(|chunk| chunk.len).sum();
        let most = self.sockets[sink as usize].room.min(all - op.done_bytes);
        let bytes = self.amount(u64::from(most));
        self.check_order(from, &op, bytes);
        self.socket(sink).take(bytes);
        op.done_bytes += bytes;
        if op.done_bytes == all || self.choose(4) == 3 {
            return over(self, op, 0);
        }
        self.socket(sink).send = Some(op);
    }

    /// The next `bytes` of a send are those that the peer has to get next.
    fn check_order(&self, from: Side, op: &Send, bytes: u32) {
        let mut skip = op.done_bytes;
        let mut left = bytes;
        let mut at = self.sockets[from.other() as usize].taken;
        for &chunk in &op.chunks {
            let skipped = skip.min(chunk.len);
            skip -= skipped;
            let part = (chunk.len - skipped).min(left);
            let position = self.memory.position(from, chunk) + u64::from(skipped);
            if part > 0 {
                assert_eq!(position, at, "bytes out of order from {from:?}");
                at += u64::from(part);
                left -= part;
            }
        }
        assert_eq!(left, 0);
    }

    fn poll_reports(&mut self, side: Side) {
        let now = self.now;
        let Some(mut op) = self.socket(side).poll.take() else {
            return;
        };
        let wrong = self.goes_wrong(8);
        let news = op
            .news
            .take()
            .filter(|_| !op.is_cancelled || self.choose(2) == 1);
        let Some(news) = news else {
            return self.flow.on_poll_failed(side, Errno(libc::ECANCELED), now);
        };
        if wrong && self.choose(2) == 0 {
            return self.flow.on_poll_failed(side, Errno(libc::ENOMEM), now);
        }
        if !wrong {
            self.socket(side).poll = Some(op);
        }
        self.flow.on_ready(side, news, !wrong);
    }

    fn pump(&mut self) {
        let share = self.plan.share_bytes;
        for from in Side::BOTH {
            // Less than the worker does in a turn, so that the turns mix.
            for _ in 0..4 {
                let into = self.flow.may_splice_in(from, share, self.now);
                if into.is_none() && self.flow.pipe(from).is_none() {
                    break;
                }
                if self.flow.pipe(from).is_none() && !self.lend_pipe(from) {
                    break;
                }
                if let Some(most) = into {
                    let result = self.splice_in(from, most);
                    self.flow.on_spliced_in(from, result, self.now);
                }
                let out = self.flow.may_splice_out(from, self.now);
                if let Some(held) = out {
                    let result = self.splice_out(from, held);
                    self.flow.on_spliced_out(from, result, self.now);
                }
                if into.is_none() && out.is_none() {
                    break;
                }
            }
            if let Some(pipe) = self.flow.take_empty_pipe(from) {
                let piped = &mut self.pipes[pipe.read as usize / 2];
                assert_eq!(piped.bytes, 0, "a pipe with bytes is given back");
                piped.is_lent = false;
            }
        }
        self.is_streaming = self.flow.has_splice_work(share, self.now);
    }

    fn lend_pipe(&mut self, from: Side) -> bool {
        if self.goes_wrong(4) {
            self.flow.no_pipe(from, self.now);
            return false;
        }
        let index = self
            .pipes
            .iter()
            .position(|pipe| !pipe.is_lent)
            .unwrap_or_else(|| {
                self.pipes.push(Piped {
                    bytes: 0,
                    is_lent: false,
                });
                self.pipes.len() - 1
            });
        self.pipes[index].is_lent = true;
        self.flow.lend_pipe(from, pipe_name(index));
        true
    }

    fn piped(&mut self, from: Side) -> &mut Piped {
        let pipe = self.flow.pipe(from).expect("a pipe is lent");
        &mut self.pipes[pipe.read as usize / 2]
    }

    fn splice_in(&mut self, from: Side, most: usize) -> Result<usize, Errno> {
        let room = u64::from(self.plan.pipe_bytes - self.piped(from).bytes);
        let held = self.piped(from).bytes;
        // A pipe is full by its slots, whatever their bytes.
        if room == 0 || (held > 0 && self.choose(3) == 2) {
            return Err(Errno(libc::EAGAIN));
        }
        if self.goes_wrong(8) {
            return Err(Errno([libc::ENOMEM, libc::EINTR][self.choose(2)]));
        }
        let socket = &self.sockets[from as usize];
        assert!(socket.is_non_blocking);
        let (unread, ended) = (socket.unread(), socket.ended);
        if let Some(errno) = socket.read_error() {
            return Err(errno);
        }
        if unread == 0 {
            return if ended {
                Ok(0)
            } else {
                Err(Errno(libc::EAGAIN))
            };
        }
        let bytes = self.amount(unread.min(most as u64).min(room));
        self.socket(from).received += u64::from(bytes);
        self.piped(from).bytes += bytes;
        Ok(bytes as usize)
    }

    fn splice_out(&mut self, from: Side, most: usize) -> Result<usize, Errno> {
        let sink = from.other();
        assert_eq!(
            most as u32,
            self.piped(from).bytes,
            "the flow miscounts its pipe"
        );
        if let Some(errno) = self.sockets[sink as usize].write_error() {
            self.causes.insert(reset_by(sink));
            return Err(errno);
        }
        if self.sockets[sink as usize].room == 0 {
            self.socket(sink).was_full = true;
            return Err(Errno(libc::EAGAIN));
        }
        if self.goes_wrong(8) {
            return Err(Errno([libc::ENOMEM, libc::EINTR][self.choose(2)]));
        }
        let bytes = self.amount(u64::from(self.sockets[sink as usize].room).min(most as u64));
        self.socket(sink).take(bytes);
        self.piped(from).bytes -= bytes;
        Ok(bytes as usize)
    }

    // ----- the peers ----------------------------------------------------------------------------------

    fn peer_takes(&mut self, side: Side) {
        let half = (self.header(side.other()) + self.total(side.other())) / 2;
        let now = self.now;
        let taker = self.plan.taker[side as usize];
        let is_half_way = self.sockets[side as usize].taken >= half.max(1);
        if is_half_way && self.stalled_until[side as usize].is_none() {
            let until = match taker {
                Taker::Willing => None,
                Taker::Stalling => Some(now.saturating_add(STALL)),
                Taker::Stuck => Some(Time::MAX),
            };
            if until.is_some() {
                self.stalled_until[side as usize] = until;
                return;
            }
        }
        let bytes = self.amount(200_000);
        let socket = self.socket(side);
        socket.room += bytes;
        socket.writable_edge();
    }

    fn peer_sends(&mut self, side: Side) {
        let left = self.total(side) - self.sockets[side as usize].sent;
        let bytes = self.amount(left.min(300_000));
        let socket = self.socket(side);
        socket.sent += u64::from(bytes);
        socket.readable_edge();
    }

    fn peer_ends(&mut self, side: Side) {
        let ending = self.plan.ending[side as usize];
        let socket = &mut self.sockets[side as usize];
        match ending {
            Ending::Shut | Ending::Never => socket.ended = true,
            Ending::Close => (socket.ended, socket.refuses) = (true, true),
            Ending::Reset => {
                socket.reset = true;
                self.causes.insert(reset_by(side));
            }
        }
        self.sockets[side as usize].readable_edge();
    }
}

fn reset_by(side: Side) -> CloseReason {
    match side {
        Side::Client => CloseReason::ClientReset,
        Side::Upstream => CloseReason::UpstreamReset,
    }
}
