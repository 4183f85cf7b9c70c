//! What the controller serves in plain HTTP, for kubelets, Prometheus and people: health, readiness of policies, metrics.
//!
//! Its own readiness says whether it can answer webhooks, and never how policies are: those are asked for by name.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::fleet::Summary;
use crate::leader::Leadership;
use crate::observe::Seen;
use crate::policies::{CLUSTER_POLICY, Name};
use crate::status::writer::Written;
use crate::sync::Sync;

/// What the answers are made of.
#[derive(Clone, Debug)]
pub struct Sources {
    /// Sidecars' calls and the fleet.
    pub sync: Arc<Sync>,
    /// Whether everything has been seen.
    pub seen: Arc<Seen>,
    /// What was written.
    pub written: Arc<Written>,
}

/// All of it.
pub fn router(sources: Sources) -> Router {
    Router::new()
        .route("/livez", get(|| async { "alive\n" }))
        .route("/readyz", get(readyz))
        .route("/readyz/policies", get(all_policies))
        .route("/readyz/policies/{namespace}/{name}", get(one_policy))
        .route("/metrics", get(metrics))
        .with_state(sources)
}

async fn readyz(State(sources): State<Sources>) -> Response {
    if sources.seen.all() {
        (StatusCode::OK, "ready\n").into_response()
    } else {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            "policies and pods have not been read yet\n",
        )
            .into_response()
    }
}

/// Whether a policy is ready, and the sentence for it.
fn judge(sources: &Sources, name: &Name) -> Option<(bool, String)> {
    let fleet = sources.sync.fleet();
    let verdict = fleet.policies().verdict(name)?;
    let summary = fleet.summary(name, sources.sync.now());
    drop(fleet);
    let said = crate::status::conditions::readiness(&summary);
    let told = match verdict.problem {
        Some(problem) => format!("{}; not accepted: {problem}", said.1),
        None => said.1,
    };
    Some((said.0, told))
}

/// What only the leader knows, said so by another replica.
fn not_leading(sources: &Sources) -> Option<Response> {
    match sources.sync.leadership() {
        Leadership::Leads => None,
        Leadership::Follows { leader } => {
            let leader = leader.unwrap_or_else(|| "nobody yet".to_owned());
            let told = format!("this replica does not lead; the leader is {leader}\n");
            Some((StatusCode::MISDIRECTED_REQUEST, told).into_response())
        }
    }
}

async fn one_policy(
    State(sources): State<Sources>,
    Path((namespace, name)): Path<(String, String)>,
) -> Response {
    if let Some(response) = not_leading(&sources) {
        return response;
    }
    match judge(&sources, &(namespace.clone(), name.clone())) {
        Some((true, told)) => (StatusCode::OK, told + "\n").into_response(),
        Some((false, told)) => (StatusCode::SERVICE_UNAVAILABLE, told + "\n").into_response(),
        None => (
            StatusCode::NOT_FOUND,
            format!("there is no RelayPolicy {name} in namespace {namespace}\n"),
        )
            .into_response(),
    }
}

async fn all_policies(State(sources): State<Sources>) -> Response {
    if let Some(response) = not_leading(&sources) {
        return response;
    }
    let mut names = sources.sync.fleet().policies().names();
    names.sort_unstable();
    let (mut all_ready, mut told) = (true, String::new());
    for name in names {
        if let Some((is_ready, sentence)) = judge(&sources, &name) {
            all_ready &= is_ready;
            let mark = if is_ready { "ready" } else { "NOT READY" };
            let name = if name.0.is_empty() {
                CLUSTER_POLICY.to_owned()
            } else {
                format!("{}/{}", name.0, name.1)
            };
            told.push_str(&format!("{mark}  {name}: {sentence}\n"));
        }
    }
    let status = if all_ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, told).into_response()
}

async fn metrics(State(sources): State<Sources>) -> Response {
    let mut text = String::new();
    // Into memory: it cannot fail.
    let _ = write_metrics(&mut text, &sources);
    (
        [(
            header::CONTENT_TYPE,
            "text/plain; version=0.0.4; charset=utf-8",
        )],
        text,
    )
        .into_response()
}

/// A metric's lines: help, type, and a value for each set of labels.
fn family(
    to: &mut String,
    name: &str,
    kind: &str,
    help: &str,
    values: &[(String, u64)],
) -> std::fmt::Result {
    writeln!(
        to,
        "# HELP ringside_controller_{name} {help}\n# TYPE ringside_controller_{name} {kind}"
    )?;
    for (labels, value) in values {
        writeln!(to, "ringside_controller_{name}{labels} {value}")?;
    }
    Ok(())
}

fn write_metrics(to: &mut String, sources: &Sources) -> std::fmt::Result {
    let of = |value: &AtomicU64| vec![(String::new(), value.load(Ordering::Relaxed))];
    let leads = sources.sync.leadership() == Leadership::Leads;
    family(
        to,
        "leads",
        "gauge",
        "1 on the replica that answers sidecars and writes statuses.",
        &[(String::new(), leads.into())],
    )?;
    let counts = &sources.sync.counts;
    family(
        to,
        "calls_open",
        "gauge",
        "Sidecars' calls that are open.",
        &of(&counts.open),
    )?;
    let outcomes = [
        ("answered", &counts.answered),
        ("refused", &counts.refused),
        ("given_up", &counts.given_up),
    ];
    let outcomes = outcomes.map(|(label, value)| {
        (
            format!("{{outcome=\"{label}\"}}"),
            value.load(Ordering::Relaxed),
        )
    });
    family(
        to,
        "calls_total",
        "counter",
        "Sidecars' calls, by outcome.",
        &outcomes,
    )?;
    family(
        to,
        "token_reviews_total",
        "counter",
        "Tokens that the API server was asked about.",
        &of(&sources.sync.identities().reviews),
    )?;
    family(
        to,
        "status_writes_total",
        "counter",
        "Statuses of policies written.",
        &of(&sources.written.statuses),
    )?;
    family(
        to,
        "status_write_errors_total",
        "counter",
        "Statuses of policies that could not be written, and are tried again.",
        &of(&sources.written.failed),
    )?;
    family(
        to,
        "events_total",
        "counter",
        "Events written.",
        &of(&sources.written.events),
    )?;
    if !leads {
        return Ok(());
    }
    let names = sources.sync.fleet().policies().names();
    let mut pods: Vec<(String, u64)> = Vec::new();
    let mut accepted: Vec<(String, u64)> = Vec::new();
    for name in names {
        let labels = format!("namespace=\"{}\",policy=\"{}\"", name.0, name.1);
        let fleet = sources.sync.fleet();
        let Summary {
            matched,
            programmed,
            ready,
            unknown,
            away,
            held,
            ..
        } = fleet.summary(&name, sources.sync.now());
        let is_accepted = fleet
            .policies()
            .verdict(&name)
            .is_some_and(|verdict| verdict.problem.is_none());
        drop(fleet);
        accepted.push((format!("{{{labels}}}"), is_accepted.into()));
        for (state, count) in [
            ("matched", matched),
            ("programmed", programmed),
            ("ready", ready),
            ("unknown", unknown.count),
            ("away", away.count),
            ("held", held.count),
        ] {
            pods.push((format!("{{{labels},state=\"{state}\"}}"), count.into()));
        }
    }
    family(
        to,
        "policy_accepted",
        "gauge",
        "1 for a policy whose settings are allowed.",
        &accepted,
    )?;
    family(
        to,
        "policy_pods",
        "gauge",
        "Pods of a policy, by state: matched are all of them.",
        &pods,
    )
}
