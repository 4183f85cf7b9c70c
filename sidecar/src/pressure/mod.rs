//! Decisions about load, told the time and given randomness: they decide and do nothing.
