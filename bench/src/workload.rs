//! The workloads, each run once from connect to report, with the relay's cost read around the part that counts.
//!
//! Owns what is warm-up and what is measured; the loops themselves are in `ping`, `bulk` and `churn`.

use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use anyhow::{anyhow, bail};

use crate::bulk::{Bulk, Watch, Way};
use crate::churn::Churn;
use crate::endpoint::Endpoint;
use crate::ping::Ping;
use crate::process::{Cpu, Memory, Processes};
use crate::report::{Report, Unit};

/// Streams that run beside the ping in the mixed workload.
pub(crate) const MIXED_STREAMS: usize = 8;

/// What a run is aimed at and what is watched meanwhile.
#[derive(Debug, Clone)]
pub(crate) struct Aim {
    /// Where the client connects: a relay, or the application itself.
    pub target: Endpoint,
    /// The relay's processes; none to measure no cost.
    pub relay: Processes,
    /// How long to run before measuring begins, where the workload is one of time.
    pub warm_up: Duration,
}

impl Aim {
    fn cpu(&self) -> anyhow::Result<Option<Cpu>> {
        if self.relay.is_empty() {
            Ok(None)
        } else {
            self.relay.cpu().map(Some)
        }
    }

    fn cpu_since(&self, before: Option<Cpu>) -> anyhow::Result<Option<Cpu>> {
        Ok(self
            .cpu()?
            .zip(before)
            .map(|(now, before)| now.since(before)))
    }

    fn memory(&self) -> anyhow::Result<Option<Memory>> {
        if self.relay.is_empty() {
            Ok(None)
        } else {
            self.relay.memory().map(Some)
        }
    }

    /// Ping-pong of messages of `bytes` on standing connections.
    pub(crate) fn ping(
        &self,
        connections: usize,
        bytes: usize,
        duration: Duration,
    ) -> anyhow::Result<Report> {
        let mut ping = Ping::open(&self.target, connections, bytes)?;
        ping.run(self.warm_up)?;
        let before = self.cpu()?;
        let (replies, elapsed) = ping.run(duration)?;
        let cpu = self.cpu_since(before)?;
        Ok(
            Report::new("ping", connections, elapsed, Unit::Request, replies as f64)
                .with_latency(ping.latencies())
                .with_cpu(cpu),
        )
    }

    /// `bytes` in all over `connections`, one way.
    pub(crate) fn bulk(&self, connections: usize, bytes: u64, way: Way) -> anyhow::Result<Report> {
        let mut bulk = Bulk::open(&self.target, connections, bytes, way)?;
        let before = self.cpu()?;
        let (moved, elapsed) = bulk.run(&Watch::default())?;
        let cpu = self.cpu_since(before)?;
        let name = if way == Way::Upload {
            "bulk"
        } else {
            "bulk-reverse"
        };
        Ok(Report::new(
            name,
            connections,
            elapsed,
            Unit::Gigabyte,
            moved as f64 / 1e9,
        )
        .with_cpu(cpu))
    }

    /// Short connections, `concurrency` at a time.
    pub(crate) fn churn(
        &self,
        concurrency: usize,
        duration: Duration,
        client_closes: bool,
    ) -> anyhow::Result<Report> {
        let mut churn = Churn::new(&self.target, concurrency, client_closes)?;
        churn.run(self.warm_up)?;
        let before = self.cpu()?;
        let (completed, errors, elapsed) = churn.run(duration)?;
        let cpu = self.cpu_since(before)?;
        if let Some(error) = churn.first_error() {
            eprintln!("churn: the first failure was: {error}");
        }
        let mut report = Report::new(
            "churn",
            concurrency,
            elapsed,
            Unit::Connection,
            completed as f64,
        )
        .with_latency(churn.latencies())
        .with_cpu(cpu);
        report.errors = errors;
        Ok(report)
    }

    /// Opens connections that have each said something once and are silent now; `hold` waits as long as they should
    /// stand. Memory is that of the relay while they stand, less that before.
    pub(crate) fn idle(
        &self,
        connections: usize,
        bytes: usize,
        hold: impl FnOnce() -> anyhow::Result<()>,
    ) -> anyhow::Result<Report> {
        let before = self.memory()?;
        let begin = std::time::Instant::now();
        let _standing = Ping::open(&self.target, connections, bytes)?;
        let opening = begin.elapsed();
        let cpu_before = self.cpu()?;
        hold()?;
        let cpu = self.cpu_since(cpu_before)?;
        let mut report = Report::new(
            "idle",
            connections,
            opening,
            Unit::Connection,
            connections as f64,
        )
        .with_cpu(cpu);
        report.relay_memory = self.memory()?;
        report.relay_bytes_per_connection = report.relay_memory.zip(before).map(|(now, before)| {
            (now.anonymous_bytes as f64 - before.anonymous_bytes as f64) / connections.max(1) as f64
        });
        Ok(report)
    }

    /// What a further connection costs in user memory: opens `few`, then `many` in all, and divides the growth between.
    /// What the relay allocates once, whatever the number, is thus left out.
    pub(crate) fn idle_growth(
        &self,
        few: usize,
        many: usize,
        bytes: usize,
    ) -> anyhow::Result<Report> {
        let _standing = Ping::open(&self.target, few, bytes)?;
        let mut report = self.idle(many - few, bytes, || Ok(()))?;
        report.connections = many;
        Ok(report)
    }

    /// Ping-pong beside [`MIXED_STREAMS`] streams that never end.
    pub(crate) fn mixed(
        &self,
        connections: usize,
        bytes: usize,
        duration: Duration,
    ) -> anyhow::Result<Report> {
        let mut ping = Ping::open(&self.target, connections, bytes)?;
        let mut bulk = Bulk::open(&self.target, MIXED_STREAMS, u64::MAX, Way::Upload)?;
        let watch = Watch::default();
        thread::scope(|scope| {
            let streams = scope.spawn(|| bulk.run(&watch).map(drop));
            let measured = self.ping_beside(&mut ping, &watch, duration);
            watch.stop.store(true, Ordering::Relaxed);
            match streams.join() {
                Ok(Ok(())) => measured,
                Ok(Err(error)) => Err(error.context("the streams beside the ping failed")),
                Err(_) => Err(anyhow!("the thread of the streams panicked")),
            }
        })
        .map(|report| Report {
            connections,
            ..report
        })
    }

    fn ping_beside(
        &self,
        ping: &mut Ping,
        watch: &Watch,
        duration: Duration,
    ) -> anyhow::Result<Report> {
        ping.run(self.warm_up)?;
        let before = self.cpu()?;
        let moved_before = watch.moved.load(Ordering::Relaxed);
        let (replies, elapsed) = ping.run(duration)?;
        let moved = watch.moved.load(Ordering::Relaxed) - moved_before;
        let cpu = self.cpu_since(before)?;
        if moved == 0 {
            bail!("the streams beside the ping did not move a byte");
        }
        // The relay's CPU is nearly all the streams': per request it would mean nothing.
        let mut report = Report::new("mixed", 0, elapsed, Unit::Request, replies as f64)
            .with_latency(ping.latencies());
        report.relay_cpu = cpu;
        report.bulk_gigabytes = Some(moved as f64 / 1e9);
        Ok(report)
    }
}
