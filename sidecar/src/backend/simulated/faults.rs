//! What goes wrong in the simulated kernel, how often and when. Plain values: the dice are the kernel's.
//!
//! Rates are out of a thousand occasions. Everything here ends at `until`, so that what a worker makes of the time
//! after can be judged.

/// What the kernel answers to submissions for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pushback {
    /// EAGAIN: nothing is taken.
    Again,
    /// EBUSY: nothing is taken before completions are reaped.
    Busy,
    /// ENOMEM: nothing is taken.
    NoMemory,
    /// EINTR: signals come faster than calls.
    Interrupted,
    /// EPERM: the call itself is refused, waiting included.
    Forbidden,
    /// EBADR: completions were lost.
    Lost,
    /// At most this many are taken of what is offered.
    Some(u32),
}

/// A stretch of time with pushback, in nanoseconds.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    /// Its beginning.
    pub from: u64,
    /// Its end.
    pub to: u64,
    /// What is answered.
    pub what: Pushback,
}

/// What connects to the target come to, out of a thousand; the rest succeed.
#[derive(Debug, Clone, Copy, Default)]
pub struct ConnectFaults {
    /// ECONNREFUSED.
    pub refused: u32,
    /// EHOSTUNREACH.
    pub unreachable: u32,
    /// No answer, ever.
    pub black_hole: u32,
    /// ETIMEDOUT or EADDRNOTAVAIL.
    pub other: u32,
    /// EAGAIN, as of a Unix socket with a full backlog.
    pub again: u32,
}

/// All that goes wrong.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    /// When all of it ends, in nanoseconds.
    pub until: u64,
    /// Stretches of pushback.
    pub windows: Vec<Window>,
    /// Calls that a signal interrupts.
    pub interrupted: u32,
    /// Calls whose returned count is wrong in either direction.
    pub lying: u32,
    /// Single submissions of which only a part is taken.
    pub partly: u32,
    /// Multishot operations that end early though nobody asked.
    pub multishot_ends: u32,
    /// Operations that the kernel cancels though nobody asked.
    pub cancels: u32,
    /// Operations that fail with ENOMEM.
    pub no_memory: u32,
    /// Operations that fail with EAGAIN, as they could not be armed.
    pub arm_fails: u32,
    /// Receives that find no buffer though the pool has some.
    pub no_buffers: u32,
    /// Accepts that fail: EMFILE, ENFILE, ENOMEM, ECONNABORTED.
    pub accept_fails: u32,
    /// Sockets and pipes that cannot be made.
    pub no_descriptor: u32,
    /// Transfers cut at any byte.
    pub short: u32,
    /// Completions that come late, and so in another order.
    pub late: u32,
    /// What connects come to.
    pub connect: ConnectFaults,
    /// The longest that a worker may leave an offer alone once it would be taken again, in nanoseconds.
    pub patience: u64,
    /// How many completions the queue holds before it overflows.
    pub completions_most: usize,
}

impl Faults {
    /// When the stretch of this moment ends in which nothing is taken, if it is one.
    pub fn pushed_until(&self, now: u64) -> Option<u64> {
        let is_whole = |window: &&Window| {
            now >= window.from
                && now < window.to
                && !matches!(window.what, Pushback::Some(_) | Pushback::Interrupted)
        };
        self.windows.iter().find(is_whole).map(|window| window.to)
    }

    /// The pushback of this moment, if any.
    pub fn pushback(&self, now: u64) -> Option<Pushback> {
        let holds = |window: &&Window| now >= window.from && now < window.to;
        self.windows.iter().find(holds).map(|window| window.what)
    }
}
