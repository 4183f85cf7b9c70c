//! placeholder
use super::*;
pub struct Epoll;
