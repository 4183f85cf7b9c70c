//! Streams: when a flow turns from receives and sends to splice(2), how its bytes go then, and when it
//! turns back. Pure: the worker makes the calls and tells their results.
//!
//! A flow is in one mode as a whole, since splicing takes non-blocking sockets and the ring's operations
//! blocking ones. It splices only when nothing of it is in flight or queued, and never loses a byte between.

use std::time::Duration;

use super::{Action, Ending, Flow, Operation, Phase, Side, View};
use crate::backend::{Errno, Pipe, Readiness};
use crate::time::Time;

/// So many KiB in [`STREAM_RECEIVES_MOST`] receives within a burst make a stream.
const STREAM_KIB: u8 = 192;

/// With more receives than these they are small, 16 KiB on average: many messages are no stream, however many bytes.
const STREAM_RECEIVES_MOST: u8 = 12;

/// How long a burst is counted, in ticks of [`TICK_MILLIS`]: 48 ms, so that a stream has four megabytes a second at least.
const BURST_TICKS: u8 = 6;

/// A tick of a burst's clock, which wraps every two seconds: who is quiet for just that long is taken for going on.
const TICK_MILLIS: u64 = 8;

/// A splice of fewer bytes is a small one.
const SMALL_SPLICE_BYTES: usize = 4 * 1024;

/// So many small splices in a row, and it is no stream any more.
const SMALL_SPLICES: u8 = 64;

/// A stream without a byte for so long goes back to receives, which cost less while little comes.
pub(super) const QUIET: Duration = Duration::from_millis(200);

/// What is in flight has so long to be done before a flow gives up to splice: waiting longer, with receives
/// stopped, could hold up the other direction of a taker that stalls.
pub(super) const ENTER_PATIENCE: Duration = Duration::from_millis(20);

/// After coming back from splicing, or failing to begin it, a flow does not try again so soon.
const COOLDOWN: Duration = Duration::from_millis(500);

/// What a flow knows while it splices.
#[derive(Debug, Default)]
pub(super) struct Splicing {
    ready: [Readiness; 2],
    /// By the side that the bytes come from: its pipe took no more, or its socket had none. Which of the two
    /// shows when the pipe has been emptied a little.
    waits_for_pipe: [bool; 2],
    small_splices: u8,
    not_before: Time,
}

impl Splicing {
    fn ready(&mut self, side: Side, readiness: Readiness) {
        let known = &mut self.ready[side as usize];
        known.readable |= readiness.readable;
        known.writable |= readiness.writable;
    }
}

/// The receives of a short while. Single ones tell nothing: they end at their limit, at the end of a buffer, or where the
/// kernel had no more at that moment. Three bytes, as each connection has two.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Burst {
    began_tick: u8,
    kib: u8,
    receives: u8,
}

impl Burst {
    pub(super) fn count(&mut self, bytes: u32, now: Time) {
        let tick = (now.as_nanos() / 1_000_000 / TICK_MILLIS) as u8;
        if tick.wrapping_sub(self.began_tick) > BURST_TICKS {
            *self = Burst {
                began_tick: tick,
                ..Burst::default()
            };
        }
        let kib = u8::try_from(bytes / 1024).unwrap_or(u8::MAX);
        self.kib = self.kib.saturating_add(kib);
        self.receives = self.receives.saturating_add(1);
    }

    fn is_stream(&self) -> bool {
        self.kib >= STREAM_KIB && self.receives <= STREAM_RECEIVES_MOST
    }
}

impl Flow {
    /// Whether it has become a stream.
    pub(super) fn wants_to_splice(&self, now: Time) -> bool {
        let is_stream = |from: Side| {
            !self.ends[from as usize].ended && self.directions[from as usize].burst.is_stream()
        };
        Side::BOTH.into_iter().any(is_stream) && now >= self.splicing.not_before
    }

