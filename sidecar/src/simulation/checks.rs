//! What must hold in every run: bytes, ends, limits, leftovers, progress, readiness, and accounts that add up.
//!
//! A check never guesses: where the faults of a run excuse what is seen, it says so by name.

use std::sync::atomic::Ordering;
use std::time::Duration;

use ringside_api::Settings;
use ringside_api::settings::ReadinessMode;

use super::Run;
use crate::backend::Backend;
use crate::backend::simulated::faults::Pushback;
use crate::backend::simulated::link::{Link, NAME_BYTES};
use crate::backend::simulated::{Simulated, is_redirected};
use crate::flow::CloseReason;
use crate::worker::Worker;

/// Turns in a row that may move nothing: interrupted calls are tried again at once a few times.
const IDLE_TURNS_MOST: u32 = 40;

const SECOND: u64 = 1_000_000_000;

/// How long what has moved out of the pool may be more than its limit: what is over is shed by a quarter each second.
const OVER_MOST: u64 = 8 * SECOND;

/// What peers do is seen within this, completions that come late included.
const SEEN_WITHIN: u64 = SECOND / 300;

/// Every so many turns all connections are looked at.
const LOOK_EVERY: u64 = 16;

/// What is kept between turns.
#[derive(Debug)]
pub(super) struct Watch {
    pushbacks: u64,
    taken: u64,
    completions: u64,
    pushed_back_at: u64,
    /// Since when pushback has met every submission, and calls since then.
    storm: Option<Storm>,
    /// Since when more than the pool's limit is pinned.
    over_since: Option<u64>,
}

#[derive(Debug, Clone, Copy)]
struct Storm {
    began: u64,
    enters: u64,
}

pub(super) fn nanos(time: Option<Duration>) -> u64 {
    time.map_or(0, |time| time.as_nanos() as u64)
}

impl Watch {
    pub(super) fn new() -> Self {
        Watch {
            pushbacks: 0,
            taken: 0,
            completions: 0,
            pushed_back_at: 0,
            storm: None,
            over_since: None,
        }
    }
}

impl Run {
    /// After each turn.
    pub(super) fn check_turn(
        &mut self,
        worker: &Worker<Simulated>,
        turn: u64,
    ) -> Result<(), String> {
        let (counts, now) = {
            let kernel = &self.world.borrow().kernel;
            if let Some(violation) = kernel.violations.first() {
                return Err(violation.clone());
            }
            (kernel.counts, kernel.now_nanos())
        };
        if counts.idle_turns_most > IDLE_TURNS_MOST {
            let most = counts.idle_turns_most;
            return Err(format!(
                "the loop spins: {most} turns in a row moved nothing"
            ));
        }
        let watch = &mut self.watch;
        let is_pushed = counts.pushbacks > watch.pushbacks;
        if is_pushed {
            watch.pushed_back_at = now;
        }
        let is_idle = worker.backend().queued() == 0 && !is_pushed;
        if counts.taken > watch.taken || counts.completions > watch.completions || is_idle {
            watch.storm = None;
        } else if is_pushed && watch.storm.is_none() {
            watch.storm = Some(Storm {
                began: now,
                enters: counts.enters,
            });
        }
        watch.pushbacks = counts.pushbacks;
        watch.taken = counts.taken;
        watch.completions = counts.completions;
        let stats = &self.surroundings.stats;
        if let Some(storm) = watch.storm {
            // Each delay is a submission and a wait, and in a stall at least half of the most; windows and timers
            // wake the worker a few times a second beside.
            let lasted = now - storm.began;
            let least = nanos(self.plan.least(|s| s.backoff.max.into())).max(1);
            let allowed = 80 + 4 * lasted / least + 25 * lasted / SECOND;
            let enters = counts.enters - storm.enters;
            if enters > allowed {
                return Err(format!(
                    "{enters} calls in a storm of {} ms that lets nothing through; {allowed} would do",
                    lasted / 1_000_000
                ));
            }
        }
        let usage = worker.backend().pool();
        let is_over = usage.pinned_bytes > usage.limit_bytes && !self.plan.jumps();
        watch.over_since = is_over.then(|| watch.over_since.unwrap_or(now));
        let over = watch.over_since.map_or(0, |since| now - since);
        if over > OVER_MOST {
            return Err(format!(
                "{} bytes are pinned, {} may be, for {} ms now",
                usage.pinned_bytes,
                usage.limit_bytes,
                over / 1_000_000
            ));
        }
        self.check_readiness(now, stats.unready.get() == 1)?;
        if turn.is_multiple_of(LOOK_EVERY) {
            self.check_limits(worker)?;
        }
        Ok(())
    }

