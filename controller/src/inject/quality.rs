//! The quality of service that a pod would lose by its sidecar: Guaranteed holds only while each container's limits are its requests.

use super::injection::Resources;
use super::pod::Pod;
use super::quantity::Quantity;

/// Warns if this pod is Guaranteed now and would be Burstable.
pub(super) fn warn_of_loss(pod: &Pod<'_>, sidecar: &Resources, warnings: &mut Vec<String>) {
    let mut containers = pod.containers().iter().chain(pod.list("initContainers"));
    // Resources of the whole pod, where they are given, decide alone.
    let is_guaranteed = !pod.containers().is_empty()
        && pod.at("/resources").is_none()
        && containers.all(|container| {
            ["cpu", "memory"].into_iter().all(|kind| {
                let amount = |which: &str| {
                    let written = container.get("resources")?.get(which)?.get(kind)?;
                    // A bare number is an amount too.
                    Some(written.as_str().map_or(written.to_string(), str::to_owned))
                };
                amount("limits").is_some_and(|limit| is_same(amount("requests").as_deref(), &limit))
            })
        });
    let keeps = |request: &Option<String>, limit: &Option<String>| {
        limit
            .as_deref()
            .is_some_and(|limit| is_same(request.as_deref(), limit))
    };
    if is_guaranteed
        && !(keeps(&sidecar.cpu_request, &sidecar.cpu_limit)
            && keeps(&sidecar.memory_request, &sidecar.memory_limit))
    {
        warnings.push(
            "the pod's quality of service falls from Guaranteed to Burstable: give ringside.dev/cpu-request and -limit, memory-request and -limit the same amounts to keep it"
                .to_owned(),
        );
    }
}

/// Whether a request is the limit; one that is left out is.
fn is_same(request: Option<&str>, limit: &str) -> bool {
    request.is_none_or(|request| {
        let both: (Option<Quantity>, Option<Quantity>) =
            (Quantity::read(request), Quantity::read(limit));
        both.0 == both.1 && both.0.is_some()
    })
}
