//! One relayed connection as a state machine, and its timers: told what happened and when, it says what to do. No I/O.

pub mod timers;
