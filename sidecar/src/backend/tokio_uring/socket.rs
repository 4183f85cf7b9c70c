//! What the backend knows of a descriptor: who waits on it, and which requests about it are on the way.
//!
//! Pure state. It owns the rule which poll is still needed, and that a descriptor stays open for as long as the
//! ring may look at it.

use super::entries::Way;
use crate::backend::{OperationKind, Token};

/// Where a poll stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Poll {
    /// There is none.
    #[default]
    No,
    /// It waits to be handed over.
    Queued,
    /// It is on the way, or armed.
    Armed,
}

/// A send or a connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) token: Token,
    /// It was handed over: only the ring can end it.
    pub(super) is_on_the_way: bool,
    /// It is to end early.
    pub(super) ends: bool,
}

impl Request {
    pub(super) fn queued(token: Token) -> Self {
        Request {
            token,
            is_on_the_way: false,
            ends: false,
        }
    }
}

/// A descriptor: the worker's operations on it, and polls by [`Way`], which outlive operations that were ended.
#[derive(Debug, Default)]
pub(super) struct Socket {
    pub(super) polls: [Poll; 2],
    pub(super) accept: Option<(Token, bool)>,
    /// The accept is over once its poll is: a listener that is still polled cannot be closed.
    pub(super) accept_ends: bool,
    pub(super) receive: Option<(Token, u32)>,
    pub(super) send: Option<Request>,
    pub(super) connect: Option<Request>,
    pub(super) watch: Option<Token>,
    /// A stream, whose readiness epoll tells.
    pub(super) poll: Option<Token>,
    /// The other end has sent its last byte: a short read does not mean that nothing is left to read.
    pub(super) at_end: bool,
    pub(super) is_runnable: bool,
    /// Closed for the worker; the descriptor goes when the last request about it has been answered.
    pub(super) closes: bool,
}

impl Socket {
    /// Whether somebody would act on this poll's answer.
    pub(super) fn needs(&self, way: Way) -> bool {
        !self.closes
            && match way {
                Way::Readable => {
                    (self.accept.is_some() && !self.accept_ends) || self.receive.is_some()
                }
                Way::Broken => self.watch.is_some(),
            }
    }

    /// Whether a request about it may be in the ring.
    pub(super) fn is_in_use(&self) -> bool {
        let on_the_way = |request: Option<Request>| request.is_some_and(|r| r.is_on_the_way);
        self.polls.contains(&Poll::Armed) || on_the_way(self.send) || on_the_way(self.connect)
    }

    /// Whether something on it waits for a cancel.
    pub(super) fn ends_something(&self) -> bool {
        let ends = |request: Option<Request>| request.is_some_and(|r| r.ends);
        self.accept_ends || ends(self.send) || ends(self.connect)
    }

    /// Whether this operation runs on it.
    pub(super) fn runs(&self, target: Token) -> bool {
        let is = |request: Option<Request>| request.is_some_and(|r| r.token == target);
        match target.kind() {
            OperationKind::Accept => self.accept.is_some_and(|(token, _)| token == target),
            OperationKind::Receive => self.receive.is_some_and(|(token, _)| token == target),
            OperationKind::Connect => is(self.connect),
            OperationKind::Send => is(self.send),
            OperationKind::Poll => self.poll == Some(target),
            OperationKind::Watch => self.watch == Some(target),
            OperationKind::Internal | OperationKind::Wake => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_poll_is_needed_while_somebody_waits_for_it() {
        let token = Token::new(OperationKind::Receive, 1);
        let mut socket = Socket {
            receive: Some((token, 10)),
            ..Socket::default()
        };
        assert!(socket.runs(token) && socket.needs(Way::Readable));
        assert!(!socket.needs(Way::Broken));
        socket.closes = true;
        assert!(!socket.needs(Way::Readable));
    }

    #[test]
    fn what_was_only_queued_keeps_no_descriptor_open() {
        let token = Token::new(OperationKind::Send, 1);
        let mut socket = Socket {
            send: Some(Request::queued(token)),
            polls: [Poll::Queued, Poll::No],
            ..Socket::default()
        };
        assert!(!socket.is_in_use());
        socket.polls[0] = Poll::Armed;
        assert!(socket.is_in_use());
    }
}
