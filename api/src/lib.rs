//! What both sides of Ringside speak: the settings a relay obeys, how they merge and what they allow, and the
//! sidecar's configuration document. It owns names, units, defaults and validation; what does I/O is behind the features
//! `plain` and `command-line`.

#[macro_use]
mod wire;

#[cfg(feature = "command-line")]
pub mod command_line;
pub mod config;
mod depth;
mod locate;
#[cfg(feature = "page")]
pub mod page;
#[cfg(feature = "plain")]
pub mod plain;
pub mod relay;
#[cfg(feature = "resources")]
pub mod resources;
pub mod sentence;
pub mod settings;
pub mod sync;
pub mod units;

pub use config::{BackendChoice, Config, ConfigError, Problem, Workers};
pub use relay::{Listen, ProxyProtocol, Relay, Target};
pub use settings::{Layers, Patch, Resolved, Settings, Source, Violation};
pub use units::{Size, Span};
