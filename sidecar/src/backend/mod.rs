//! The home of all unsafe code of the relay: whatever speaks to the kernel below the standard library.
#![allow(unsafe_code)]

pub mod inject;
