//! Deliberate bugs, so that tests can show that the simulation's checks find them.
//!
//! In the program that users run none of this exists: [`is`] is then the constant `false`. A bug is switched on for
//! one thread at a time.

/// A mistake that the relay could make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// On EAGAIN the first entry of the queue is taken for submitted.
    DropAnEntryOnAgain,
    /// The count that the kernel returns is believed, and not the head of the queue.
    TrustTheCount,
    /// A chunk is given back when its send begins.
    FreeABufferBeforeItsSendCompletes,
    /// A connection whose receive found no buffer is not asked again.
    ForgetWhoFoundNoBuffer,
    /// Accepting stays paused once it was.
    NeverResumeTheGate,
    /// The end of one side's stream is not passed on.
    LoseAHalfClose,
    /// Accepting goes on at `accept.maxConnections`, and what comes over it is let in.
    LetInOverTheLimit,
    /// Once its source has as many connections as it may, one more is let in.
    LetInOverTheSourceLimit,
}

impl Bug {
    /// All of them.
    pub const ALL: [Bug; 8] = [
        Bug::DropAnEntryOnAgain,
        Bug::TrustTheCount,
        Bug::FreeABufferBeforeItsSendCompletes,
        Bug::ForgetWhoFoundNoBuffer,
        Bug::NeverResumeTheGate,
        Bug::LoseAHalfClose,
        Bug::LetInOverTheLimit,
        Bug::LetInOverTheSourceLimit,
    ];
}

#[cfg(any(test, feature = "simulation"))]
thread_local! {
    static PRESENT: std::cell::Cell<Option<Bug>> = const { std::cell::Cell::new(None) };
}

/// Puts a bug into this thread's workers, or takes it out.
#[cfg(any(test, feature = "simulation"))]
pub fn put(bug: Option<Bug>) {
    PRESENT.set(bug);
}

/// Whether this bug is present.
#[cfg(any(test, feature = "simulation"))]
pub fn is(bug: Bug) -> bool {
    PRESENT.get() == Some(bug)
}

/// Whether this bug is present: never.
#[cfg(not(any(test, feature = "simulation")))]
#[inline(always)]
pub const fn is(_bug: Bug) -> bool {
    false
}
