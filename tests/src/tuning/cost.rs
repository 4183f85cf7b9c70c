//! Trials of what a relay costs: CPU for each unit of work, and memory.

use std::io::Write;
use std::thread;
use std::time::Duration;

use anyhow::Context;
use serde_json::json;

use super::load::{SECONDS, Stage, cpu, rate};
use super::{Area, Side, Trial};
use crate::relay::Relay;
use crate::traffic::{Pattern, Server, echo};

pub(super) const AREA: Area = Area {
    name: "What it costs",
    trials: &[
        Trial {
            symptom: "a worker is at 100 %, no pushback: small messages",
            look: "`ps -T`, `top`'s CPU",
            before: "target: \"127.0.0.1:8080\"",
            after: "target: \"unix:/run/app.sock\"",
            figures: &["CPU, us a request (64 connections)"],
            measure: pings_of_64,
        },
        Trial {
            symptom: "the same, and the relay runs on epoll",
            look: "RingsideEpollFallback, `ringside_backend_info`",
            before: "backend: epoll",
            after: "backend: ring",
            figures: &["CPU, us a request (64 connections)"],
            measure: pings_of_64,
        },
        Trial {
            symptom: "the same, with many connections",
            look: "the same",
            before: "backend: epoll",
            after: "backend: ring",
            figures: &["CPU, us a request (1,000 connections)"],
            measure: pings_of_1000,
        },
        Trial {
            symptom: "a worker is at 100 %, and the pod has another CPU",
            look: "`ps -T`",
            before: "workers: 1",
            after: "workers: 2",
            figures: &[
                "requests a second (64 connections)",
                "CPU, us a request",
                "resident MiB, idle",
            ],
            measure: workers,
        },
        Trial {
            symptom: "a worker is at 100 %: streams",
            look: "`ringside_spliced_bytes_total` stands still, `ringside_pipes_held` at `ringside_pipes_limit`",
            before: "buffers: {pipes: 0}",
            after: "buffers: {pipes: 128}",
            figures: &["CPU, s a GB (8 streams)"],
            measure: streams,
        },
        Trial {
            symptom: "much CPU for small messages of many connections",
            look: "`ringside_submission_batch_size` at `batch.max`",
            before: "batch: {max: 16}",
            after: "batch: {max: 256}",
            figures: &["CPU, us a request (1,000 connections)"],
            measure: pings_of_1000,
        },
        Trial {
            symptom: "the same",
            look: "the same",
            before: "batch: {max: 256}",
            after: "batch: {max: 512}",
            figures: &["CPU, us a request (1,000 connections)"],
            measure: pings_of_1000,
        },
        Trial {
            symptom: "receives find no buffer",
            look: "RingsideBufferPoolExhausted, `ringside_buffer_shortages_total`",
            before: "buffers: {pool: 256Ki}",
            after: "buffers: {pool: 8Mi}",
            figures: &[
                "CPU, us a request of 4 KiB (1,000 connections)",
                "shortages in 1,000 requests",
                "resident MiB",
            ],
            measure: pool,
        },
        Trial {
            symptom: "memory grows while clients take slowly",
            look: "`ringside_queued_bytes`",
            before: "buffers: {perDirection: 256Ki}",
            after: "buffers: {perDirection: 16Ki}",
            figures: &["MiB queued for 100 clients that take nothing"],
            measure: stalled_takers,
        },
        Trial {
            symptom: "CPU for short connections, all of them logged",
            look: "`ringside_access_log_dropped_total`, lines of the access log",
            before: "accessLog: {mode: All, maxPerSecond: 100000}",
            after: "accessLog: {mode: Errors}",
            figures: &["CPU, us a connection"],
            measure: short_connections,
        },
        Trial {
            symptom: "answers take 40 ms, now and then",
            look: "`/config`: who set it",
            before: "tcp: {noDelay: false}",
            after: "tcp: {noDelay: true}",
            figures: &["ms for a request sent in two pieces, slowest tenth"],
            measure: two_pieces,
        },
    ],
};

/// Limits that would bound the load and are not what is looked at.
fn unbounded(side: &Side) -> Side {
    side.clone()
        .over(json!({"accept": {"maxConnections": 8000, "maxPerSecond": 1_000_000}}))
}

fn pings(side: &Side, connections: &str) -> anyhow::Result<Vec<f64>> {
    let stage = Stage::start(&unbounded(side))?;
    let record = stage.run(&["ping", "--connections", connections, "--seconds", SECONDS])?;
    Ok(vec![cpu(&record)?])
}