    /// Stops the receives and sends what is queued; then the sockets are free to be spliced.
    pub(super) fn next_of_entering(&mut self, view: &View) -> Option<Action> {
        for side in Side::BOTH {
            if self.ends[side as usize].receive == Operation::Running {
                self.ends[side as usize].receive = Operation::Cancelling;
                return Some(Action::Cancel {
                    side,
                    what: Ending::Receive,
                });
            }
            if let Some(action) = self.next_send(side, view) {
                return Some(action);
            }
        }
        let quiet = |side: Side| {
            let end = &self.ends[side as usize];
            let queued = !self.directions[side as usize].queue.is_empty();
            end.receive == Operation::Idle && end.send == Operation::Idle && !queued
        };
        if !Side::BOTH.into_iter().all(quiet) {
            return None;
        }
        if !view.may_splice {
            // Others took the last pipes on the way here.
            self.give_up_entering(view.now);
            return self.next_action(view);
        }
        self.splicing.ready = [Readiness::default(); 2];
        self.splicing.waits_for_pipe = [false; 2];
        self.splicing.small_splices = 0;
        self.phase = Phase::Splicing;
        self.phase_began = view.now;
        Some(Action::BeginSplicing)
    }

    pub(super) fn give_up_entering(&mut self, now: Time) {
        self.phase = Phase::Relaying;
        self.cool_down(now);
    }

    fn cool_down(&mut self, now: Time) {
        self.splicing.not_before = now.saturating_add(COOLDOWN);
        self.directions
            .iter_mut()
            .for_each(|direction| direction.burst = Burst::default());
    }

    pub(super) fn next_of_splicing(&mut self, view: &View) -> Option<Action> {
        for side in Side::BOTH {
            if let Some(action) = self.next_shutdown(side) {
                return Some(action);
            }
            let end = &mut self.ends[side as usize];
            if end.poll == Operation::Idle && view.now >= end.retry_at {
                end.poll = Operation::Running;
                return Some(Action::Poll { side });
            }
        }
        if self.closing.is_some() {
            return self.next_action(view);
        }
        if self.splicing.small_splices >= SMALL_SPLICES && self.pipes_are_empty() {
            self.phase = Phase::LeavingSplice;
            return self.next_of_leaving(view);
        }
        None
    }

    /// Called when the timer finds no activity for [`QUIET`].
    pub(super) fn leave_splicing_if_quiet(&mut self, now: Time) {
        // Looked at again after the same time, if it cannot leave yet.
        self.phase_began = now;
        if self.pipes_are_empty() {
            self.phase = Phase::LeavingSplice;
        }
    }

    /// There are no pipes for it after all, and nothing has been spliced yet: back to receives.
    pub fn no_pipes(&mut self) {
        self.phase = Phase::LeavingSplice;
    }

    /// The watched side is ready in these ways.
    pub fn on_ready(&mut self, side: Side, readiness: Readiness, more: bool) {
        self.splicing.ready(side, readiness);
        if !more {
            self.ends[side as usize].poll = Operation::Idle;
        }
    }

    /// The watching of a side failed or, with ECANCELED, was ended. It is started again when it may be.
    pub fn on_poll_failed(&mut self, side: Side, errno: Errno, now: Time) {
        self.ends[side as usize].poll = Operation::Idle;
        if errno.0 != libc::ECANCELED {
            self.failed(side, errno, now);
        }
    }

    pub(super) fn next_of_leaving(&mut self, view: &View) -> Option<Action> {
        for side in Side::BOTH {
            let poll = &mut self.ends[side as usize].poll;
            match *poll {
                Operation::Running => {
                    *poll = Operation::Cancelling;
                    return Some(Action::Cancel {
                        side,
                        what: Ending::Poll,
                    });
                }
                Operation::Cancelling => return None,
                Operation::Idle => {}
            }
        }
        self.phase = Phase::Relaying;
        self.cool_down(view.now);
        Some(Action::EndSplicing)
    }

    fn pipes_are_empty(&self) -> bool {
        self.directions
            .iter()
            .all(|direction| direction.pipe_bytes == 0)
    }

    /// Whether the flow splices, so that [`Flow::may_splice_in`] and [`Flow::may_splice_out`] are worth asking.
    pub fn is_splicing(&self) -> bool {
        self.phase == Phase::Splicing && self.closing.is_none()
    }

    /// Whether the flow holds places among the worker's pipes: from [`Action::BeginSplicing`] to
    /// [`Action::EndSplicing`] or the close.
    pub fn holds_pipes(&self) -> bool {
        matches!(self.phase, Phase::Splicing | Phase::LeavingSplice)
    }

