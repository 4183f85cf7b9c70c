//! The load tool: makes the traffic that a benchmark measures.

fn main() {}
