//! `/inject`: a pod that is to be created gets its sidecar. It never denies.

use std::collections::BTreeMap;

use ringside_api::resources::choice::POLICY_ANNOTATION;
use serde_json::Value;

use super::review::{Answer, Request};
use super::{Context, PodFacts, Unanswerable};
use crate::inject::{Outcome, inject};

/// The longest name of a namespace, in bytes (RFC 1123): what is longer is none.
const NAMESPACE_BYTES_MOST: usize = 63;

/// The most bytes of a pod's name that are told: more than any has.
const NAME_BYTES_TOLD: usize = 253;

/// Answers a review of a pod.
///
/// # Errors
/// It is no review, so that there is nothing to answer to.
pub fn mutate(review: &Value, context: &dyn Context) -> Result<Value, Unanswerable> {
    let request = Request::of(review)?;
    Ok(answer(&request, context).review(&request))
}

fn answer(request: &Request<'_>, context: &dyn Context) -> Answer {
    let (kind, operation) = (request.text("/kind/kind"), request.text("/operation"));
    if (kind, operation) != ("Pod", "CREATE") || !request.text("/subResource").is_empty() {
        return Answer::allowed_with_warning(format!(
            "no relay is injected, because ringside was asked about {operation} of {kind}: the webhook's rules should be CREATE of pods"
        ));
    }
    if request.text("/namespace").len() > NAMESPACE_BYTES_MOST {
        return Answer::allowed_with_warning(format!(
            "no relay is injected, because the review's namespace has more than {NAMESPACE_BYTES_MOST} bytes, as no namespace has"
        ));
    }
    let pod = request.field("object");
    let facts = facts(request, pod);
    let injected = inject(pod, &context.injection(), &context.assigned(&facts));
    let name = [
        request.text("/name"),
        request.text("/object/metadata/generateName"),
    ];
    let name = name.into_iter().find(|name| !name.is_empty());
    let name = name.unwrap_or_default();
    let told = &name[..name.floor_char_boundary(NAME_BYTES_TOLD)];
    context.answered(&facts.namespace, told, &injected);
    let outcome = match &injected.outcome {
        Outcome::Patch(_) => "injected".to_owned(),
        Outcome::Skipped(skip) => format!("skipped: {skip}"),
    };
    Answer {
        denied: None,
        patch: injected.patch().to_vec(),
        warnings: injected.warnings,
        outcome,
    }
}

fn facts(request: &Request<'_>, pod: &Value) -> PodFacts {
    let labels = pod.pointer("/metadata/labels").and_then(Value::as_object);
    let label = |(key, value): (&String, &Value)| Some((key.clone(), value.as_str()?.to_owned()));
    let annotations = pod.pointer("/metadata/annotations");
    let named = annotations.and_then(|all| all.get(POLICY_ANNOTATION)?.as_str());
    // A pod that is being created may leave its namespace to the request.
    PodFacts {
        namespace: request.text("/namespace").to_owned(),
        labels: labels.map_or_else(BTreeMap::new, |labels| {
            labels.iter().filter_map(label).collect()
        }),
        named_policy: named.map(str::to_owned),
    }
}
