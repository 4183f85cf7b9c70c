//! The kernel pushes back, lies, forbids and interrupts; the relay waits, loses nothing, and tells the story in its
//! counters. The faults are real answers of `io_uring_enter` in the real process, ordered from outside.

mod forbidden;
mod interrupted;
mod load;
mod lying;
mod memory;
mod plain;
mod pushback;
mod storms;
