//! The whole story on one machine: an application, a sidecar before it, load, and a kernel that pushes back.
//!
//! Everything in it is real: the sidecar is this same program in a process of its own, and its submissions are
//! made to fail from outside, as the tests do it. It owns the order of events and the verdict at the end; it
//! ends by itself, and leaves nothing behind.

mod application;
mod load;
mod measurement;
mod screen;
mod sidecar;

use std::time::{Duration, Instant};

use anyhow::Context;

use crate::backend::inject::Errno;
use application::Application;
use load::Load;
use measurement::Measurement;
use screen::{Chapter, Moment, Screen};
use sidecar::{Injection, Sidecar};

/// How long the relay is watched before anything happens to it.
const CALM: Duration = Duration::from_secs(6);

/// How long every submission fails.
const FAULT: Duration = Duration::from_secs(6);

/// How long readiness may take to come back, at most.
const RECOVERY_MOST: Duration = Duration::from_secs(12);

/// How long the relay is watched once all is well again.
const AFTERWARDS: Duration = Duration::from_secs(4);

/// How often the screen tells how things stand.
const LINE_EVERY: Duration = Duration::from_secs(1);

/// What the demo saw; each of these has to be so for it to have gone well.
#[derive(Debug, Clone, PartialEq)]
struct Story {
    requests: u64,
    bytes: u64,
    lost: u64,
    refused_submissions: Option<u64>,
    unready_after: Option<Duration>,
    traffic_back_after: Option<Duration>,
    ready_back_after: Option<Duration>,
    drained_cleanly: bool,
}

impl Story {
    /// What went wrong, if anything did.
    fn failures(&self) -> Vec<String> {
        let mut failures = Vec::new();
        if self.lost > 0 {
            failures.push(format!("{} requests were lost", self.lost));
        }
        if self.requests == 0 {
            failures.push("no request was relayed".to_owned());
        }
        if !self.drained_cleanly {
            failures.push("the sidecar did not drain and exit by itself".to_owned());
        }
        if self.refused_submissions.is_some() {
            let seen = [
                (
                    self.refused_submissions != Some(0),
                    "no submission was refused",
                ),
                (
                    self.unready_after.is_some(),
                    "the sidecar never went unready",
                ),
                (
                    self.traffic_back_after.is_some(),
                    "no request was answered after the fault",
                ),
                (
                    self.ready_back_after.is_some(),
                    "the sidecar did not become ready again",
                ),
            ];
            failures.extend(
                seen.iter()
                    .filter(|(seen, _)| !seen)
                    .map(|(_, failure)| (*failure).to_owned()),
            );
        }
        failures
    }
}

/// Tells the story. True if nothing was lost and everything came back.
///
/// # Errors
/// The application, the sidecar or the load could not be started, or the sidecar ended on its own.
pub fn run() -> anyhow::Result<bool> {
    let application =
        Application::start().context("the demo's application could not be started")?;
    let mut sidecar = Sidecar::start(application.address)?;
    let screen = Screen::new();
    screen.opening(&application, &sidecar);
    let load = Load::start(sidecar.address);
    let mut teller = Teller {
        began: Instant::now(),
        last: None,
        screen: &screen,
        load: &load,
    };

    teller.watch(&mut sidecar, Chapter::Calm, CALM, |_| false)?;
    let mut story = match sidecar.injection() {
        Injection::Possible => fault(&mut teller, &mut sidecar, &load)?,
        Injection::Refused(why) => {
            screen.no_injection(&why);
            teller.watch(&mut sidecar, Chapter::Calm, CALM, |_| false)?;
            Story::without_fault()
        }
    };
    let totals = load.stop();
    story.requests = totals.requests;
    story.bytes = totals.bytes;
    story.lost = totals.lost;
    story.drained_cleanly = sidecar.drain()?;
    let failures = story.failures();
    screen.ending(&story, totals.first_loss.as_deref(), &failures);
    Ok(failures.is_empty())
}

