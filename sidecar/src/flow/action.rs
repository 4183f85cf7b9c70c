//! What a flow wants done, and what it is told about the worker when it is asked. Plain values.

use super::Side;
use crate::time::Time;

/// One thing for the worker to do. Whoever takes an action from a flow carries it out: the flow already
/// counts it as under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Make a socket and connect it to the next address of the target.
    Connect,
    /// Start a multishot receive of at most `limit_bytes`.
    Receive {
        /// From which side.
        side: Side,
        /// The most bytes before it ends by itself.
        limit_bytes: u32,
    },
    /// Send what came from `from` to the other side, gathered; how much went out, [`super::Flow::on_sent`] is told.
    Send {
        /// The side whose bytes they are.
        from: Side,
    },
    /// Start to watch the readiness of a side.
    Poll {
        /// Which side.
        side: Side,
    },
    /// Start to watch whether a side breaks, as it is not received from.
    Watch {
        /// Which side.
        side: Side,
    },
    /// End an operation early.
    Cancel {
        /// On which side's socket.
        side: Side,
        /// Which one.
        what: Ending,
    },
    /// Pass an end of stream on to this side.
    ShutdownWrite {
        /// Which side.
        side: Side,
    },
    /// Both sockets to splice mode: nothing is in flight, nothing queued.
    BeginSplicing,
    /// Both sockets back to ring mode: no poll is in flight, both pipes are empty.
    EndSplicing,
    /// Close both sockets, which nothing uses any more; the flow is over.
    Close {
        /// By a reset, so that nobody takes what was cut short for complete.
        reset: bool,
    },
}

/// Which kind of operation to end early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The connect.
    Connect,
    /// The receive from this side.
    Receive,
    /// The send to this side.
    Send,
    /// The watching of this side's readiness.
    Poll,
    /// The watching of whether this side breaks.
    Watch,
}

/// What a flow has to know of its worker to decide.
#[derive(Debug, Clone, Copy)]
pub struct View {
    /// Now.
    pub now: Time,
    /// The most bytes that one direction may have queued at the moment.
    pub share_bytes: u32,
    /// Whether receives may be started: there are buffers, and pressure allows it.
    pub may_receive: bool,
    /// Whether the backend keeps to a receive's limit by itself.
    pub exact_receive_limit: bool,
    /// Whether a stream may begin to be spliced: there are pipes for it.
    pub may_splice: bool,
}
