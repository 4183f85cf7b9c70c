//! An installation that runs: one replica that leads, and a namespace for pods whose sidecars trust it.

use crate::apiserver::{ApiServer, Namespace};
use crate::installation::{Controller, Installation};

/// It ends when it is dropped. A cluster bears one at a time: two would both write the status of every policy.
#[derive(Debug)]
pub struct Running<'s> {
    /// The replica that led first.
    pub controller: Controller,
    /// Its release.
    pub installation: Installation<'s>,
    /// The pods' namespace.
    pub shop: Namespace<'s>,
    /// The certificates, as the webhook would stamp them.
    pub ca: String,
}

impl<'s> Running<'s> {
    /// Installs it, and waits until it leads.
    #[track_caller]
    pub fn start(server: &'s ApiServer) -> Self {
        let installation = Installation::new(server);
        let controller = installation.start("one");
        controller.await_leading();
        Self {
            ca: installation.ca_pem(),
            shop: server.namespace("shop"),
            controller,
            installation,
        }
    }
}
