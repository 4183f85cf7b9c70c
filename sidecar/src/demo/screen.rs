//! How the demo tells its story: a line a second, in colour on a terminal (not with NO_COLOR), plain in a pipe.

use std::io::Write as _;
use std::time::Duration;

use anstyle::{AnsiColor, Style};

use super::Story;
use super::application::Application;
use super::sidecar::Sidecar;

/// Which part of the story.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Chapter {
    Calm,
    Fault,
    Recovery,
    Recovered,
}

/// How things stand at one moment; rates are since the last line.
#[derive(Debug, Clone)]
pub(super) struct Moment {
    pub(super) at: Duration,
    pub(super) since_chapter: Duration,
    pub(super) chapter: Chapter,
    pub(super) requests_per_second: f64,
    pub(super) bytes_per_second: f64,
    pub(super) pushback_percent: u64,
    pub(super) backoffs_per_second: f64,
    pub(super) batch_limit: u64,
    pub(super) accept_paused: bool,
    pub(super) connections: u64,
    pub(super) ready: bool,
    pub(super) reason: String,
}

/// A line. Whoever reads may have seen enough.
macro_rules! say {
    ($($said:tt)*) => {{
        let _ = writeln!(anstream::stdout(), $($said)*);
    }};
}

const GOOD: Style = AnsiColor::Green.on_default();
const BAD: Style = AnsiColor::Red.on_default().bold();
const FAINT: Style = Style::new().dimmed();
const STRONG: Style = Style::new().bold();

pub(super) struct Screen;

impl Screen {
    pub(super) fn new() -> Self {
        Screen
    }

    pub(super) fn opening(&self, application: &Application, sidecar: &Sidecar) {
        let backend = &sidecar.backend;
        say!(
            "{STRONG}Ringside{STRONG:#}: clients -> sidecar {} ({backend}) -> application {}",
            sidecar.address,
            application.address
        );
        say!(
            "Metrics and probes of the sidecar: http://{}/",
            sidecar.admin
        );
        say!();
        say!(
            "{FAINT}  time  chapter    requests/s     MB/s  pushback  backoffs/s  batch  accept   conns  ready{FAINT:#}"
        );
    }

    pub(super) fn line(&self, moment: &Moment) {
        let chapter = match moment.chapter {
            Chapter::Calm => "calm",
            Chapter::Fault => "fault",
            Chapter::Recovery => "recovery",
            Chapter::Recovered => "recovered",
        };
        let accept = if moment.accept_paused {
            ("paused", BAD)
        } else {
            ("open", GOOD)
        };
        let ready = if moment.ready {
            ("yes", GOOD)
        } else {
            ("NO", BAD)
        };
        let pushback = if moment.pushback_percent > 0 {
            BAD
        } else {
            GOOD
        };
        say!(
            "{:5.1}s  {chapter:9}  {:10.0}  {:7.2}  {pushback}{:7}%{pushback:#}  {:10.0}  {:5}  {}{:6}{:#}  {:6}  {}{}{:#} {FAINT}{}{FAINT:#}",
            moment.at.as_secs_f64(),
            moment.requests_per_second,
            moment.bytes_per_second / 1e6,
            moment.pushback_percent,
            moment.backoffs_per_second,
            moment.batch_limit,
            accept.1,
            accept.0,
            accept.1,
            moment.connections,
            ready.1,
            ready.0,
            ready.1,
            moment.reason,
        );
    }

    pub(super) fn fault_begins(&self, time: Duration) {
        say!("{BAD}-- for {time:?} every submission to the kernel now fails with EAGAIN{BAD:#}");
    }

    pub(super) fn fault_ends(&self) {
        say!("{GOOD}-- the kernel takes submissions again{GOOD:#}");
    }

    pub(super) fn no_injection(&self, why: &str) {
        say!("{BAD}-- the fault is left out: {why}{BAD:#}");
    }

    pub(super) fn ending(&self, story: &Story, first_loss: Option<&str>, failures: &[String]) {
        let time = |time: Option<Duration>| {
            time.map_or("never".to_owned(), |time| {
                format!("{:.2} s", time.as_secs_f64())
            })
        };
        say!();
        say!("{STRONG}What happened{STRONG:#}");
        say!(
            "  relayed             {} requests, {:.1} MB, every byte checked",
            story.requests,
            story.bytes as f64 / 1e6
        );
        say!("  lost                {}", story.lost);
        if let Some(loss) = first_loss {
            say!("  the first loss      {loss}");
        }
        if let Some(refused) = story.refused_submissions {
            say!("  refused submissions {refused}");
            say!(
                "  unready after       {} of the fault",
                time(story.unready_after)
            );
            say!(
                "  traffic back after  {} of its end",
                time(story.traffic_back_after)
            );
            say!(
                "  ready again after   {} of its end",
                time(story.ready_back_after)
            );
        }
        say!(
            "  drained on SIGTERM  {}",
            if story.drained_cleanly {
                "yes, exit 0"
            } else {
                "no"
            }
        );
        say!();
        if failures.is_empty() {
            say!("{GOOD}Nothing was lost.{GOOD:#}");
        }
        for failure in failures {
            say!("{BAD}Failed: {failure}.{BAD:#}");
        }
    }
}