    fn check_readiness(&self, now: u64, is_unready: bool) -> Result<(), String> {
        let watch = &self.watch;
        let recover = nanos(self.plan.most(|s| s.readiness.recover_after.into()));
        let quiet = now.saturating_sub(watch.pushed_back_at);
        if is_unready && !self.plan.jumps() && quiet > recover + 3 * SECOND {
            return Err(format!(
                "unready, and nothing was pushed back for {} ms",
                quiet / 1_000_000
            ));
        }
        let leaves = |s: &Settings| s.readiness.mode == ReadinessMode::Leave;
        let after = nanos(self.plan.most(|s| s.readiness.unready_after.into()));
        let lasted = watch.storm.map_or(0, |storm| now - storm.began);
        // Who waits for nothing but work, and is interrupted, is not pushed back.
        let must_leave = self.plan.all_settings.iter().all(leaves)
            && !self.plan.jumps()
            && !self.has_window(|what| what == Pushback::Interrupted);
        if must_leave && lasted > after + 2 * SECOND && !is_unready {
            return Err(format!(
                "ready, and everything was pushed back for {} ms",
                lasted / 1_000_000
            ));
        }
        Ok(())
    }

    fn check_limits(&self, worker: &Worker<Simulated>) -> Result<(), String> {
        let kernel = &self.world.borrow().kernel;
        let most = self.plan.most(|s| s.buffers.pipes).unwrap_or(0);
        let pipes = kernel.pipes_open();
        if pipes as u32 > most + most % 2 {
            return Err(format!("{pipes} pipes, and {most} are allowed"));
        }
        let held = worker.holdings();
        if held.pipes_used > held.pipes_held {
            return Err(format!("more pipes are used than places held: {held:?}"));
        }
        if !self.plan.traits.exact_receive_limit {
            return Ok(());
        }
        let most = self
            .plan
            .most(|s| s.buffers.per_direction.bytes())
            .unwrap_or(0);
        for link in 0..kernel.links() {
            let Some(other) = self.other(link) else {
                continue;
            };
            let (from, to) = (kernel.link(link), kernel.link(other));
            let is_open = from.closed.is_none() && to.closed.is_none();
            let held = from.taken.saturating_sub(to.checker.bytes);
            if is_open && held > most {
                return Err(format!(
                    "link {link}: {held} bytes are held, and {most} may be"
                ));
            }
        }
        Ok(())
    }

    /// The link that a link is relayed to, as far as the names of their streams tell.
    fn other(&self, link: usize) -> Option<usize> {
        let kernel = &self.world.borrow().kernel;
        let state = kernel.link(link);
        let by_stream =
            |stream: u32| (0..kernel.links()).find(|&other| kernel.link(other).stream == stream);
        if let Some(stream) = state.checker.stream {
            return by_stream(stream);
        }
        (0..kernel.links()).find(|&other| kernel.link(other).checker.stream == Some(state.stream))
    }

    /// When a worker has finished.
    pub(super) fn check_left(&self, worker: &Worker<Simulated>) -> Result<(), String> {
        let held = worker.holdings();
        if held.connections + held.listeners + held.timers + held.queued_bytes as usize > 0
            || held.pipes_held + held.pipes_used > 0
        {
            return Err(format!("something is left: {held:?}"));
        }
        let chunks = worker.backend().chunks_in_use();
        if chunks > 0 {
            return Err(format!("{chunks} chunks were not given back"));
        }
        let kernel = &self.world.borrow().kernel;
        let operations = kernel.operations_left();
        if operations > 0 {
            return Err(format!("{operations} operations are in flight at the end"));
        }
        let pipes = kernel.pipes_open() as u32;
        if pipes != held.pipes_made {
            return Err(format!("{pipes} pipes are open, {held:?}"));
        }
        let counted = self
            .surroundings
            .shared
            .descriptors_open
            .load(Ordering::Relaxed);
        if counted != kernel.descriptors {
            return Err(format!(
                "{counted} descriptors are counted, {} are open",
                kernel.descriptors
            ));
        }
        Ok(())
    }

