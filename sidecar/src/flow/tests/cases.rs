//! Cases worth their names.

use super::plan::{Answer, Ending, Plan, SHORT, Taker};
use super::world::{End, HEADER_BYTES, World};
use crate::backend::{Chunk, Errno, SocketId};
use crate::flow::{Action, ChunkStore, CloseReason, Flow, Side, View};
use crate::time::Time;

fn run(change: impl FnOnce(&mut Plan)) -> End {
    let mut plan = Plan::ordinary([300, 1_000]);
    change(&mut plan);
    World::new(plan).run()
}

#[test]
fn a_stream_is_spliced_and_arrives_whole() {
    let end = run(|plan| plan.bytes = [3_000_000, 100]);
    assert_eq!((end.reason, end.reset), (CloseReason::Finished, false));
    assert!(end.splices > 0, "it was never spliced");
    assert_eq!(end.sockets[Side::Upstream as usize].taken, 3_000_000);
}

#[test]
fn the_next_address_is_tried_after_silence_and_after_a_refusal() {
    let end = run(|plan| plan.addresses = vec![Answer::Silence, Answer::Refuses, Answer::Connects]);
    assert_eq!(end.reason, CloseReason::Finished);
}

#[test]
fn the_last_failure_to_connect_is_the_reason() {
    let refused = run(|plan| plan.addresses = vec![Answer::Silence, Answer::Refuses]);
    assert_eq!(
        (refused.reason, refused.reset),
        (CloseReason::ConnectRefused, true)
    );
    let late = run(|plan| plan.addresses = vec![Answer::Refuses, Answer::Silence]);
    assert_eq!(
        (late.reason, late.reset),
        (CloseReason::ConnectTimeout, true)
    );
}

#[test]
fn a_header_goes_before_the_first_byte() {
    let end = run(|plan| plan.header = true);
    let taken = end.sockets[Side::Upstream as usize].taken;
    assert_eq!(taken, 300 + u64::from(HEADER_BYTES));
}

#[test]
fn a_reset_stays_a_reset_either_way() {
    for (side, reason) in [
        (Side::Client, CloseReason::ClientReset),
        (Side::Upstream, CloseReason::UpstreamReset),
    ] {
        let end = run(|plan| plan.ending[side as usize] = Ending::Reset);
        assert_eq!((end.reason, end.reset), (reason, true));
    }
}

#[test]
fn a_taker_that_stalls_for_minutes_gets_everything() {
    for bytes in [3_000, 3_000_000] {
        let end = run(|plan| {
            plan.bytes = [10, bytes];
            plan.taker[0] = Taker::Stalling;
        });
        assert_eq!(end.reason, CloseReason::Finished);
        assert_eq!(end.sockets[0].taken, u64::from(bytes));
    }
}

#[test]
fn silence_ends_a_flow_without_a_reset_and_a_taker_that_is_stuck_by_one() {
    let silent = run(|plan| plan.ending = [Ending::Never; 2]);
    assert_eq!(
        (silent.reason, silent.reset),
        (CloseReason::IdleTimeout, false)
    );
    let half_closed = run(|plan| plan.ending[1] = Ending::Never);
    assert_eq!(
        (half_closed.reason, half_closed.reset),
        (CloseReason::HalfCloseTimeout, false)
    );
    let stuck = run(|plan| {
        plan.bytes = [10, 2_000_000];
        plan.taker[0] = Taker::Stuck;
    });
    assert_eq!(
        (stuck.reason, stuck.reset),
        (CloseReason::HalfCloseTimeout, true)
    );
}

/// A flow whose next sends and receives a test answers by hand.
struct ByHand {
    flow: Flow,
    chunks: ChunkStore,
    now: Time,
    may_splice: bool,
}

impl ByHand {
    fn connected() -> Self {
        let mut hand = ByHand {
            flow: Flow::new(SocketId(0), Time::ZERO),
            chunks: ChunkStore::default(),
            now: Time::ZERO,
            may_splice: true,
        };
        assert_eq!(hand.actions(), [Action::Connect]);
        hand.flow.connecting_by(SocketId(1));
        hand.flow.on_connected(None, &mut hand.chunks, hand.now);
        hand.actions();
        hand
    }

    /// Not for a flow that closes: it says so again until the worker forgets it.
    fn actions(&mut self) -> Vec<Action> {
        let view = self.view();
        std::iter::from_fn(|| self.flow.next_action(&view)).collect()
    }

    fn view(&self) -> View {
        View {
            now: self.now,
            share_bytes: 1 << 20,
            may_receive: true,
            exact_receive_limit: true,
            may_splice: self.may_splice,
        }
    }

    /// Large receives from the client, which make a stream of it; what they brought is being sent.
    fn become_a_stream(&mut self) {
        for place in 0..4 {
            let chunk = Chunk::of_place(place, 0, 65_536);
            self.flow
                .on_received(Side::Client, chunk, true, &mut self.chunks, self.now);
        }
        self.actions();
    }

