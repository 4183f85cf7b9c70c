//! What happens to a flow in one run of the model, and in which order: drawn by proptest, so that a run that
//! fails is made small.

use std::time::Duration;

use proptest::prelude::*;

use crate::flow::Timeouts;

/// How a peer ends its stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// By an end of stream after all its bytes; it goes on taking.
    Shut,
    /// The same, but it answers whatever comes afterwards by a reset.
    Close,
    /// By a reset, which may come at any time.
    Reset,
    /// Not at all.
    Never,
}

/// How a peer takes what is sent to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taker {
    /// In pieces, at times that the tape says; everything in the end.
    Willing,
    /// It stops for minutes part way, then goes on.
    Stalling,
    /// It stops part way for good.
    Stuck,
}

/// What becomes of a connect to one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    Connects,
    Refuses,
    Silence,
}

/// Limits that a peer which stalls for minutes does not reach.
pub(super) const LONG: Timeouts = Timeouts {
    connect: Duration::from_secs(2),
    idle: Duration::from_secs(600),
    half_close: Duration::from_secs(300),
};

/// Limits shorter than the patience of splicing.
pub(super) const SHORT: Timeouts = Timeouts {
    connect: Duration::from_millis(30),
    idle: Duration::from_millis(50),
    half_close: Duration::from_millis(10),
};

/// One run.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) bytes: [u32; 2],
    pub(super) ending: [Ending; 2],
    pub(super) taker: [Taker; 2],
    pub(super) addresses: Vec<Answer>,
    pub(super) header: bool,
    pub(super) exact_receive_limit: bool,
    pub(super) share_bytes: u32,
    pub(super) pipe_bytes: u32,
    pub(super) timeouts: Timeouts,
    /// Whether operations fail for lack of memory now and then, multishots end early, pipes run out.
    pub(super) faults: bool,
    /// Whether the worker interrupts sends and moves bytes out.
    pub(super) moves_out: bool,
    /// Whether the worker ends the flow at some time that the tape says.
    pub(super) is_ended: bool,
    /// What is chosen at each fork; once used up, the most ordinary choice.
    pub(super) tape: Vec<u8>,
}

impl Plan {
    /// Both peers send, take and end as one would wish, in the simplest order.
    pub(super) fn ordinary(bytes: [u32; 2]) -> Plan {
        Plan {
            bytes,
            ending: [Ending::Shut; 2],
            taker: [Taker::Willing; 2],
            addresses: vec![Answer::Connects],
            header: false,
            exact_receive_limit: true,
            share_bytes: 256 * 1024,
            pipe_bytes: 1 << 20,
            timeouts: LONG,
            faults: false,
            moves_out: false,
            is_ended: false,
            tape: Vec::new(),
        }
    }
}

fn byte_counts() -> impl Strategy<Value = u32> {
    prop_oneof![
        2 => Just(0),
        3 => 1..200u32,
        3 => 1..200_000u32,
        5 => 400_000..3_000_000u32,
    ]
}

fn endings() -> impl Strategy<Value = Ending> {
    prop_oneof![
        8 => Just(Ending::Shut),
        2 => Just(Ending::Close),
        2 => Just(Ending::Reset),
        1 => Just(Ending::Never),
    ]
}

fn takers() -> impl Strategy<Value = Taker> {
    prop_oneof![
        6 => Just(Taker::Willing),
        3 => Just(Taker::Stalling),
        1 => Just(Taker::Stuck),
    ]
}

fn answers() -> impl Strategy<Value = Answer> {
    prop_oneof![
        8 => Just(Answer::Connects),
        2 => Just(Answer::Refuses),
        1 => Just(Answer::Silence),
    ]
}

fn tapes() -> impl Strategy<Value = Vec<u8>> {
    // Mostly the ordinary choice, so that flows come far enough for the others to matter.
    prop::collection::vec(prop_oneof![3 => Just(0), 2 => any::<u8>()], 0..1500)
}

fn pairs<S: Strategy<Value = T>, T: Copy + std::fmt::Debug>(
    each: impl Fn() -> S,
) -> impl Strategy<Value = [T; 2]> {
    (each(), each()).prop_map(|(client, upstream)| [client, upstream])
}

/// Everything that may happen.
pub(super) fn plans() -> impl Strategy<Value = Plan> {
    let peers = (pairs(byte_counts), pairs(endings), pairs(takers));
    let target = (prop::collection::vec(answers(), 1..4), any::<bool>());
    let shares = prop_oneof![Just(4096), Just(65_536), Just(256 * 1024)];
    let pipes = prop_oneof![Just(4096), Just(65_536), Just(1 << 20)];
    let worker = (any::<bool>(), shares, pipes, any::<bool>(), any::<bool>());
    let limits = prop_oneof![4 => Just(LONG), 1 => Just(SHORT)];
    let more = (prop::bool::weighted(0.1), limits);
    (peers, target, worker, more, tapes()).prop_map(
        |(peers, target, worker, (is_ended, timeouts), tape)| Plan {
            bytes: peers.0,
            ending: peers.1,
            taker: peers.2,
            addresses: target.0,
            header: target.1,
            exact_receive_limit: worker.0,
            share_bytes: worker.1,
            pipe_bytes: worker.2,
            timeouts,
            faults: worker.3,
            moves_out: worker.4,
            is_ended,
            tape,
        },
    )
}

/// Both peers cooperate, however slowly; the kernel and the worker may do what they like.
pub(super) fn cooperative_plans() -> impl Strategy<Value = Plan> {
    (plans(), pairs(|| prop::bool::weighted(0.3))).prop_map(|(mut plan, stalling)| {
        plan.ending = [Ending::Shut; 2];
        plan.taker = stalling.map(|stalls| {
            if stalls {
                Taker::Stalling
            } else {
                Taker::Willing
            }
        });
        plan.addresses.retain(|&answer| answer == Answer::Refuses);
        plan.addresses.push(Answer::Connects);
        plan.is_ended = false;
        plan.timeouts = LONG;
        plan
    })
}