    /// When all is over.
    pub(super) fn check_end(&mut self) -> Result<(), String> {
        if let Some(violation) = self.world.borrow().kernel.violations.first() {
            return Err(violation.clone());
        }
        let sockets = self.world.borrow().kernel.sockets_open();
        if sockets > 0 {
            return Err(format!("{sockets} sockets are left open"));
        }
        self.check_accounts()?;
        for (&client, &reason) in &self.reasons {
            self.check_connection(client, reason)
                .map_err(|wrong| format!("link {client}, over as {}: {wrong}", reason.label()))?;
        }
        let peers = self.peers.borrow();
        let forbidden =
            self.has_window(|what| matches!(what, Pushback::Forbidden | Pushback::Lost));
        if let Some(probe) = peers.probe
            && !forbidden
            && self.reasons.get(&probe) != Some(&self.due_of(probe))
        {
            let reason = self.reasons.get(&probe).map(|reason| reason.label());
            return Err(format!(
                "link {probe}, for which all was well, came to {reason:?}"
            ));
        }
        Ok(())
    }

    /// Whether a link came to a relay of what is redirected, and was not.
    fn is_direct(&self, link: usize) -> bool {
        self.plan.intercepts && !is_redirected(link)
    }

    /// What a link comes to for which all is well.
    fn due_of(&self, link: usize) -> CloseReason {
        match self.is_direct(link) {
            true => CloseReason::NotRedirected,
            false => CloseReason::Finished,
        }
    }

    fn check_accounts(&self) -> Result<(), String> {
        let stats = &self.relay.stats[0];
        let (opened, open) = (stats.opened.get(), stats.connections_open());
        let shared = self
            .surroundings
            .shared
            .connections_open
            .load(Ordering::Relaxed);
        if open != 0 || shared != 0 {
            return Err(format!(
                "{opened} connections were opened; {open} are not counted as closed, {shared} as open"
            ));
        }
        if opened != self.reasons.len() as u64 {
            let told = self.reasons.len();
            return Err(format!(
                "{opened} connections were opened, {told} ends were told"
            ));
        }
        if self.rebuilds > 0 || self.left.is_none() {
            // What a broken backend had sent and not told of is not counted.
            return Ok(());
        }
        let kernel = &self.world.borrow().kernel;
        for (from, counted) in stats.relayed_bytes.iter().enumerate() {
            let is_from_client = from == 0;
            let passed_on: u64 = (0..kernel.links())
                .map(|link| kernel.link(link))
                .filter(|link| link.is_client != is_from_client)
                .map(|link| link.checker.bytes)
                .sum();
            if passed_on != counted.get() {
                return Err(format!(
                    "{passed_on} bytes were passed on, {} are counted",
                    counted.get()
                ));
            }
        }
        Ok(())
    }

    fn has_window(&self, is_wanted: impl Fn(Pushback) -> bool) -> bool {
        let windows = &self.plan.faults.windows;
        windows.iter().any(|window| is_wanted(window.what))
    }

    fn check_connection(&self, client: usize, reason: CloseReason) -> Result<(), String> {
        let other = self.other(client);
        let kernel = &self.world.borrow().kernel;
        let near = kernel.link(client);
        let far = other.map(|link| kernel.link(link));
        let faults = &self.plan.faults;
        let allow = |is_right: bool, what: &str| is_right.then_some(()).ok_or(what.to_owned());
        if self.is_direct(client) && far.is_some() {
            return Err("it came by itself, and was relayed".to_owned());
        }
        match reason {
            CloseReason::Finished => finished(near, far),
            CloseReason::ClientReset | CloseReason::ClientError => {
                allow(near.error.is_some(), "the client did not reset it")?;
                is_reset(far)
            }
            CloseReason::UpstreamReset | CloseReason::UpstreamError => {
                allow(
                    far.is_none_or(|far| far.error.is_some()),
                    "the target did not reset it",
                )?;
                is_reset(Some(near))
            }
            // Whether it had cause to is checked when it ends (`links`).
            CloseReason::ConnectRefused
            | CloseReason::ConnectUnreachable
            | CloseReason::ConnectTimeout
            | CloseReason::SourceLimit
            | CloseReason::Shed => is_reset(Some(near)),
            CloseReason::NoDescriptor => {
                let excused = faults.no_descriptor > 0 || self.plan.descriptor_limit < 100;
                allow(excused, "there were descriptors")?;
                is_reset(Some(near))
            }
            CloseReason::IdleTimeout | CloseReason::HalfCloseTimeout => {
                self.timed_out(near, far, reason)
            }
            CloseReason::DrainLimit => allow(self.peers.borrow().has_finish, "nobody told it to"),
            CloseReason::BackendLost => allow(self.rebuilds > 0, "no backend was lost"),
            CloseReason::ConnectFailed => {
                allow(faults.connect.other > 0, "connects went well")?;
                is_reset(Some(near))
            }
            CloseReason::NotRedirected => {
                allow(self.is_direct(client), "it was redirected")?;
                is_reset(Some(near))
            }
            CloseReason::RedirectLoop => Err("nothing goes to itself".to_owned()),
            CloseReason::NoAddress => {
                allow(self.plan.loses_addresses(), "the target had an address")?;
                is_reset(Some(near))
            }
        }
    }

