//! The loop: connect, call, wait for the answer, take it, call again; and wait longer each time that fails. It is the only one that
//! calls; a call that is held is overtaken by the next, on the same line.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Bytes;
use ringside_api::sync::{Assigned, HOLD_MILLIS, Leave, Mark, Report};

use super::answer::{Offered, Understood, understand};
use super::call::{brief, request, token};
use super::connection::Connection;
use super::failure::Failure;
use super::kept::{Kept, Store};
use super::line::Line;
use super::pace::{GAP, PRESSED_EVERY, Pace};
use super::trust::Trust;
use super::view::Outcome;
use super::{Controller, Host, Look};
use crate::settings::{Assignment, FoundIn};
use crate::time::Time;

/// How long an answer may take that the controller may hold back.
const HELD_LIMIT: Duration = Duration::from_millis(HOLD_MILLIS + 10_000);

/// How long one may take that is asked for at once.
const AT_ONCE_LIMIT: Duration = Duration::from_secs(5);

/// The most characters of each sentence in a report, so that the whole stays below what a controller takes.
const SENTENCE_CHARS_MAX: usize = 500;

/// Speaks with the controller for as long as the process lives; `kept` is what an earlier process left.
pub async fn work(controller: Controller, kept: Kept, host: Arc<dyn Host>) {
    let store = controller.state.as_deref().map(Store::new);
    let mut work = Work {
        saved: kept.clone(),
        kept,
        store,
        trust: None,
        leader: None,
        pace: Pace::new(),
        failing: Vec::new(),
        cannot_save: false,
        called: None,
        taken_at: None,
        seen: Mark::default(),
        controller,
        host,
    };
    loop {
        let failure = work.speak().await;
        let wait = work.note(&failure);
        work.rest(wait).await;
    }
}

/// What `doing` comes to, in `limit` at most.
async fn within<T>(
    limit: Duration,
    doing: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let done = tokio::time::timeout(limit, doing).await;
    done.unwrap_or_else(|_| Err(too_slow(limit)))
}

fn too_slow(limit: Duration) -> Failure {
    Failure::TimedOut(format!("there was no whole answer within {limit:?}"))
}

struct Work {
    controller: Controller,
    host: Arc<dyn Host>,
    kept: Kept,
    /// What is on the volume.
    saved: Kept,
    store: Option<Store>,
    trust: Option<Trust>,
    /// Where the leader answers, as another replica said.
    leader: Option<SocketAddr>,
    pace: Pace,
    /// The kinds of failure that were told, until there is an answer. Several may take turns, as while nobody leads.
    failing: Vec<Outcome>,
    cannot_save: bool,
    called: Option<Called>,
    /// Since when the controller has taken calls on this connection.
    taken_at: Option<Time>,
    /// The mark of the last answer that was taken, and kept for a restart.
    seen: Mark,
}

/// The last call.
#[derive(Clone, Copy)]
struct Called {
    at: Time,
    said: Look,
    at_once: bool,
}

impl Work {
    /// Speaks on one connection until that fails.
    async fn speak(&mut self) -> Failure {
        match self.speak_until_failure().await {
            Ok(never) => match never {},
            Err(failure) => failure,
        }
    }

    async fn speak_until_failure(&mut self) -> Result<std::convert::Infallible, Failure> {
        // Before a connection is made for nothing.
        token(&self.controller)?;
        let connection = self.connect().await?;
        let connected = Some((connection.peer, self.host.now()));
        self.host.view().lock().connected = connected;
        let (mut called, report) = self.report();
        self.called = Some(called);
        let request = request(&self.controller, &token(&self.controller)?, &report)?;
        // Until it is known who leads, the controller holds this one.
        let mut line = within(HELD_LIMIT, Line::begin(connection, request)).await?;
        self.taken_at = Some(self.host.now());
        loop {
            match self.await_reply(&mut line, called).await {
                Some(answer) => {
                    let understood = understand(&answer?).map_err(Failure::Failed)?;
                    let is_news = self.take(understood, called).await;
                    let took = self.host.now().saturating_since(called.at);
                    let due = is_news || called.at_once;
                    let wait = self.pace.after_answer(took, due, fastrand::u64(..));
                    self.rest(wait.max(GAP.saturating_sub(took))).await;
                }
                None => self.host.view().count(Outcome::Superseded),
            }
            let report;
            (called, report) = self.report();
            self.called = Some(called);
            let token = token(&self.controller)?;
            within(AT_ONCE_LIMIT, line.call(token, report)).await?;
        }
    }

