//! The stories, told on a real cluster by helm, kubectl and clients inside it: `make e2e`. Each is a file that can be read as one, in the order in
//! which they are told; they run one after another.

mod s01_install;
mod s06_hardened;
mod s08_applications;
mod s09_interception;
mod s10_outbound;