    /// Whether something that takes longer than this may have kept the worker from its work.
    pub(super) fn is_slow(&self, limit: u64) -> bool {
        self.plan.jumps() || self.longest_window() > limit
    }

    fn longest_window(&self) -> u64 {
        let windows = self.plan.faults.windows.iter();
        windows.map(|w| w.to - w.from).max().unwrap_or(0)
    }

    /// A connection ends for quiet only if the relay had nothing that it could have moved.
    fn timed_out(
        &self,
        near: &Link,
        far: Option<&Link>,
        reason: CloseReason,
    ) -> Result<(), String> {
        let least = |of: fn(&Settings) -> Duration| nanos(self.plan.least(of));
        let limit = least(|s| s.timeouts.idle.into()).min(least(|s| s.timeouts.half_close.into()));
        // Who may not submit, or jumps in time, cannot move what is there. What failed for want of memory is tried
        // again after pauses, which a short limit does not outlast.
        let faults = &self.plan.faults;
        let fails = faults.no_memory + faults.arm_fails > 0
            || self.world.borrow().kernel.counts.shortages > 0;
        let pushed = match self.longest_window() {
            0 => 0,
            window => window + nanos(self.plan.most(|s| s.backoff.max.into())),
        };
        let is_hindered = self.plan.jumps() || pushed > limit / 2 || (fails && limit < SECOND);
        let Some(far) = far.filter(|_| !is_hindered) else {
            return Ok(());
        };
        for (from, to) in [(near, far), (far, near)] {
            let (Some(from_closed), Some(to_closed)) = (from.closed, to.closed) else {
                return Err("an end is open".to_owned());
            };
            let held = from.taken - to.checker.bytes.min(from.taken);
            let waits = from_closed.unread > 0 || held > 0;
            // What came as the time ran out may have been seen too late.
            let stirred_at = from.stirred_at.max(to.stirred_at);
            let is_new = from_closed.at.saturating_sub(stirred_at) <= SEEN_WITHIN;
            if waits && to_closed.room > 0 && !is_new {
                return Err(format!(
                    "{} bytes were not received and {held} held, with room for {}",
                    from_closed.unread, to_closed.room
                ));
            }
            let is_through = from.end_was_told && !waits;
            if reason == CloseReason::HalfCloseTimeout && is_through && !to.was_shut {
                return Err("the end of a stream was not passed on".to_owned());
            }
        }
        Ok(())
    }
}

/// Both streams went through, whole, and both ends were told in order.
fn finished(near: &Link, far: Option<&Link>) -> Result<(), String> {
    let Some(far) = far else {
        let few = near.sent < NAME_BYTES;
        return few.then_some(()).ok_or("nobody has its bytes".to_owned());
    };
    for (from, to) in [(near, far), (far, near)] {
        if from.sent != to.checker.bytes {
            return Err(format!(
                "{} bytes were sent, {} came out",
                from.sent, to.checker.bytes
            ));
        }
        if !from.peer_ended || !from.end_was_told {
            return Err("a stream has not ended".to_owned());
        }
        if to.closed.is_none_or(|closed| closed.reset) {
            return Err("an end was reset".to_owned());
        }
    }
    Ok(())
}

/// Nobody may take what was cut short for complete.
fn is_reset(link: Option<&Link>) -> Result<(), String> {
    let Some(link) = link.filter(|link| link.error.is_none()) else {
        return Ok(());
    };
    match link.closed {
        Some(closed) if closed.reset => Ok(()),
        other => Err(format!("a reset was not passed on: {other:?}")),
    }
}