    /// The reply to a call; `None` as soon as something newer is to be told.
    async fn await_reply(&self, line: &mut Line, called: Called) -> Option<Result<Bytes, Failure>> {
        let limit = if called.at_once {
            AT_ONCE_LIMIT
        } else {
            HELD_LIMIT
        };
        let answered = async {
            loop {
                let wait = tokio::time::sleep(self.host.look_every());
                tokio::select! {
                    answer = line.reply() => return Some(answer),
                    () = wait => if self.must_call(called) { return None },
                }
            }
        };
        let answered = tokio::time::timeout(limit, answered).await;
        answered.unwrap_or_else(|_| Some(Err(too_slow(limit))))
    }

    async fn connect(&mut self) -> Result<Connection, Failure> {
        let trust = Trust::find(&self.controller, self.kept.ca.as_deref())?;
        self.host
            .view()
            .lock()
            .trusts
            .clone_from(&trust.fingerprint);
        let opening = Connection::open(&self.controller, &self.host, self.leader, &trust);
        let connection = opening.await?;
        self.trust = Some(trust);
        Ok(connection)
    }

    /// Whether something has to be told although a call is open, or before it is time.
    fn must_call(&self, last: Called) -> bool {
        let now = self.host.now();
        let since = now.saturating_since(last.at);
        if since < GAP {
            return false;
        }
        let look = self.host.look();
        let asks = !last.at_once && self.host.leaving().asks(now);
        let is_pressed = look.leave != Leave::Stays;
        look != last.said || asks || (is_pressed && since >= PRESSED_EVERY)
    }

    /// Waits, but not when something has to be told that was not yet.
    async fn rest(&self, wait: Duration) {
        let until = self.host.now().saturating_add(wait);
        let begin = self.host.look();
        loop {
            let left = until.saturating_since(self.host.now());
            if left.is_zero() {
                return;
            }
            tokio::time::sleep(left.min(self.host.look_every())).await;
            let connected = self.failing.is_empty();
            let wants = self.host.look().leave == Leave::Wants && begin.leave == Leave::Stays;
            let must = self.called.is_some_and(|last| self.must_call(last));
            if (connected && must) || wants {
                return;
            }
        }
    }

    /// What is said now.
    fn report(&self) -> (Called, Report) {
        let now = self.host.now();
        let said = self.host.look();
        let was_long_ago = |last: Called| now.saturating_since(last.at) >= PRESSED_EVERY;
        let (asks, permit) = {
            let mut leaving = self.host.leaving();
            let is_pressed = said.leave != Leave::Stays;
            let asks = leaving.asks(now) || (is_pressed && self.called.is_none_or(was_long_ago));
            if asks {
                leaving.asked(now);
            }
            (asks, leaving.permit())
        };
        let (runs, refused) = self.host.runs();
        let mut state = self.host.state();
        state.reason = brief(&state.reason, SENTENCE_CHARS_MAX);
        state.backend_reason = brief(&state.backend_reason, SENTENCE_CHARS_MAX);
        let report = Report {
            pod: self.controller.pod.clone(),
            version: crate::VERSION.to_owned(),
            runs,
            refused: refused.map(|mut refused| {
                refused.why = brief(&refused.why, SENTENCE_CHARS_MAX);
                refused
            }),
            permit,
            trusts: self
                .trust
                .as_ref()
                .map(|trust| trust.fingerprint.clone())
                .unwrap_or_default(),
            state,
            seen: self.seen,
            at_once: asks,
        };
        let called = Called {
            at: now,
            said,
            at_once: asks,
        };
        (called, report)
    }

