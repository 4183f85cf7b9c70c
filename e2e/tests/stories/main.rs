//! The stories, told on a real cluster by helm, kubectl and clients inside it: `make e2e`. Each is a file that can be read as one, in the order in
//! which they are told; they run one after another.

mod admission;
mod policy;
mod s01_install;
mod s02_sustained_eagain;
mod s03_fleet_limit;
mod s04_tune_live;
mod s05_rollout_drain;
mod s06_hardened;
mod s07a_control_plane;
mod s07b_node;
mod s07c_certificates;
mod s07d_helm;
mod s08_applications;
mod s09_interception;
mod s10_outbound;
mod s11_quick_start;
mod served;
