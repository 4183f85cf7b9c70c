//! The end of a process that was asked to: unready at once, listeners closed after a notice, connections ended in
//! their own time or at the limit.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use super::state::State;
use crate::flow::CloseReason;

/// How often it is seen whether the workers are done.
const LOOK: Duration = Duration::from_millis(10);

/// What workers get beyond the limit to close what is left, before they are given up.
const GRACE: Duration = Duration::from_secs(5);

/// Ends the process as its settings say.
///
/// # Errors
/// A worker panicked, or did not end though its connections had to.
pub(crate) async fn drain(state: &State, who: &str) -> anyhow::Result<()> {
    let began = Instant::now();
    let timeouts = state.team.settings().timeouts;
    let (limit, notice) = (
        Duration::from(timeouts.drain),
        Duration::from(timeouts.drain_notice),
    );
    tracing::info!(
        by = who,
        notice = %timeouts.drain_notice,
        limit = %timeouts.drain,
        connections = connections_open(state),
        "draining: unready from now on; listeners close after the notice, connections may go on until the limit"
    );
    tokio::time::sleep(notice).await;
    state.relays.close();
    state.team.finish(limit.saturating_sub(notice));
    tracing::info!(
        connections = connections_open(state),
        "listeners are closed"
    );
    let given_up = began + limit.max(notice) + GRACE;
    while state.team.workers_running() > 0 {
        if Instant::now() >= given_up {
            let left = state.team.workers_running();
            bail!(
                "{left} workers did not end within {GRACE:?} after the limit of the drain: their connections are lost"
            );
        }
        tokio::time::sleep(LOOK).await;
    }
    state.team.join().context("the drain did not end well")?;
    tracing::info!(
        ms = began.elapsed().as_millis() as u64,
        closed_at_limit = closed_at_limit(state),
        "drained"
    );
    Ok(())
}

fn connections_open(state: &State) -> u64 {
    let counted = state.team.counted();
    counted.iter().map(|counts| counts.connections_open()).sum()
}

fn closed_at_limit(state: &State) -> u64 {
    let at_limit = CloseReason::DrainLimit.index();
    let counted = state.team.counted();
    let stats = counted.iter().flat_map(|counts| &counts.stats);
    stats.map(|stats| stats.closed[at_limit].get()).sum()
}