    /// Takes an answer; says whether it brought anything new.
    async fn take(&mut self, understood: Understood, called: Called) -> bool {
        let now = self.host.now();
        let Understood { answer, offer } = understood;
        self.host.view().count(Outcome::Answered);
        self.pace.told_sidecars(answer.sidecars);
        {
            let mut seen = self.host.view().lock();
            seen.last_answer = Some(now);
            seen.keeps = match &offer {
                Offered::Keep(why) if !why.is_empty() => Some(brief(why, SENTENCE_CHARS_MAX)),
                _ => None,
            };
        }
        if !std::mem::take(&mut self.failing).is_empty() {
            tracing::info!("the controller answers again");
        }
        let permit_before = {
            let mut leaving = self.host.leaving();
            let before = leaving.permit();
            // What was asked for at once was granted at once: counted from the question, it never ends later than the controller
            // thinks. An answer that was held back is as old as it took to come.
            let from = if called.at_once { called.at } else { now };
            leaving.answered(answer.permit, answer.leave.as_ref(), from);
            before
        };
        self.kept.permit = answer.permit;
        let ran_before = self.host.runs();
        if let Offered::Run(offered) = offer {
            self.run(offered.map(|assigned| *assigned));
        }
        let is_trust_new = answer.ca.is_some_and(|pem| self.renew_trust(&pem));
        // Only then: what is acknowledged must hold for the next process too.
        self.keep().await;
        self.seen = answer.mark;
        permit_before != answer.permit || ran_before != self.host.runs() || is_trust_new
    }

    fn run(&mut self, offered: Result<Assigned, ringside_api::sync::RefusedOffer>) {
        let offered = offered.map(|assigned| Assignment {
            assigned,
            from: FoundIn::Answered,
        });
        let assigned = offered
            .as_ref()
            .ok()
            .map(|offered| offered.assigned.clone());
        if self.host.take(offered) {
            self.kept.assigned = assigned;
        }
    }

    /// Trusts other certificates from the next connection on; says whether they are others.
    fn renew_trust(&mut self, pem: &str) -> bool {
        match Trust::new(pem) {
            Ok(trust) => {
                let before = self
                    .trust
                    .as_ref()
                    .map(|before| before.fingerprint.as_str());
                if before == Some(&trust.fingerprint) {
                    return false;
                }
                tracing::info!(
                    trusts = trust.fingerprint,
                    "the certificates to trust the controller by are renewed"
                );
                self.host
                    .view()
                    .lock()
                    .trusts
                    .clone_from(&trust.fingerprint);
                self.trust = Some(trust);
                self.kept.ca = Some(pem.to_owned());
                true
            }
            Err(problem) => {
                let sentence = format!(
                    "the controller's new certificates to trust it by are refused: {problem}"
                );
                let error = Some((sentence, self.host.now()));
                self.host.view().lock().last_error = error;
                false
            }
        }
    }

    /// Keeps what changed for the next process.
    async fn keep(&mut self) {
        if self.kept == self.saved && !self.cannot_save {
            return;
        }
        let Some(store) = self.store.clone() else {
            return;
        };
        let kept = self.kept.clone();
        // A disk may be slow, and this thread answers probes.
        let saved = tokio::task::spawn_blocking(move || store.save(&kept)).await;
        let saved = saved.unwrap_or_else(|error| Err(error.to_string()));
        if let Err(sentence) = &saved
            && !self.cannot_save
        {
            tracing::warn!("{sentence}");
        }
        self.cannot_save = saved.is_err();
        self.saved = self.kept.clone();
    }

    /// Tells of a failure, once for each kind; says how long to wait.
    fn note(&mut self, failure: &Failure) -> Duration {
        let now = self.host.now();
        let kind = failure.outcome();
        self.host.view().count(kind);
        {
            let mut seen = self.host.view().lock();
            seen.connected = None;
            seen.last_error = Some((failure.to_string(), now));
        }
        if let Some(since) = self.taken_at.take() {
            self.pace.after_hold(now.saturating_since(since));
        }
        self.host.leaving().lost(now);
        let is_pressed = self.host.look().leave != Leave::Stays;
        self.leader = match failure {
            Failure::Redirected { leader, .. } => *leader,
            _ => None,
        };
        if !self.failing.contains(&kind) {
            self.failing.push(kind);
            if matches!(
                failure,
                Failure::Redirected {
                    leader: Some(_),
                    ..
                }
            ) {
                tracing::info!(leader = ?self.leader, "another replica of the controller leads: calling that");
            } else {
                tracing::warn!("{failure}; the last good settings stay, and it is called again");
            }
        }
        self.pace
            .after_failure(failure, is_pressed, fastrand::u64(..))
    }
}