    /// The receives were cancelled, and the send is done: nothing keeps it from splicing.
    fn become_free(&mut self) -> Vec<Action> {
        for side in Side::BOTH {
            self.flow.on_receive_stopped(side, false);
        }
        let queued = self.flow.queue(Side::Client).bytes();
        self.flow
            .on_sent(Side::Client, queued, &mut self.chunks, self.now);
        self.actions()
    }
}

#[test]
fn a_flow_whose_pipes_others_took_goes_on_with_receives() {
    let mut hand = ByHand::connected();
    hand.become_a_stream();
    hand.may_splice = false;
    let receives = hand.become_free();
    assert!(
        receives
            .iter()
            .all(|action| matches!(action, Action::Receive { .. }))
    );
    assert_eq!(receives.len(), 2);
    assert!(!hand.flow.holds_pipes());
}

#[test]
fn a_half_close_limit_that_is_over_is_seen_while_a_flow_waits_to_splice() {
    let mut hand = ByHand::connected();
    hand.become_a_stream();
    hand.flow.on_end_of_stream(Side::Upstream, hand.now);
    hand.now = hand.now.saturating_add(SHORT.half_close);
    hand.flow.on_timer(&SHORT, hand.now);
    assert_eq!(hand.flow.closing(), Some(CloseReason::HalfCloseTimeout));
}

#[test]
fn bytes_that_come_while_an_idle_flow_is_ended_make_its_end_a_reset() {
    for comes_late in [false, true] {
        let mut hand = ByHand::connected();
        hand.now = hand.now.saturating_add(SHORT.idle);
        hand.flow.on_timer(&SHORT, hand.now);
        assert_eq!(hand.flow.closing(), Some(CloseReason::IdleTimeout));
        assert_eq!(hand.actions().len(), 2, "both receives are cancelled");
        if comes_late {
            let chunk = Chunk::of_place(0, 0, 100);
            let (chunks, now) = (&mut hand.chunks, hand.now);
            hand.flow
                .on_received(Side::Client, chunk, false, chunks, now);
            assert_eq!(hand.chunks.take_released().len(), 1, "the chunk is kept");
        } else {
            hand.flow.on_receive_stopped(Side::Client, false);
        }
        hand.flow.on_receive_stopped(Side::Upstream, false);
        let close = hand.flow.next_action(&hand.view());
        assert_eq!(close, Some(Action::Close { reset: comes_late }));
    }
}

#[test]
fn what_splicing_could_not_do_for_lack_of_memory_is_tried_again_after_a_pause() {
    let mut hand = ByHand::connected();
    hand.become_a_stream();
    assert!(hand.become_free().contains(&Action::BeginSplicing));
    let ready = crate::backend::Readiness {
        readable: true,
        writable: true,
        ..crate::backend::Readiness::default()
    };
    for side in Side::BOTH {
        hand.flow.on_ready(side, ready, true);
    }
    assert!(hand.flow.has_splice_work(1 << 20, hand.now));
    hand.now = hand.now.saturating_add(std::time::Duration::from_millis(1));
    for side in Side::BOTH {
        hand.flow
            .on_spliced_in(side, Err(Errno(libc::ENOMEM)), hand.now);
    }
    assert!(
        !hand.flow.has_splice_work(1 << 20, hand.now),
        "it would spin"
    );
    let retry_at = hand
        .flow
        .deadline(&super::plan::LONG)
        .expect("a time to try again");
    assert!(retry_at <= hand.now.saturating_add(std::time::Duration::from_millis(5)));
    hand.flow.on_timer(&super::plan::LONG, retry_at);
    assert!(
        hand.flow.has_splice_work(1 << 20, retry_at),
        "it is forgotten"
    );
}

#[test]
fn a_full_backlog_is_waited_for_but_not_longer_than_a_connect_may_take() {
    let limits = super::plan::LONG;
    let mut flow = Flow::new(SocketId(0), Time::ZERO);
    let mut now = Time::ZERO;
    let mut attempts = 0;
    while flow.closing().is_none() {
        let view = View {
            now,
            share_bytes: 4096,
            may_receive: true,
            exact_receive_limit: true,
            may_splice: true,
        };
        if flow.next_action(&view) == Some(Action::Connect) {
            attempts += 1;
            flow.connecting_by(SocketId(1));
            flow.on_connect_postponed(now);
        }
        now = flow.deadline(&limits).expect("a time to try again");
        flow.on_timer(&limits, now);
    }
    assert_eq!(flow.closing(), Some(CloseReason::ConnectTimeout));
    assert_eq!(now.saturating_since(Time::ZERO), limits.connect);
    assert!(
        (100..=400).contains(&attempts),
        "{attempts} attempts in 2 s"
    );
}
