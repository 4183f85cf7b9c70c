//! Resources of the pod as a whole (`spec.resources`), which its containers share: an API server refuses a pod whose containers request
//! more than the pod does, and a container whose limit is above the pod's.
//!
//! It owns what of them the sidecar may be given. It takes away what would make the pod invalid, and never adds to what was asked for.

use serde_json::Value;

use super::injection::Resources;
use super::pod::{Pod, text};
use super::quantity::Quantity;

/// Whether the pod has resources of its own. The defaults for sidecars do not count then: the pod's author did not reckon with them.
pub(super) fn is_set(pod: &Pod<'_>) -> bool {
    let amounts = |which| pod.at("/resources")?.get(which)?.as_object();
    ["requests", "limits"]
        .into_iter()
        .any(|which| amounts(which).is_some_and(|amounts| !amounts.is_empty()))
}

/// What of `asked`, which is the annotations' alone, has room in the pod's own resources.
pub(super) fn fit(pod: &Pod<'_>, asked: Resources, warnings: &mut Vec<String>) -> Resources {
    let is_whole = |request: &Option<String>, limit: &Option<String>| {
        request.is_some() || limit.is_some()
    };
    if !is_whole(&asked.cpu_request, &asked.cpu_limit)
        || !is_whole(&asked.memory_request, &asked.memory_limit)
    {
        warnings.push(
            "the pod has resources of its own (spec.resources), which the sidecar shares: the defaults are not set, only what ringside.dev/cpu-request, cpu-limit, memory-request and memory-limit say"
                .to_owned(),
        );
    }
    let mut of_kind = |kind: &str, request: Option<String>, limit: Option<String>| {
        let mut within = |which: &str, text: Option<String>, others: Quantity, most: Option<(String, Quantity)>| {
            let own = Quantity::read(text.as_deref()?)?;
            match most {
                Some((most, bound)) if others.plus(own) > bound => {
                    let given = text.unwrap_or_default();
                    let beside = if others > Quantity::NOTHING {
                        format!(" together with the {which}s of the pod's containers")
                    } else {
                        String::new()
                    };
                    warnings.push(format!(
                        "ringside.dev/{kind}-{which}: {given} is more{beside} than spec.resources has, {most}: it is left out, and the sidecar shares what the pod has"
                    ));
                    None
                }
                _ => text,
            }
        };
        let of_pod = |which: &str| {
            let written = pod.at("/resources")?.get(which)?.get(kind)?;
            read(written)
        };
        // A pod's request that is left out is made of its containers' or of its limit: never more than that.
        let most = of_pod("requests").or_else(|| of_pod("limits"));
        let limit = within("limit", limit, Quantity::NOTHING, of_pod("limits"));
        let request = within("request", request, requested(pod, kind), most);
        // Kubernetes takes the limit for a request that is left out.
        let nothing = || limit.is_some().then(|| "0".to_owned());
        (request.or_else(nothing), limit)
    };
    let (cpu_request, cpu_limit) = of_kind("cpu", asked.cpu_request, asked.cpu_limit);
    let (memory_request, memory_limit) =
        of_kind("memory", asked.memory_request, asked.memory_limit);
    Resources {
        cpu_request,
        cpu_limit,
        memory_request,
        memory_limit,
    }
}

/// What the pod's containers request at the most at one moment: while it runs, or while one of its init containers does, beside the
/// sidecars that started before.
fn requested(pod: &Pod<'_>, kind: &str) -> Quantity {
    let of = |container: &Value| {
        let amount = |which: &str| read(container.get("resources")?.get(which)?.get(kind)?);
        amount("requests")
            .or_else(|| amount("limits"))
            .map_or(Quantity::NOTHING, |(_, amount)| amount)
    };
    let (mut sidecars, mut starting) = (Quantity::NOTHING, Quantity::NOTHING);
    for container in pod.list("initContainers") {
        let own = of(container);
        if text(container, "restartPolicy") == Some("Always") {
            sidecars = sidecars.plus(own);
        } else {
            starting = starting.max(sidecars.plus(own));
        }
    }
    let running = pod.containers().iter().map(of);
    running
        .fold(sidecars, Quantity::plus)
        .max(starting)
}

/// An amount as it is written, a bare number among it, and what it means.
fn read(written: &Value) -> Option<(String, Quantity)> {
    let text = written
        .as_str()
        .map_or_else(|| written.to_string(), str::to_owned);
    let amount = Quantity::read(&text)?;
    Some((text, amount))
}
