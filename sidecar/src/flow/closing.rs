//! The end of a flow: what is in flight is ended first, then both sockets are closed, by a reset if anything
//! was cut short. It never lets go of what the kernel still uses.

use super::{Action, ChunkStore, CloseReason, Direction, Ending, Flow, Operation, Phase, Side};
use crate::backend::Pipe;

impl Flow {
    /// Ends what is in flight, then closes. Nothing that the kernel still uses is let go.
    pub(super) fn next_of_closing(&mut self, reason: CloseReason) -> Option<Action> {
        if let Phase::Connecting(connect @ (Operation::Running | Operation::Cancelling)) =
            &mut self.phase
        {
            if *connect == Operation::Cancelling {
                return None;
            }
            *connect = Operation::Cancelling;
            return Some(Action::Cancel {
                side: Side::Upstream,
                what: Ending::Connect,
            });
        }
        let mut in_flight = false;
        for side in Side::BOTH {
            let end = &mut self.ends[side as usize];
            let running = [
                (&mut end.receive, Ending::Receive),
                (&mut end.send, Ending::Send),
                (&mut end.poll, Ending::Poll),
                (&mut end.watch, Ending::Watch),
            ];
            for (operation, what) in running {
                if *operation == Operation::Running {
                    *operation = Operation::Cancelling;
                    return Some(Action::Cancel { side, what });
                }
                in_flight |= *operation == Operation::Cancelling;
            }
        }
        if in_flight {
            return None;
        }
        let is_left = |d: &Direction| !d.queue.is_empty() || d.pipe_bytes > 0;
        let cut_short = self.has_discarded || self.directions.iter().any(is_left);
        let quiet = matches!(
            reason,
            CloseReason::IdleTimeout | CloseReason::HalfCloseTimeout
        );
        Some(Action::Close {
            reset: cut_short || !(quiet || reason == CloseReason::Finished),
        })
    }

    /// The flow is over: gives its queued chunks back, and its pipes with whether they are empty.
    pub fn dispose(&mut self, chunks: &mut ChunkStore) -> [Option<(Pipe, bool)>; 2] {
        self.directions.each_mut().map(|direction| {
            let bytes = direction.queue.bytes();
            chunks.pop(&mut direction.queue, bytes);
            direction
                .pipe
                .take()
                .map(|pipe| (pipe, direction.pipe_bytes == 0))
        })
    }
}
