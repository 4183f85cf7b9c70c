//! Settings as one worker obeys them: every limit with its default derived here and nowhere else. Pure.

use std::time::Duration;

use ringside_api::Settings;
use ringside_api::settings as api;

use crate::backend::SocketOptions;
use crate::flow::Timeouts;
use crate::pressure::backoff::{BackoffLimits, Jitter};
use crate::pressure::batch::{BatchLimits, BatchMode};
use crate::pressure::budget::{BudgetLimits, OPERATIONS_PER_NEW_CONNECTION};
use crate::pressure::gate::GateLimits;
use crate::pressure::readiness::{ReadinessLimits, ReadinessMode};
use crate::pressure::shed::LadderLimits;

/// A direction may hold at most this part of what is free in the pool.
pub const POOL_SHARES: usize = 128;

/// What a direction may hold however little is free, so that it moves at all.
pub const SHARE_LEAST_BYTES: u32 = 4 * 1024;

/// Operations kept back for closing and cancelling.
const OPERATIONS_RESERVE: u32 = 256;

/// Operations are prewarmed for at most so many connections of a worker: 16,640 requests, 4 MiB of the
/// kernel's memory. A worker with more connections relies on backoff for the rest.
const PREWARMED_CONNECTIONS: u32 = 4096;

/// The limits of one worker.
#[derive(Debug, Clone)]
pub struct Limits {
    /// What they were made of.
    pub settings: Settings,
    /// See [`crate::pressure::backoff`].
    pub backoff: BackoffLimits,
    /// See [`crate::pressure::batch`].
    pub batch: BatchLimits,
    /// See [`crate::pressure::budget`].
    pub budget: BudgetLimits,
    /// See [`crate::pressure::gate`].
    pub gate: GateLimits,
    /// The most connections of one source; 0 is no limit.
    pub per_source: u32,
    /// See [`crate::pressure::shed`].
    pub ladder: LadderLimits,
    /// See [`crate::pressure::readiness`].
    pub readiness: ReadinessLimits,
    /// See [`crate::flow::Timeouts`].
    pub timeouts: Timeouts,
    /// What sockets are set to.
    pub sockets: SocketOptions,
    /// The most that the buffer pool may take.
    pub pool_bytes: usize,
    /// The most that one direction may hold.
    pub per_direction_bytes: u32,
    /// The most pipes.
    pub pipes: u32,
}

impl Limits {
    /// What these settings mean for a worker whose backend has memory for `prewarmed` operations; 0 is a
    /// backend without such a limit.
    pub fn of(settings: &Settings, prewarmed: u32) -> Self {
        let s = settings;
        Limits {
            settings: *s,
            backoff: BackoffLimits {
                initial: s.backoff.initial.into(),
                max: s.backoff.max.into(),
                multiplier_percent: s.backoff.multiplier_percent,
                jitter: match s.backoff.jitter {
                    api::Jitter::Full => Jitter::Full,
                    api::Jitter::Equal => Jitter::Equal,
                    api::Jitter::None => Jitter::None,
                },
                max_retries: s.backoff.max_retries,
            },
            batch: BatchLimits {
                mode: match s.batch.mode {
                    api::BatchMode::Adaptive => BatchMode::Adaptive,
                    api::BatchMode::Fixed => BatchMode::Fixed,
                },
                min: s.batch.min,
                max: s.batch.max,
            },
            budget: BudgetLimits {
                operations: budget(s, prewarmed),
                reserve: OPERATIONS_RESERVE,
            },
            gate: GateLimits {
                max_connections: s.accept.max_connections,
                max_per_second: Some(s.accept.max_per_second),
                pause_above_percent: s.accept.pause_above_percent as u8,
                resume_below_percent: s.accept.resume_below_percent as u8,
                descriptor_reserve: s.accept.descriptor_reserve,
                ..GateLimits::default()
            },
            per_source: s.accept.per_source,
            ladder: LadderLimits::default(),
            readiness: ReadinessLimits {
                mode: match s.readiness.mode {
                    api::ReadinessMode::Leave => ReadinessMode::Leave,
                    api::ReadinessMode::Report => ReadinessMode::Report,
                },
                pushback_percent: s.readiness.pushback_percent as u8,
                unready_after: s.readiness.unready_after.into(),
                recover_after: s.readiness.recover_after.into(),
            },
            timeouts: Timeouts {
                connect: s.timeouts.connect.into(),
                idle: s.timeouts.idle.into(),
                half_close: s.timeouts.half_close.into(),
            },
            sockets: socket_options(s),
            pool_bytes: usize::try_from(s.buffers.pool.bytes()).unwrap_or(usize::MAX),
            per_direction_bytes: u32::try_from(s.buffers.per_direction.bytes()).unwrap_or(u32::MAX),
            pipes: s.buffers.pipes,
        }
    }
}

/// What sockets are set to under these settings.
pub fn socket_options(settings: &Settings) -> SocketOptions {
    SocketOptions {
        no_delay: settings.tcp.no_delay,
        keepalive: Duration::from(settings.tcp.keepalive),
        user_timeout: Duration::from(settings.tcp.user_timeout),
    }
}

/// How many operations a worker may have in flight: a receive and a send each way for every connection, and the
/// reserve; but no more than were prewarmed, where the kernel had not even memory for these.
fn budget(settings: &Settings, prewarmed: u32) -> u32 {
    if prewarmed > 0 && prewarmed < operations_for(settings) {
        return prewarmed;
    }
    let connections = settings.accept.max_connections;
    connections
        .saturating_mul(OPERATIONS_PER_NEW_CONNECTION)
        .saturating_add(OPERATIONS_RESERVE)
}

/// How many operations are prewarmed under these settings.
pub fn operations_for(settings: &Settings) -> u32 {
    let connections = settings.accept.max_connections.min(PREWARMED_CONNECTIONS);
    connections * OPERATIONS_PER_NEW_CONNECTION + OPERATIONS_RESERVE
}
