//! What a worker is told from outside, and how: a queue that is looked at when its waker was used.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use ringside_api::Settings;

use super::shared::Relay;
use super::sync::{Mutex, MutexGuard};
use crate::backend::Waker;
use crate::backend::listen::ListenSocket;

/// One thing to do for a worker.
#[derive(Debug, Clone)]
pub enum Command {
    /// Obey these settings from now on.
    Settings(Arc<Settings>),
    /// Accept from this listener, for this relay.
    Listen {
        /// Whose connections these are.
        relay: Arc<Relay>,
        /// The listener.
        listener: Arc<ListenSocket>,
        /// Whose listener it is, when another worker may not accept at the moment.
        of_worker: usize,
        /// The backend of the worker that lends it; none if it is the worker's own. Only backends of one kind can
        /// accept from one listener: it blocks for the ring, and does not for epoll.
        lent_by: Option<&'static str>,
    },
    /// Accept no more from the listeners of this relay which are `of_worker`'s; of all workers', if none.
    Unlisten {
        /// The relay.
        relay: Arc<Relay>,
        /// Whose listener.
        of_worker: Option<usize>,
    },
    /// Leave the loop once no connection is left; after this time end those that are.
    Finish(Duration),
}

/// Where commands for one worker wait.
#[derive(Debug)]
pub struct Mailbox {
    commands: Mutex<VecDeque<Command>>,
    waker: Mutex<Option<Waker>>,
}

impl Default for Mailbox {
    fn default() -> Self {
        Mailbox {
            commands: Mutex::new(VecDeque::new()),
            waker: Mutex::new(None),
        }
    }
}

impl Mailbox {
    /// Tells the worker.
    pub fn send(&self, command: Command) {
        lock(&self.commands).push_back(command);
        if let Some(waker) = &*lock(&self.waker) {
            waker.wake();
        }
    }

    /// Puts commands before all that wait, in their order: what a worker knew already is older than what it was
    /// told since. For the worker's own thread, which looks for commands next; nobody is woken.
    pub(crate) fn put_back(&self, commands: Vec<Command>) {
        let mut waiting = lock(&self.commands);
        for command in commands.into_iter().rev() {
            waiting.push_front(command);
        }
    }

    /// Whether the worker is to leave its loop.
    pub(crate) fn is_to_finish(&self) -> bool {
        lock(&self.commands)
            .iter()
            .any(|command| matches!(command, Command::Finish(_)))
    }

    /// Forgets all that wait, and lets go of their listeners.
    pub(super) fn clear(&self) {
        lock(&self.commands).clear();
    }

    /// The next command.
    pub(super) fn take(&self) -> Option<Command> {
        lock(&self.commands).pop_front()
    }

    /// From now on this wakes the worker; it is to look for commands once on its own after this.
    pub(super) fn set_waker(&self, waker: Waker) {
        *lock(&self.waker) = Some(waker);
    }
}

/// A poisoned lock means that a thread died between two plain steps; what it guards is whole all the same.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}
