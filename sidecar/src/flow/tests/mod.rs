//! A flow in a world of its own: two peers, a kernel that does whatever the documentation of the backends
//! allows, and a worker that asks the flow as the real one does. Nothing here does any I/O.

mod cases;
mod completions;
mod kernel;
mod memory;
mod passing;
mod peers;
mod plan;
mod properties;
mod sizes;
mod splices;
mod worker;
mod world;
