//! What requests' tasks leave behind: the ring's answers, in the order in which they came.
//!
//! It owns the list that tasks write and the backend reads, and wakes whoever drives the runtime when there is
//! something new. It lives on one thread.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::Waker;

use super::entries::Kind;

/// The ring's answer to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) fd: i32,
    pub(super) kind: Kind,
    pub(super) result: i32,
}

#[derive(Debug, Default)]
struct State {
    answers: VecDeque<Answer>,
    /// Requests whose answer has not come.
    open: u32,
    /// Whether one of them is a canary.
    canary_is_open: bool,
    /// Its task, and so every task before it, has been run once: the queue is flushed when the thread next parks.
    canary_has_left: bool,
    is_woken: bool,
    /// Streams have become ready.
    has_streams: bool,
    /// A task ended without an answer.
    is_broken: bool,
    driver: Option<Waker>,
}

/// The list, shared by a runtime's tasks.
#[derive(Debug, Clone, Default)]
pub(super) struct Answers(Rc<RefCell<State>>);

impl Answers {
    /// Requests whose answer has not come, canaries included.
    pub(super) fn open(&self) -> u32 {
        self.0.borrow().open
    }

    /// Whether a canary's answer has not come: what was handed over before it may still be in the queue.
    pub(super) fn awaits_canary(&self) -> bool {
        self.0.borrow().canary_is_open
    }

    /// Whether the canary's task has been run, or there is no canary.
    pub(super) fn canary_has_left(&self) -> bool {
        let state = self.0.borrow();
        state.canary_has_left || !state.canary_is_open
    }

    /// Whether there is something to tell.
    pub(super) fn has_news(&self) -> bool {
        let state = self.0.borrow();
        !state.answers.is_empty() || state.is_woken || state.has_streams || state.is_broken
    }

    /// Whether a task ended without an answer, as after a panic in it.
    pub(super) fn is_broken(&self) -> bool {
        self.0.borrow().is_broken
    }

    /// The oldest answer.
    pub(super) fn next(&self) -> Option<Answer> {
        self.0.borrow_mut().answers.pop_front()
    }

    /// Whether other threads have woken this one since it was last asked.
    pub(super) fn take_woken(&self) -> bool {
        std::mem::take(&mut self.0.borrow_mut().is_woken)
    }

    /// Another thread wants to be heard.
    pub(super) fn woken(&self) {
        self.0.borrow_mut().is_woken = true;
        self.wake_driver();
    }

    /// Streams have become ready.
    pub(super) fn streams_ready(&self) {
        self.0.borrow_mut().has_streams = true;
        self.wake_driver();
    }

    /// Whether streams have become ready since it was last asked.
    pub(super) fn take_streams(&self) -> bool {
        std::mem::take(&mut self.0.borrow_mut().has_streams)
    }

    /// Has `waker` woken by the next news.
    pub(super) fn tell(&self, waker: &Waker) {
        let driver = &mut self.0.borrow_mut().driver;
        match driver {
            Some(known) => known.clone_from(waker),
            None => *driver = Some(waker.clone()),
        }
    }

    fn wake_driver(&self) {
        let driver = self.0.borrow_mut().driver.take();
        if let Some(driver) = driver {
            driver.wake();
        }
    }

    /// A request goes to the ring; its answer is owed.
    pub(super) fn owe(&self, fd: i32, kind: Kind) -> Owed {
        let mut state = self.0.borrow_mut();
        state.open += 1;
        if kind == Kind::Canary {
            state.canary_is_open = true;
            state.canary_has_left = false;
        }
        Owed {
            answers: self.clone(),
            fd,
            kind,
            is_paid: false,
        }
    }
}

/// The duty to tell a request's answer; dropped without it, the backend is known to be broken.
#[derive(Debug)]
pub(super) struct Owed {
    answers: Answers,
    fd: i32,
    kind: Kind,
    is_paid: bool,
}

impl Owed {
    /// The task that waits for the answer runs.
    pub(super) fn waits(&self) {
        if self.kind == Kind::Canary {
            self.answers.0.borrow_mut().canary_has_left = true;
            self.answers.wake_driver();
        }
    }

    /// The answer has come.
    pub(super) fn pay(mut self, result: i32) {
        self.is_paid = true;
        {
            let (fd, kind) = (self.fd, self.kind);
            let mut state = self.answers.0.borrow_mut();
            state.open -= 1;
            match kind {
                Kind::Canary => state.canary_is_open = false,
                Kind::Prewarm | Kind::CancelAll => {}
                _ => state.answers.push_back(Answer { fd, kind, result }),
            }
        }
        self.answers.wake_driver();
    }
}

impl Drop for Owed {
    fn drop(&mut self) {
        if !self.is_paid {
            self.answers.0.borrow_mut().is_broken = true;
            self.answers.wake_driver();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_told_once_and_a_canary_not_at_all() {
        let answers = Answers::default();
        let (send, canary) = (answers.owe(7, Kind::Send), answers.owe(-1, Kind::Canary));
        assert!(answers.awaits_canary() && !answers.has_news());
        canary.pay(0);
        assert!(!answers.awaits_canary() && !answers.has_news());
        send.pay(12);
        let answer = Answer {
            fd: 7,
            kind: Kind::Send,
            result: 12,
        };
        assert_eq!((answers.next(), answers.next()), (Some(answer), None));
        assert_eq!(answers.open(), 0);
    }

    #[test]
    fn a_task_that_dies_is_noticed() {
        let answers = Answers::default();
        drop(answers.owe(7, Kind::Send));
        assert!(answers.is_broken() && answers.has_news());
    }
}
