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
    let is_asked =
        |request: &Option<String>, limit: &Option<String>| request.is_some() || limit.is_some();
    if !is_asked(&asked.cpu_request, &asked.cpu_limit)
        || !is_asked(&asked.memory_request, &asked.memory_limit)
    {
        warnings.push(
            "the pod has resources of its own (spec.resources), which the sidecar shares: the defaults are not set, only what ringside.dev/cpu-request, cpu-limit, memory-request and memory-limit say"
                .to_owned(),
        );
    }
    let mut of_kind = |kind: &str, request: Option<String>, limit: Option<String>| {
        let mut within = |which: &str,
                          text: Option<String>,
                          others: Quantity,
                          most: Option<(String, Quantity)>| {
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
    running.fold(sidecars, Quantity::plus).max(starting)
}

/// An amount as it is written, a bare number among it, and what it means.
fn read(written: &Value) -> Option<(String, Quantity)> {
    let text = written
        .as_str()
        .map_or_else(|| written.to_string(), str::to_owned);
    let amount = Quantity::read(&text)?;
    Some((text, amount))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use ringside_api::sync::Assigned;
    use serde_json::json;

    use super::super::{Injection, Unlabelled, inject};
    use super::*;

    /// Of CPU, in thousandths: a request that is at most the limit, or only one of them, or nothing.
    fn amounts(range: std::ops::Range<u64>) -> impl Strategy<Value = Value> {
        let one = || prop::option::of(range.clone());
        (one(), one()).prop_map(|(request, limit)| {
            let request = match (request, limit) {
                (Some(request), Some(limit)) => Some(request.min(limit)),
                _ => request,
            };
            let cpu =
                |milli: Option<u64>| milli.map_or(json!({}), |m| json!({"cpu": format!("{m}m")}));
            json!({"requests": cpu(request), "limits": cpu(limit)})
        })
    }

    fn a_pod() -> impl Strategy<Value = Value> {
        let container = (amounts(0..60), any::<bool>()).prop_map(|(resources, always)| {
            let policy = if always { json!("Always") } else { json!(null) };
            json!({"name": "other", "resources": resources, "restartPolicy": policy})
        });
        let of_sidecar = (1_u64..120, 1_u64..120, any::<[bool; 3]>());
        let init = prop::collection::vec(container, 0..4);
        (amounts(60..200), amounts(0..60), init, of_sidecar).prop_map(
            |(whole, app, init, (request, limit, has))| {
                let mut annotations = json!({});
                for (name, written, is_there) in [
                    ("cpu-request", format!("{}m", request.min(limit)), has[0]),
                    ("cpu-limit", format!("{limit}m"), has[1]),
                    ("intercept", "80".to_owned(), has[2]),
                ] {
                    if is_there {
                        annotations[format!("ringside.dev/{name}")] = json!(written);
                    }
                }
                let app =
                    json!({"name": "app", "resources": app, "ports": [{"containerPort": 80}]});
                json!({
                    "metadata": {"annotations": annotations},
                    "spec": {"resources": whole, "containers": [app], "initContainers": init},
                })
            },
        )
    }

    /// As an API server judges: thousandths of CPU alone.
    fn is_valid(pod: &Value) -> bool {
        let of = |value: &Value, which: &str| {
            let text = value["resources"][which]["cpu"].as_str()?;
            text.trim_end_matches('m').parse::<u64>().ok()
        };
        let request = |container: &Value| {
            of(container, "requests")
                .or_else(|| of(container, "limits"))
                .unwrap_or(0)
        };
        let spec = &pod["spec"];
        let init = spec["initContainers"].as_array().unwrap();
        let sidecars = |among: &[Value]| {
            let sidecars = among.iter().filter(|c| c["restartPolicy"] == "Always");
            sidecars.map(request).sum::<u64>()
        };
        let app = &spec["containers"][0];
        let moments = (0..init.len()).map(|index| request(&init[index]) + sidecars(&init[..index]));
        let most = moments.chain([request(app) + sidecars(init)]).max();
        let limit = of(spec, "limits");
        let room = of(spec, "requests").or(limit);
        let mut all = init.iter().chain([app]);
        room.is_none_or(|room| most <= Some(room))
            && all.all(|one| limit.is_none_or(|limit| of(one, "limits") <= Some(limit)))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        #[test]
        fn a_pod_that_is_valid_stays_so(mut pod in a_pod()) {
            prop_assume!(is_valid(&pod));
            let injection = Injection {
                unlabelled: Unlabelled::InjectAndLabel,
                ..Injection::new("1", "ringside:1")
            };
            let injected = inject(&pod, &injection, &Assigned::default());
            prop_assert!(!injected.patch().is_empty());
            json_patch::patch(&mut pod, injected.patch()).unwrap();
            prop_assert!(is_valid(&pod), "{pod}");
        }
    }
}
