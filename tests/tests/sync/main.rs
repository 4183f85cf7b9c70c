//! A sidecar and its controller: settings come down, state goes up, and traffic never depends on either. The controller is a real server
//! that does what a test says.

mod answers;
mod connection;
mod leave;
mod settings;
mod traffic;
mod trust;
