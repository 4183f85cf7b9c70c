//! Trials of pushback: a kernel that refuses submissions on order, by `ringside::backend::inject`.

use std::time::{Duration, Instant};

use ringside::backend::inject::{Denial, Errno, Syscalls};
use serde_json::json;

use super::load::{SECONDS, Stage, cpu, number};
use super::{Area, Side, Trial};
use crate::await_that;
use crate::relay::Relay;
use crate::traffic::{Pattern, Server, Stream, echo};

pub(super) const AREA: Area = Area {
    name: "When the kernel pushes back",
    trials: &[
        Trial {
            symptom: "answers come late after pushback is over",
            look: "`ringside_submission_backoff_seconds`, RingsideStalls",
            before: "backoff: {max: 50ms}",
            after: "backoff: {max: 5ms}",
            figures: &[
                "ms from the end of pushback to the answer, mean of 10",
                "calls in vain a second, meanwhile",
            ],
            measure: storms,
        },
        Trial {
            symptom: "calls in vain cost too much while the node is short",
            look: "`rate(ringside_submissions_total{outcome=\"eagain\"}[1m])`",
            before: "backoff: {max: 50ms}",
            after: "backoff: {max: 500ms}",
            figures: &[
                "ms from the end of pushback to the answer, mean of 10",
                "calls in vain a second, meanwhile",
            ],
            measure: storms,
        },
        Trial {
            symptom: "single refusals show in the latency",
            look: "`ringside_submission_backoff_seconds`",
            before: "backoff: {initial: 5ms}",
            after: "backoff: {initial: 50us}",
            figures: &["ms for a ping that meets one EAGAIN, mean of 50"],
            measure: single_refusals,
        },
        Trial {
            symptom: "workers retry in step",
            look: "`ringside_submission_backoff_seconds`",
            before: "backoff: {jitter: None}",
            after: "backoff: {jitter: Full}",
            figures: &[
                "ms from the end of pushback to the answer, mean of 10",
                "calls in vain a second, meanwhile",
            ],
            measure: storms,
        },
        Trial {
            symptom: "stalls are told for pushback that is soon over",
            look: "RingsideStalls, `ringside_stalls_total`",
            before: "backoff: {maxRetries: 10}",
            after: "backoff: {maxRetries: 20}",
            figures: &["stalls in 20 times 100 ms of pushback"],
            measure: stalls,
        },
        Trial {
            symptom: "submissions are refused when they are large",
            look: "`ringside_submission_batch_limit` goes up and down, `ringside_submissions_total{outcome=\"eagain\"}`",
            before: "batch: {max: 256}",
            after: "batch: {max: 16}",
            figures: &[
                "refusals in 1,000 requests (a kernel that takes 16 at most)",
                "CPU, us a request",
            ],
            measure: small_kernel,
        },
        Trial {
            symptom: "the same, and nothing moves",
            look: "the same",
            before: "batch: {mode: Fixed, max: 64}",
            after: "batch: {mode: Adaptive, max: 64}",
            figures: &["answers in 2 s to 40 clients (a kernel that takes 16 at most)"],
            measure: fixed_batches,
        },
        Trial {
            symptom: "the pod stays in its Services for too long",
            look: "RingsideSustainedPushback, `ringside_pushback_percent`",
            before: "readiness: {unreadyAfter: 2s}",
            after: "readiness: {unreadyAfter: 300ms}",
            figures: &["ms from the first refusal to 503"],
            measure: until_unready,
        },
        Trial {
            symptom: "the pod goes and comes all the time",
            look: "`ringside_readiness_flips_total`",
            before: "readiness: {recoverAfter: 200ms}",
            after: "readiness: {recoverAfter: 3s}",
            figures: &["changes of readiness in 3 times 1 s of pushback with 2 s between"],
            measure: flips,
        },
        Trial {
            symptom: "the pod stays away for too long",
            look: "RingsideUnready",
            before: "readiness: {recoverAfter: 10s}",
            after: "readiness: {recoverAfter: 2s}",
            figures: &["ms from the end of pushback to 200"],
            measure: until_ready,
        },
    ],
};

const UP: Pattern = Pattern::new(9);

fn server() -> Server {
    Server::local(|stream, number| echo(stream, number).or(Ok(())))
}

fn start(side: &Side, server: &Server) -> Relay {
    side.setup(&server.target())
        .watched(Syscalls::Submissions)
        .start()
}

/// A client that pings: each ping begins where the one before ended.
struct Client {
    stream: Stream,
    at: u64,
}

impl Client {
    fn of(relay: &Relay) -> Self {
        let stream = relay.connect();
        Self { stream, at: 0 }
    }

    fn ping(&mut self) -> anyhow::Result<Duration> {
        let begin = Instant::now();
        self.stream.ping(UP, self.at, self.at + 64)?;
        self.at += 64;
        Ok(begin.elapsed())
    }

