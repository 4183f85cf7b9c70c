//! The chart: its files are what is generated, what it renders is what the controller needs and an API server takes, and a release lives through upgrade,
//! rollback and uninstall.

mod files;
mod life;
mod rendered;

use ringside_e2e::chart::{Helm, HelmVersion};

/// Helm; `None` where there is none, which is told.
fn helm(test: &str, version: HelmVersion) -> Option<Helm> {
    match Helm::find(version) {
        Ok(helm) => Some(helm),
        Err(reason) => {
            ringside_tests::skip::skip(test, &reason);
            None
        }
    }
}
