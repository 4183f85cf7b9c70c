//! How Ringside is watched from outside: Prometheus' rules as data, the dashboard's panels as a list, and what is made of them.
//!
//! It owns which queries are asked and how they are shown. It does no I/O and asks no Prometheus: the tests do.

pub mod dashboard;
pub mod expression;
pub mod panels;
pub mod picture;
pub mod rules;
