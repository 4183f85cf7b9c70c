//! Room for newcomers: connections on which nothing is asked, the longest so first, for when there are as many as may be.
//!
//! It owns their order. Whoever has a call that is being answered is never among them, so that nobody who is served is sent away for a newcomer.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

/// All connections on which nothing is asked.
#[derive(Debug, Default)]
pub(crate) struct Room(Mutex<Idle>);

#[derive(Debug, Default)]
struct Idle {
    next: u64,
    /// By when they became so.
    connections: BTreeMap<u64, Arc<Notify>>,
}

impl Room {
    /// A new connection, on which nothing is asked yet.
    pub(crate) fn enter(self: &Arc<Self>) -> Place {
        let place = Place {
            room: self.clone(),
            leave: Arc::default(),
            number: Mutex::default(),
        };
        place.is_idle(true);
        place
    }

    /// Sends away the one on which nothing was asked for longest. Returns whether there is any.
    pub(crate) fn make(&self) -> bool {
        let longest = self.idle().connections.pop_first();
        longest.map(|(_, leave)| leave.notify_one()).is_some()
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Idle> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection's place.
#[derive(Debug)]
pub(crate) struct Place {
    room: Arc<Room>,
    leave: Arc<Notify>,
    /// Among those on which nothing is asked.
    number: Mutex<Option<u64>>,
}

impl Place {
    /// Told whenever a call begins where none was, and whenever the last one ends.
    pub(crate) fn is_idle(&self, is_idle: bool) {
        let mut number = self.number.lock().unwrap_or_else(PoisonError::into_inner);
        let mut idle = self.room.idle();
        if let Some(number) = number.take() {
            idle.connections.remove(&number);
        }
        if is_idle {
            idle.next += 1;
            let next = idle.next;
            idle.connections.insert(next, self.leave.clone());
            *number = Some(next);
        }
    }

    /// Waits until it is to go, for a newcomer.
    pub(crate) async fn sent_away(&self) {
        self.leave.notified().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.is_idle(false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn whoever_asked_nothing_for_longest_goes_first_and_whoever_is_served_stays() {
        let room = Arc::new(Room::default());
        let [first, second, third] = [room.enter(), room.enter(), room.enter()];
        first.is_idle(false);
        drop(second);
        assert!(room.make());
        third.sent_away().await;
        assert!(!room.make(), "it is served");
        first.is_idle(true);
        assert!(room.make());
        first.sent_away().await;
    }
}
