//! What any relay of TCP must do, whatever its backend: the same list for `ring`, `epoll` and `tokio-uring`,
//! and, where it can be asked, for HAProxy, which shows that the test itself is right.

mod bytes;
mod ends;
mod lifecycle;
mod limits;
mod refusing;
mod reload;
mod targets;
mod timers;
