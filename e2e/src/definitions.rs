//! The shared API server with Ringside's custom resources: installed once for each test program.

use std::sync::OnceLock;

use ringside_controller::generated::definitions;

use crate::apiserver::ApiServer;

/// The shared server, with the definitions installed and served. `None` where there is no server; the skip is told.
///
/// # Panics
/// If the server does not take the definitions.
pub fn installed(test: &str) -> Option<&'static ApiServer> {
    static INSTALLED: OnceLock<()> = OnceLock::new();
    let server = ApiServer::shared(test)?;
    INSTALLED.get_or_init(|| install(server));
    Some(server)
}

/// Installs the definitions, and waits until they are served.
///
/// # Panics
/// If the server does not take them.
#[track_caller]
pub fn install(server: &ApiServer) {
    server.apply(&definitions().expect("the definitions as YAML"));
    server.kubectl(&[
        "wait",
        "--for=condition=Established",
        "--timeout=60s",
        "crd/relaypolicies.ringside.dev",
        "crd/clusterrelaypolicies.ringside.dev",
    ]);
}