fn pings_of_64(side: &Side) -> anyhow::Result<Vec<f64>> {
    pings(side, "64")
}

fn pings_of_1000(side: &Side) -> anyhow::Result<Vec<f64>> {
    pings(side, "1000")
}

fn workers(side: &Side) -> anyhow::Result<Vec<f64>> {
    let stage = Stage::start(&unbounded(side))?;
    let idle = stage.resident_mib()?;
    let record = stage.run(&["ping", "--connections", "64", "--seconds", SECONDS])?;
    Ok(vec![rate(&record)?, cpu(&record)?, idle])
}

fn streams(side: &Side) -> anyhow::Result<Vec<f64>> {
    let stage = Stage::start(side)?;
    let record = stage.run(&["bulk", "--connections", "8", "--gigabytes", "3"])?;
    Ok(vec![cpu(&record)? / 1e6])
}

fn pool(side: &Side) -> anyhow::Result<Vec<f64>> {
    let stage = Stage::start(&unbounded(side))?;
    let words = ["ping", "--connections", "1000", "--bytes", "4096"];
    let record = stage.run(&[&words[..], &["--seconds", SECONDS]].concat())?;
    let shortages = stage.relay.metric("buffer_shortages_total", &[]);
    let requests = super::load::number(&record, "/units")?;
    Ok(vec![
        cpu(&record)?,
        shortages / requests * 1000.0,
        stage.resident_mib()?,
    ])
}

fn short_connections(side: &Side) -> anyhow::Result<Vec<f64>> {
    let stage = Stage::start(&unbounded(side))?;
    let record = stage.run(&["churn", "--concurrency", "32", "--seconds", SECONDS])?;
    Ok(vec![cpu(&record)?])
}

/// A server that sends for as long as somebody takes.
fn stalled_takers(side: &Side) -> anyhow::Result<Vec<f64>> {
    const TAKERS: usize = 100;
    const PATTERN: Pattern = Pattern::new(3);
    // The kernel's own buffers are the same on both sides; they are small, so that it stands still soon.
    crate::namespace::set_send_buffers(64 << 10)?;
    let server = Server::local(|stream, _| {
        // It ends when the taker does.
        let _ = stream.send(PATTERN, 0, 1 << 40, 16 << 10);
        Ok(())
    });
    // With room for all of them, so that what bounds a connection is its own limit.
    let side = side.clone().over(json!({"buffers": {"pool": "64Mi"}}));
    let relay = side.setup(&server.target()).start();
    let takers: Vec<_> = (0..TAKERS).map(|_| relay.connect()).collect();
    let queued = |relay: &Relay| relay.metric("queued_bytes", &[]);
    relay.await_still(|| queued(&relay) as u64);
    let standing = queued(&relay) / 1_048_576.0;
    for taker in takers {
        taker.reset()?;
    }
    crate::namespace::set_send_buffers(4 << 20)?;
    Ok(vec![standing])
}

fn two_pieces(side: &Side) -> anyhow::Result<Vec<f64>> {
    const ROUNDS: usize = 60;
    const PIECE: usize = 100;
    // Answers once both pieces are there, as an application does.
    let server = Server::local(|stream, number| {
        let pattern = Pattern::new(1);
        let bytes = 2 * PIECE as u64;
        for round in 0..ROUNDS as u64 {
            stream.receive(pattern, round * bytes, (round + 1) * bytes)?;
            stream.send(pattern, round, round + 1, 1)?;
        }
        echo(stream, number)
    });
    let relay = side.setup(&server.target()).start();
    let stream = relay.connect();
    let pattern = Pattern::new(1);
    let mut times = Vec::with_capacity(ROUNDS);
    for round in 0..ROUNDS as u64 {
        let begin = std::time::Instant::now();
        let at = round * 2 * PIECE as u64;
        stream.send(pattern, at, at + PIECE as u64, PIECE)?;
        (&stream).flush()?;
        // So that the relay sees two receives.
        thread::sleep(Duration::from_millis(1));
        stream.send(pattern, at + PIECE as u64, at + 2 * PIECE as u64, PIECE)?;
        stream.receive(pattern, round, round + 1)?;
        times.push(begin.elapsed().as_secs_f64() * 1e3 - 1.0);
    }
    times.sort_by(f64::total_cmp);
    let slow = times.get(ROUNDS * 9 / 10).copied();
    Ok(vec![slow.context("sixty rounds")?])
}
