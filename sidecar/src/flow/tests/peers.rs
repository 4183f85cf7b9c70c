//! The model's peers: they send, take, stall, end and reset.

use std::time::Duration;

use super::plan::{Ending, Taker};
use super::world::{World, reset_by};
use crate::flow::Side;
use crate::time::Time;

const STALL: Duration = Duration::from_secs(120);

impl World {
    pub(super) fn peer_takes(&mut self, side: Side) {
        let half = (self.header(side.other()) + self.total(side.other())) / 2;
        let now = self.now;
        let taker = self.plan.taker[side as usize];
        let is_half_way = self.sockets[side as usize].taken >= half.max(1);
        if is_half_way && self.stalled_until[side as usize].is_none() {
            let until = match taker {
                Taker::Willing => None,
                Taker::Stalling => Some(now.saturating_add(STALL)),
                Taker::Stuck => Some(Time::MAX),
            };
            if until.is_some() {
                self.stalled_until[side as usize] = until;
                return;
            }
        }
        let bytes = self.amount(200_000);
        let socket = self.socket(side);
        socket.room += bytes;
        socket.writable_edge();
    }

    pub(super) fn peer_sends(&mut self, side: Side) {
        let left = self.total(side) - self.sockets[side as usize].sent;
        let bytes = self.amount(left.min(300_000));
        let socket = self.socket(side);
        socket.sent += u64::from(bytes);
        socket.readable_edge();
    }

    pub(super) fn peer_ends(&mut self, side: Side) {
        let ending = self.plan.ending[side as usize];
        let socket = &mut self.sockets[side as usize];
        match ending {
            Ending::Shut | Ending::Never => socket.ended = true,
            Ending::Close => (socket.ended, socket.refuses) = (true, true),
            Ending::Reset => {
                socket.reset = true;
                self.causes.insert(reset_by(side));
            }
        }
        self.sockets[side as usize].readable_edge();
    }
}
