//! Each connection by itself, turn by turn: whether it was let in within the limits, and whether what it ends for happened
//! to it and not only to another.
//!
//! It owns what the worker was seen to have after the turn before. A connection that was over a limit as it came must
//! have been refused; one that was refused must have been over one.

use std::collections::BTreeMap;

use super::Run;
use crate::backend::Backend;
use crate::backend::simulated::{Simulated, address_of, link_at};
use crate::flow::CloseReason;
use crate::pressure::sources::Source;
use crate::worker::Worker;
use crate::worker::inspection::{AcceptLimits, Connected};

/// A connection idle for so long may be shed in a stall, in nanoseconds.
const IDLE_LEAST: u64 = 30_000_000_000;

#[derive(Debug)]
struct Known {
    /// As connects of its operations are named.
    key: u64,
    came_at: u64,
    closing: Option<CloseReason>,
    held_bytes: u64,
}

/// What is kept between turns.
#[derive(Debug, Default)]
pub(super) struct Links {
    known: BTreeMap<usize, Known>,
    limits: Option<AcceptLimits>,
    /// The pool was short of buffers, or held more than it may, at some time.
    was_short: bool,
    /// When the last turn ended.
    turned_at: u64,
}

fn source_of(link: usize) -> Source {
    Source::of(address_of(link).ip())
}

fn is_refusal(reason: Option<CloseReason>) -> bool {
    matches!(reason, Some(CloseReason::Shed | CloseReason::SourceLimit))
}

/// Zero is no limit.
fn per_source(limits: AcceptLimits) -> u32 {
    match limits.per_source {
        0 => u32::MAX,
        limit => limit,
    }
}

impl Run {
    /// After each turn.
    pub(super) fn check_links(&mut self, worker: &mut Worker<Simulated>) -> Result<(), String> {
        let ended = std::mem::take(&mut self.ended);
        let has: BTreeMap<usize, Connected> = worker
            .connected()
            .into_iter()
            .filter_map(|connected| Some((link_at(connected.client?)?, connected)))
            .collect();
        let told = ended.iter().filter(|(link, _)| !has.contains_key(link));
        let came: Vec<(usize, Option<CloseReason>)> = has
            .iter()
            .map(|(&link, connected)| (link, connected.closing))
            .chain(told.map(|&(link, reason)| (link, Some(reason))))
            .filter(|(link, _)| !self.links.known.contains_key(link))
            .collect();
        let usage = worker.backend().pool();
        self.links.was_short |= usage.pinned_bytes > usage.limit_bytes
            || self.surroundings.stats.buffer_shortages.get() > 0;
        let now = worker.accept_limits();
        let limits = [self.links.limits.unwrap_or(now), now];
        self.check_let_in(&has, &came, limits)?;
        self.check_refused(&came, limits)?;

        let known = &self.links.known;
        let closing_now = known.iter().filter(|(_, known)| known.closing.is_none());
        for (&link, known) in closing_now {
            let connected = has.get(&link);
            let told = ended.iter().find(|(of, _)| *of == link);
            let reason = match connected {
                Some(connected) => connected.closing,
                None => told.map(|(_, reason)| *reason),
            };
            let held_bytes = connected.map_or(0, |connected| connected.held_bytes);
            if let Some(reason) = reason {
                self.check_cause(known, reason, known.held_bytes.max(held_bytes))
                    .map_err(|wrong| format!("link {link}, ends as {}: {wrong}", reason.label()))?;
            }
        }

        let links = &mut self.links;
        links.known.retain(|link, _| has.contains_key(link));
        for (link, connected) in has {
            let known = links.known.entry(link).or_insert(Known {
                key: connected.connect_key,
                came_at: links.turned_at,
                closing: None,
                held_bytes: 0,
            });
            known.closing = connected.closing;
            known.held_bytes = connected.held_bytes;
        }
        links.limits = Some(now);
        links.turned_at = self.world.borrow().kernel.now_nanos();
        Ok(())
    }