    /// Whether a splice could move something now. It follows from the flow's state, so that a worker that asks
    /// whenever something happened forgets no stream.
    pub fn has_splice_work(&self, share_bytes: u32, now: Time) -> bool {
        let may_move = |from| {
            self.may_splice_in(from, share_bytes, now).is_some()
                || self.may_splice_out(from, now).is_some()
        };
        self.is_splicing() && Side::BOTH.into_iter().any(may_move)
    }

    /// How many bytes from `from` a splice into the pipe may take now, if any.
    pub fn may_splice_in(&self, from: Side, share_bytes: u32, now: Time) -> Option<usize> {
        let held = self.directions[from as usize].pipe_bytes;
        let end = &self.ends[from as usize];
        let is_ready = self.splicing.ready[from as usize].readable
            && !self.splicing.waits_for_pipe[from as usize]
            && !end.ended
            && now >= end.retry_at;
        (self.is_splicing() && is_ready && held < share_bytes)
            .then(|| (share_bytes - held) as usize)
    }

    /// How many bytes from `from` a splice out of the pipe may pass on now, if any.
    pub fn may_splice_out(&self, from: Side, now: Time) -> Option<usize> {
        let held = self.directions[from as usize].pipe_bytes;
        let sink = from.other() as usize;
        let is_ready = self.splicing.ready[sink].writable && now >= self.ends[sink].retry_at;
        (self.is_splicing() && is_ready && held > 0).then_some(held as usize)
    }

    /// The result of a splice into the pipe. Whether another is worth trying, [`Flow::may_splice_in`] says.
    pub fn on_spliced_in(&mut self, from: Side, result: Result<usize, Errno>, now: Time) {
        let direction = &mut self.directions[from as usize];
        match result {
            Ok(0) => {
                self.ends[from as usize].ended = true;
                self.last_activity = now;
            }
            Ok(bytes) => {
                direction.pipe_bytes += bytes as u32;
                let small = &mut self.splicing.small_splices;
                *small = if bytes < SMALL_SPLICE_BYTES {
                    small.saturating_add(1)
                } else {
                    0
                };
                self.last_activity = now;
            }
            // With bytes in the pipe, a full pipe and an empty socket look the same.
            Err(Errno(libc::EAGAIN)) if direction.pipe_bytes > 0 => {
                self.splicing.waits_for_pipe[from as usize] = true;
            }
            Err(Errno(libc::EAGAIN)) => self.splicing.ready[from as usize].readable = false,
            Err(errno) => self.failed(from, errno, now),
        }
    }

    /// The result of a splice out of the pipe. Whether another is worth trying, [`Flow::may_splice_out`] says.
    pub fn on_spliced_out(&mut self, from: Side, result: Result<usize, Errno>, now: Time) {
        let sink = from.other();
        match result {
            // Nothing went, and no reason was given: tried again, but not at once.
            Ok(0) => self.failed(sink, Errno(libc::EAGAIN), now),
            Ok(bytes) => {
                let direction = &mut self.directions[from as usize];
                direction.pipe_bytes -= bytes as u32;
                direction.relayed_bytes += bytes as u64;
                self.splicing.waits_for_pipe[from as usize] = false;
                self.last_activity = now;
            }
            Err(Errno(libc::EAGAIN)) => self.splicing.ready[sink as usize].writable = false,
            Err(errno) => self.failed(sink, errno, now),
        }
    }

    /// The pipe that holds bytes from `from`, if one is in use.
    pub fn pipe(&self, from: Side) -> Option<Pipe> {
        self.directions[from as usize].pipe
    }

    /// Lends the flow a pipe for bytes from `from`.
    pub fn lend_pipe(&mut self, from: Side, pipe: Pipe) {
        self.directions[from as usize].pipe = Some(pipe);
    }

    /// Takes the pipe back if it is empty.
    pub fn take_empty_pipe(&mut self, from: Side) -> Option<Pipe> {
        let direction = &mut self.directions[from as usize];
        if direction.pipe_bytes == 0 {
            direction.pipe.take()
        } else {
            None
        }
    }
}
