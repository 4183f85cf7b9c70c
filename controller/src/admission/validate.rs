//! `/validate`: a policy whose settings are not allowed, by themselves or over the layer below, is refused while whoever wrote it looks on.

use ringside_api::resources::{ClusterRelayPolicySpec, RelayPolicySpec, selector};
use ringside_api::settings::ReadinessMode;
use ringside_api::{Layers, Patch, Violation};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::review::{Answer, Request};
use super::selector::check_syntax;
use super::{Context, Unanswerable};

/// Policies that one warning names at most.
const NAMED_MOST: usize = 5;

/// Answers a review of a policy.
///
/// # Errors
/// It is no review, so that there is nothing to answer to.
pub fn validate(review: &Value, context: &dyn Context) -> Result<Value, Unanswerable> {
    let request = Request::of(review)?;
    let answer = match judge(&request, context) {
        Ok(answer) => answer,
        Err(why) => Answer {
            denied: Some(why),
            outcome: "denied".to_owned(),
            ..Answer::default()
        },
    };
    Ok(answer.review(&request))
}

fn judge(request: &Request<'_>, context: &dyn Context) -> Result<Answer, String> {
    let (kind, object) = (request.text("/kind/kind"), request.field("object"));
    let (new, old) = (object.get("spec"), request.field("oldObject").get("spec"));
    let is_leaving = object.pointer("/metadata/deletionTimestamp").is_some();
    // What is not changed is not judged again: labels can be mended, and an object deleted, whatever its spec says.
    if !matches!(request.text("/operation"), "CREATE" | "UPDATE")
        || is_leaving
        || (old.is_some() && old == new)
    {
        return Ok(Answer::allowed("allowed: nothing to judge"));
    }
    let warnings = match kind {
        "RelayPolicy" => policy(&read::<RelayPolicySpec>(new)?, context)?,
        "ClusterRelayPolicy" => cluster_policy(&read::<ClusterRelayPolicySpec>(new)?, context)?,
        _ => {
            return Ok(Answer::allowed_with_warning(format!(
                "ringside was asked about a {kind}, which is no policy of its own: see the webhook's rules"
            )));
        }
    };
    Ok(Answer {
        warnings,
        ..Answer::allowed("allowed")
    })
}

fn read<T: DeserializeOwned + Default>(spec: Option<&Value>) -> Result<T, String> {
    match spec {
        None | Some(Value::Null) => Ok(T::default()),
        Some(spec) => T::deserialize(spec).map_err(|error| format!("spec is not allowed: {error}")),
    }
}

fn policy(spec: &RelayPolicySpec, context: &dyn Context) -> Result<Vec<String>, String> {
    if let Some(written) = &spec.pod_selector {
        check_syntax(written)?;
        selector(written)?;
    }
    let cluster = context.cluster_settings();
    let mut warnings = odd(&spec.settings);
    let below = Layers {
        cluster,
        policy: Patch::default(),
    };
    // A layer below that is wrong by itself is not this policy's fault.
    let cluster = match below.resolve(None) {
        Ok(_) => cluster,
        Err(violations) => {
            warnings.push(format!(
                "the ClusterRelayPolicy in effect is not allowed, and this policy was judged without it: {}",
                sentence(&violations)
            ));
            Patch::default()
        }
    };
    let policy = spec.settings;
    let merged = Layers { cluster, policy }.resolve(None);
    merged.map_err(|violations| refusal(&violations))?;
    Ok(warnings)
}

fn cluster_policy(
    spec: &ClusterRelayPolicySpec,
    context: &dyn Context,
) -> Result<Vec<String>, String> {
    let cluster = spec.settings;
    let over = |policy: Patch| Layers { cluster, policy }.resolve(None);
    over(Patch::default()).map_err(|violations| refusal(&violations))?;
    let mut warnings = odd(&cluster);
    let broken: Vec<(String, Vec<Violation>)> = context
        .policies()
        .into_iter()
        .filter_map(|policy| Some((policy.name, over(policy.settings).err()?)))
        .collect();
    for (name, violations) in broken.iter().take(NAMED_MOST) {
        warnings.push(format!(
            "RelayPolicy {name} is not allowed any more over these settings, and its relays keep what they run: {}",
            sentence(violations)
        ));
    }
    if broken.len() > NAMED_MOST {
        let others = broken.len() - NAMED_MOST;
        warnings.push(format!("so are {others} more RelayPolicies"));
    }
    Ok(warnings)
}

/// What is allowed, and hardly meant.
fn odd(settings: &Patch) -> Vec<String> {
    let mut warnings = Vec::new();
    if settings.fields().is_empty() {
        warnings.push("it sets nothing, so its relays obey the layer below".to_owned());
    }
    if let Some(readiness) = settings.readiness
        && readiness.max_unready_percent == Some(100)
        && readiness.mode != Some(ReadinessMode::Report)
    {
        warnings.push(
            "readiness.maxUnreadyPercent is 100: under pressure everywhere all pods may leave their Services at once"
                .to_owned(),
        );
    }
    warnings
}

/// Each violation, with the layer that its value came from where that is not what is being written.
fn refusal(violations: &[Violation]) -> String {
    format!("not allowed: {}", sentence(violations))
}

fn sentence(violations: &[Violation]) -> String {
    let told = violations
        .iter()
        .map(|violation| format!("{violation} (set by: {})", violation.source_of_value));
    told.collect::<Vec<_>>().join("; ")
}
