//! Kinds of other projects that the chart makes objects of: their definitions, as far as the chart uses them, in `e2e/others/`. Whatever else a real one knows is
//! refused, so that nothing is used unseen. It installs them; nobody acts on them.

use crate::apiserver::ApiServer;

/// Prometheus Operator, cert-manager, Security Profiles Operator.
const DEFINITIONS: &str = include_str!("../others/definitions.yaml");

/// Installs the definitions into a server of the test's own, and waits until they are served. In a cluster that somebody uses they would take the place
/// of the real ones.
///
/// # Panics
/// If the server does not take them.
#[track_caller]
pub fn install(server: &ApiServer) {
    server.apply(DEFINITIONS);
    let names = DEFINITIONS
        .lines()
        .filter_map(|line| line.strip_prefix("metadata: {name: "))
        .map(|rest| format!("crd/{}", rest.trim_end_matches('}')));
    let names: Vec<String> = names.collect();
    let mut arguments = vec!["wait", "--for=condition=Established", "--timeout=60s"];
    arguments.extend(names.iter().map(String::as_str));
    server.kubectl(&arguments);
}