    /// Whoever was let in was within the limits before or after this turn. A limit that is lowered ends nobody, so those who
    /// were there may be more.
    fn check_let_in(
        &self,
        has: &BTreeMap<usize, Connected>,
        came: &[(usize, Option<CloseReason>)],
        limits: [AcceptLimits; 2],
    ) -> Result<(), String> {
        let let_in = |link: &usize| has.contains_key(link) && !self.links.known.contains_key(link);
        let counts =
            |link: &usize, connected: &Connected| !let_in(link) || !is_refusal(connected.closing);
        let most = limits.map(|limits| limits.max_connections);
        let most = most[0].max(most[1]);
        let of_source = limits.map(per_source);
        let of_source = of_source[0].max(of_source[1]);
        for (link, _) in came
            .iter()
            .filter(|(link, reason)| let_in(link) && !is_refusal(*reason))
        {
            let open = has.iter().filter(|(link, c)| counts(link, c)).count();
            if open > most as usize {
                return Err(format!(
                    "link {link} is let in as one of {open}, and {most} may be"
                ));
            }
            let source = source_of(*link);
            let same = has.iter().filter(|(other, connected)| {
                source_of(**other) == source && connected.closing.is_none()
            });
            let same = same.count();
            if same > of_source as usize {
                return Err(format!(
                    "link {link} is let in as one of {same} of its source, and {of_source} may be"
                ));
            }
        }
        Ok(())
    }

    /// Whoever was refused as it came was over a limit.
    fn check_refused(
        &self,
        came: &[(usize, Option<CloseReason>)],
        limits: [AcceptLimits; 2],
    ) -> Result<(), String> {
        let known = &self.links.known;
        for &(link, reason) in came {
            let (open, least) = match reason {
                Some(CloseReason::Shed) => {
                    let least = limits.map(|limits| limits.max_connections);
                    (
                        known.len() + came.len(),
                        least[0].min(least[1]) as usize + 1,
                    )
                }
                Some(CloseReason::SourceLimit) => {
                    let source = source_of(link);
                    // One that is refused for the limit of all counts for its source until it is gone.
                    let is_counted = |reason| reason != Some(CloseReason::SourceLimit);
                    let others = came.iter().filter(|(_, reason)| is_counted(*reason));
                    let links = known.keys().chain(others.map(|(link, _)| link));
                    let least = limits.map(per_source);
                    (
                        links.filter(|&&other| source_of(other) == source).count(),
                        least[0].min(least[1]) as usize,
                    )
                }
                _ => continue,
            };
            if open < least {
                return Err(format!(
                    "link {link} is refused as {}, with {open} there",
                    reason.map_or("", CloseReason::label)
                ));
            }
        }
        Ok(())
    }

    /// What a connection that was let in ends for has happened to it.
    fn check_cause(&self, known: &Known, reason: CloseReason, held: u64) -> Result<(), String> {
        let kernel = &self.world.borrow().kernel;
        let lasted = self.links.turned_at.saturating_sub(known.came_at);
        let was_answered = |errnos: &[i32]| {
            let answers = kernel.connect_faults.get(&known.key);
            answers.is_some_and(|all| all.iter().any(|errno| errnos.contains(errno)))
        };
        let allow = |is_right: bool, what: &str| is_right.then_some(()).ok_or(what.to_owned());
        match reason {
            CloseReason::SourceLimit => Err("it had been let in".to_owned()),
            CloseReason::Shed => {
                let is_idle = lasted >= IDLE_LEAST && !self.plan.faults.windows.is_empty();
                let is_holder = held > 0 && self.links.was_short;
                allow(is_holder || is_idle, "it held nothing that was short")
            }
            CloseReason::ConnectRefused => {
                allow(was_answered(&[libc::ECONNREFUSED]), "nobody refused it")
            }
            CloseReason::ConnectUnreachable => {
                allow(was_answered(&[libc::EHOSTUNREACH]), "it had a way")
            }
            CloseReason::ConnectTimeout => {
                let limit = super::checks::nanos(self.plan.least(|s| s.timeouts.connect.into()));
                if was_answered(&[libc::ETIMEDOUT]) {
                    return Ok(());
                }
                allow(
                    lasted >= limit || self.plan.jumps(),
                    "its time was not over",
                )?;
                // Or the target's answer, or the call for it, came late, which is the run's affair.
                let is_slow = limit < 1_000_000_000 || self.is_slow(limit);
                allow(
                    is_slow || was_answered(&[0, libc::EAGAIN]),
                    "it was answered",
                )
            }
            _ => Ok(()),
        }
    }
}