    /// So many, so that the relay has nothing else to do afterwards.
    fn warm_up(&mut self) -> anyhow::Result<()> {
        (0..20).try_for_each(|_| self.ping().map(drop))
    }
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn storms(side: &Side) -> anyhow::Result<Vec<f64>> {
    const STORMS: u32 = 10;
    // Of several lengths, or a backoff without jitter would always end at the same moment of them.
    let storm = |number: u32| Duration::from_millis(275) + Duration::from_millis(5) * number;
    let server = server();
    let relay = start(side, &server);
    let mut client = Client::of(&relay);
    client.warm_up()?;
    let (mut late, before) = (Duration::ZERO, relay.injector().counts().failed);
    for storm in (0..STORMS).map(storm) {
        relay.injector().fail_for(storm, Errno::EAGAIN);
        late += client.ping()?.saturating_sub(storm);
        client.warm_up()?;
    }
    let in_vain = relay.injector().counts().failed - before;
    let seconds = (0..STORMS).map(storm).sum::<Duration>().as_secs_f64();
    Ok(vec![ms(late / STORMS), in_vain as f64 / seconds])
}

fn single_refusals(side: &Side) -> anyhow::Result<Vec<f64>> {
    const PINGS: u32 = 50;
    let server = server();
    let relay = start(side, &server);
    let mut client = Client::of(&relay);
    client.warm_up()?;
    let mut all = Duration::ZERO;
    for _ in 0..PINGS {
        relay.injector().fail_next(1, Errno::EAGAIN);
        all += client.ping()?;
    }
    Ok(vec![ms(all / PINGS)])
}

fn stalls(side: &Side) -> anyhow::Result<Vec<f64>> {
    let server = server();
    let relay = start(side, &server);
    let mut client = Client::of(&relay);
    for _ in 0..20 {
        client.warm_up()?;
        let storm = Duration::from_millis(100);
        relay.injector().fail_for(storm, Errno::EAGAIN);
        client.ping()?;
    }
    Ok(vec![relay.metric("stalls_total", &[])])
}

fn small_kernel(side: &Side) -> anyhow::Result<Vec<f64>> {
    let denial = Denial::SubmitsAbove(16, Errno::EAGAIN);
    let stage = Stage::start_as(side, |setup| setup.denied(denial))?;
    let record = stage.run(&["ping", "--connections", "64", "--seconds", SECONDS])?;
    let refused = [("outcome", "eagain")];
    let refused = stage.relay.metric("submissions_total", &refused);
    let requests = number(&record, "/units")?;
    Ok(vec![refused / requests * 1000.0, cpu(&record)?])
}

fn fixed_batches(side: &Side) -> anyhow::Result<Vec<f64>> {
    const CLIENTS: usize = 40;
    const WATCHED: Duration = Duration::from_secs(2);
    let server = server();
    let denial = Denial::SubmitsAbove(16, Errno::EAGAIN);
    let relay = side.setup(&server.target()).denied(denial).start();
    let clients: Vec<Client> = (0..CLIENTS).map(|_| Client::of(&relay)).collect();
    for client in &clients {
        client.stream.set_patience(WATCHED)?;
    }
    let end = Instant::now() + WATCHED;
    let answers = std::thread::scope(|scope| {
        let all: Vec<_> = clients
            .into_iter()
            .map(|mut client| {
                scope.spawn(move || {
                    let mut answers = 0_u32;
                    while Instant::now() < end && client.ping().is_ok() {
                        answers += 1;
                    }
                    answers
                })
            })
            .collect();
        all.into_iter()
            .map(|client| client.join().unwrap_or_default())
            .sum::<u32>()
    });
    Ok(vec![answers.into()])
}

/// Clients that ping for as long as they are let, so that there is always something to submit.
fn under_load<T>(relay: &Relay, body: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
    let _load = crate::steady::Steady::start(relay.address(), 4, 100);
    let moved = || relay.metric("relayed_bytes_total", &[]);
    await_that("traffic", || moved() > 10_000.0);
    body()
}

fn until_unready(side: &Side) -> anyhow::Result<Vec<f64>> {
    let server = server();
    let relay = start(side, &server);
    under_load(&relay, || {
        let storm = Duration::from_secs(20);
        relay.injector().fail_for(storm, Errno::EAGAIN);
        let begin = Instant::now();
        await_that("the relay to be unready", || !relay.ready());
        relay.injector().stop();
        Ok(vec![ms(begin.elapsed())])
    })
}

fn until_ready(side: &Side) -> anyhow::Result<Vec<f64>> {
    let server = server();
    let side = side
        .clone()
        .over(json!({"readiness": {"unreadyAfter": "300ms"}}));
    let relay = start(&side, &server);
    under_load(&relay, || {
        let storm = Duration::from_secs(20);
        relay.injector().fail_for(storm, Errno::EAGAIN);
        await_that("the relay to be unready", || !relay.ready());
        relay.injector().stop();
        let begin = Instant::now();
        await_that("the relay to be ready again", || relay.ready());
        Ok(vec![ms(begin.elapsed())])
    })
}

fn flips(side: &Side) -> anyhow::Result<Vec<f64>> {
    let server = server();
    let side = side
        .clone()
        .over(json!({"readiness": {"unreadyAfter": "200ms"}}));
    let relay = start(&side, &server);
    under_load(&relay, || {
        let before = relay.metric("readiness_flips_total", &[]);
        for _ in 0..3 {
            let storm = Duration::from_secs(1);
            relay.injector().fail_for(storm, Errno::EAGAIN);
            std::thread::sleep(storm * 3);
        }
        let flips = || relay.metric("readiness_flips_total", &[]) - before;
        // Away and back: an even number.
        await_that("the relay to be ready again", || {
            relay.ready() && flips() % 2.0 == 0.0
        });
        Ok(vec![flips()])
    })
}