impl Story {
    fn without_fault() -> Self {
        Story {
            requests: 0,
            bytes: 0,
            lost: 0,
            refused_submissions: None,
            unready_after: None,
            traffic_back_after: None,
            ready_back_after: None,
            drained_cleanly: false,
        }
    }
}

/// Makes every submission fail for a while, and measures how the sidecar goes and comes back.
fn fault(teller: &mut Teller<'_>, sidecar: &mut Sidecar, load: &Load) -> anyhow::Result<Story> {
    let mut story = Story::without_fault();
    let before = sidecar.refused();
    let began = Instant::now();
    // Ended by hand, so that its end is known to the moment.
    sidecar.refuse_submissions(FAULT * 2, Errno::EAGAIN);
    teller.screen.fault_begins(FAULT);
    teller.watch(sidecar, Chapter::Fault, FAULT, |moment| {
        if !moment.ready && story.unready_after.is_none() {
            story.unready_after = Some(began.elapsed());
        }
        false
    })?;
    load.mark();
    let ended = Instant::now();
    sidecar.stop_refusing();
    teller.screen.fault_ends();
    teller.watch(sidecar, Chapter::Recovery, RECOVERY_MOST, |moment| {
        let back = moment.ready && moment.since_chapter > Duration::from_millis(500);
        if back && story.unready_after.is_some() {
            story.ready_back_after = Some(ended.elapsed());
        }
        story.ready_back_after.is_some()
    })?;
    teller.watch(sidecar, Chapter::Recovered, AFTERWARDS, |_| false)?;
    story.traffic_back_after = load.first_after_mark();
    story.refused_submissions = Some(sidecar.refused() - before);
    Ok(story)
}

/// Watches the sidecar and tells the screen.
struct Teller<'a> {
    began: Instant,
    last: Option<(Measurement, load::Totals, Instant)>,
    screen: &'a Screen,
    load: &'a Load,
}

impl Teller<'_> {
    /// Looks at the sidecar ten times a second for as long as `limit`, or until `done` says so.
    fn watch(
        &mut self,
        sidecar: &mut Sidecar,
        chapter: Chapter,
        limit: Duration,
        mut done: impl FnMut(&Moment) -> bool,
    ) -> anyhow::Result<()> {
        let began = Instant::now();
        let mut next_line = LINE_EVERY;
        while began.elapsed() < limit {
            std::thread::sleep(Duration::from_millis(100));
            sidecar.check_alive()?;
            let measured = Measurement::take(sidecar.admin)?;
            let totals = self.load.totals();
            let is_line = began.elapsed() >= next_line;
            let moment = self.moment(chapter, began.elapsed(), measured, totals, is_line);
            if is_line {
                next_line += LINE_EVERY;
                self.screen.line(&moment);
            }
            if done(&moment) {
                self.screen.line(&moment);
                break;
            }
        }
        Ok(())
    }

    fn moment(
        &mut self,
        chapter: Chapter,
        since_chapter: Duration,
        measured: Measurement,
        totals: load::Totals,
        keep: bool,
    ) -> Moment {
        let now = Instant::now();
        let (then, before, at) = self
            .last
            .get_or_insert_with(|| (measured.clone(), totals.clone(), self.began));
        let seconds = now.duration_since(*at).as_secs_f64().max(0.001);
        let per_second = |now: u64, then: u64| now.saturating_sub(then) as f64 / seconds;
        let submissions = measured.submissions.saturating_sub(then.submissions);
        let refused = measured.refused.saturating_sub(then.refused);
        let moment = Moment {
            at: self.began.elapsed(),
            since_chapter,
            chapter,
            requests_per_second: per_second(totals.requests, before.requests),
            bytes_per_second: per_second(totals.bytes, before.bytes),
            pushback_percent: (refused * 100).checked_div(submissions).unwrap_or(0),
            backoffs_per_second: per_second(measured.backoffs, then.backoffs),
            batch_limit: measured.batch_limit,
            accept_paused: measured.accept_paused,
            connections: measured.connections,
            ready: measured.ready,
            reason: measured.reason.clone(),
        };
        if keep {
            self.last = Some((measured, totals, now));
        }
        moment
    }
}
