//! Opening and closing the listeners of a relay that runs, as its target takes connections or refuses them.
//!
//! It owns which relay has listeners; the address stays the relay's own all the while. Connections that are open are
//! never touched. All of it happens under the lock of the relays, so that a relay which is removed meanwhile, or a
//! drain, is never followed by an opening.

use std::sync::Arc;

use ringside_api::settings::TargetCheckMode;
use socket2::SockAddr;

use super::{RunningRelay, Team};
use crate::backend::handshake::Answer;
use crate::backend::listen::ListenError;
use crate::target_check::reach::{Reach, Verdict};
use crate::worker::command::Command;
use crate::worker::limits::socket_options;
use crate::worker::shared::Relay;

/// What came of an answer about a relay's target.
#[derive(Debug)]
pub struct Outcome {
    /// The verdict, where it changed.
    pub changed: Option<Verdict>,
    /// Whether the relay listens now, where that changed; or why it cannot.
    pub listens: Option<Result<bool, ListenError>>,
}

impl RunningRelay {
    /// Whether it listens, or is closed because its target refuses.
    pub fn listens(&self) -> bool {
        !self.listeners.is_empty()
    }
}

impl Team {
    /// The relays that run, and where their targets are.
    pub fn targets(&self) -> Vec<(Arc<Relay>, Vec<SockAddr>)> {
        let relays = self.lock_relays();
        let targets = relays.iter().map(|running| {
            let addresses = running.relay.addresses.load();
            (running.relay.clone(), addresses.to_vec())
        });
        targets.collect()
    }

    /// Takes what a check of a relay's target said, if there was one, and opens or closes its listeners accordingly.
    /// `None` where the relay is gone, or led elsewhere since it was asked at `asked`.
    pub fn hear(
        &self,
        relay: &Arc<Relay>,
        asked: &[SockAddr],
        answer: Option<Answer>,
    ) -> Option<Outcome> {
        let check = self.settings.load().target_check;
        let mut relays = self.lock_relays();
        let running = relays
            .iter_mut()
            .find(|running| Arc::ptr_eq(&running.relay, relay))?;
        if running.relay.addresses.load().as_slice() != asked {
            return None;
        }
        // Nobody can refuse where there is no address: what was heard of the target before is of another one.
        let changed = if check.mode == TargetCheckMode::Off || asked.is_empty() {
            running.checked.reach = Reach::default();
            None
        } else {
            answer.and_then(|answer| {
                // Of several addresses one may refuse while others take.
                let answer = match asked {
                    [_] => running.checked.heard(answer, relay.connections_refused()),
                    _ => answer,
                };
                running.checked.told(answer, &check)
            })
        };
        let listens = match (running.listens(), self.is_to_be_closed(running)) {
            (true, true) => {
                self.close_listeners(running);
                Some(Ok(false))
            }
            (false, false) => Some(self.open_listeners(running).map(|()| true)),
            _ => None,
        };
        Some(Outcome { changed, listens })
    }

    pub(super) fn is_to_be_closed(&self, running: &RunningRelay) -> bool {
        self.settings.load().target_check.mode == TargetCheckMode::Close
            && running.checked.reach.verdict() == Verdict::Refusing
    }

    pub(super) fn open_listeners(&self, running: &mut RunningRelay) -> Result<(), ListenError> {
        let settings = self.settings.load();
        let sockets = running.reservation.listen(
            self.mailboxes.len(),
            settings.accept.backlog,
            &socket_options(&settings),
        )?;
        self.shared.count_descriptors(sockets.len() as i32);
        running.listeners = sockets.into_iter().map(Arc::new).collect();
        for (of_worker, listener) in running.listeners.iter().enumerate() {
            let (relay, listener) = (running.relay.clone(), listener.clone());
            self.mailboxes[of_worker].send(Command::Listen {
                relay,
                listener,
                of_worker,
                lent_by: None,
            });
        }
        Ok(())
    }

    /// They close as soon as no worker accepts from them any more.
    fn close_listeners(&self, running: &mut RunningRelay) {
        // First of all: a worker that has not heard of it yet may lend one to a worker that has.
        running
            .listeners
            .iter()
            .for_each(|listener| listener.retire());
        for mailbox in self.mailboxes.iter() {
            mailbox.send(Command::Unlisten {
                relay: running.relay.clone(),
                of_worker: None,
            });
        }
        let closed = std::mem::take(&mut running.listeners);
        self.shared.count_descriptors(-(closed.len() as i32));
    }

    /// Gives the address up for good.
    pub(super) fn leave(&self, running: &mut RunningRelay) {
        self.close_listeners(running);
        self.shared.count_descriptors(-1);
    }
}
