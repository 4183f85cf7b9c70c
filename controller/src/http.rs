//! What the controller serves in plain HTTP, for kubelets, Prometheus and people: health, readiness of policies, metrics, and a page.
//!
//! Its own readiness says whether it can answer webhooks, and never how policies are: those are asked for by name.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus::{IntCounterVec, IntGaugeVec, Opts, Registry, TextEncoder};

use crate::certificates::Handle;
use crate::counted;
use crate::fleet::Summary;
use crate::leader::Leadership;
use crate::live::Live;
use crate::observe::Seen;
use crate::page;
use crate::policies::{CLUSTER_POLICY, Name};
use crate::serve;
use crate::status::conditions;
use crate::status::writer::Written;
use crate::sync::Sync;

/// What every metric's name begins with.
const PREFIX: &str = "ringside_controller_";

/// What the answers are made of.
#[derive(Clone, Debug)]
pub struct Sources {
    /// Sidecars' calls and the fleet.
    pub sync: Arc<Sync>,
    /// Whether everything has been seen.
    pub seen: Arc<Seen>,
    /// What was written.
    pub written: Arc<Written>,
    /// What came of pods that the webhook was asked about.
    pub live: Arc<Live>,
    /// The certificates in effect.
    pub certificates: Handle,
    /// What happened to connections.
    pub served: Arc<serve::Counts>,
}

/// All of it.
pub fn router(sources: Sources) -> Router {
    Router::new()
        .route("/", get(page::page))
        .route("/statusz", get(page::statusz))
        .route("/livez", get(|| async { "alive\n" }))
        .route("/readyz", get(readyz))
        .route("/readyz/policies", get(all_policies))
        .route("/readyz/policies/{namespace}/{name}", get(one_policy))
        .route("/metrics", get(metrics))
        .with_state(sources)
}

async fn readyz(State(sources): State<Sources>) -> Response {
    // Without a certificate nobody could ask it anything by TLS.
    let lacks = if !sources.seen.all() {
        "policies and pods have not been read yet\n".to_owned()
    } else if !sources.certificates.is_ready() {
        let problem = sources.certificates.problem().unwrap_or_default();
        format!("there is no certificate to answer with yet: {problem}\n")
    } else {
        return (StatusCode::OK, "ready\n").into_response();
    };
    (StatusCode::SERVICE_UNAVAILABLE, lacks).into_response()
}

/// Whether a policy is ready, and the sentence for it.
fn judge(sources: &Sources, name: &Name) -> Option<(bool, String)> {
    let fleet = sources.sync.fleet();
    let verdict = fleet.policies().verdict(name)?;
    let said = crate::status::readiness(&fleet, name, sources.sync.now());
    drop(fleet);
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
    match scrape(&sources) {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => {
            let told = format!("the metrics could not be put together: {error}\n");
            (StatusCode::INTERNAL_SERVER_ERROR, told).into_response()
        }
    }
}

/// The metrics of one scrape.
pub(crate) struct Scrape(Registry);

impl Scrape {
    pub(crate) fn gauge(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> prometheus::Result<IntGaugeVec> {
        let gauge = IntGaugeVec::new(Opts::new(format!("{PREFIX}{name}"), help), labels)?;
        self.0.register(Box::new(gauge.clone()))?;
        Ok(gauge)
    }

    pub(crate) fn counter(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> prometheus::Result<IntCounterVec> {
        let counter = IntCounterVec::new(Opts::new(format!("{PREFIX}{name}"), help), labels)?;
        self.0.register(Box::new(counter.clone()))?;
        Ok(counter)
    }
}

fn scrape(sources: &Sources) -> prometheus::Result<String> {
    let scrape = Scrape(Registry::new());
    let of = |value: &AtomicU64| value.load(Ordering::Relaxed);
    let leads = sources.sync.leadership() == Leadership::Leads;
    let gauge = scrape.gauge(
        "leads",
        "1 on the replica that answers sidecars and writes statuses.",
        &[],
    )?;
    gauge.with_label_values::<&str>(&[]).set(leads.into());
    let counts = &sources.sync.counts;
    let open = scrape.gauge("calls_open", "Sidecars' calls that are open.", &[])?;
    open.with_label_values::<&str>(&[])
        .set(of(&counts.open) as i64);
    let calls = scrape.counter("calls_total", "Sidecars' calls, by outcome.", &["outcome"])?;
    for (outcome, count) in [
        ("answered", &counts.answered),
        ("refused", &counts.refused),
        ("given_up", &counts.given_up),
    ] {
        calls.with_label_values(&[outcome]).inc_by(of(count));
    }
    for (name, help, count) in [
        (
            "token_reviews_total",
            "Tokens that the API server was asked about.",
            &sources.sync.identities().reviews,
        ),
        (
            "status_writes_total",
            "Statuses of policies written.",
            &sources.written.statuses,
        ),
        (
            "status_write_errors_total",
            "Statuses of policies that could not be written, and are tried again.",
            &sources.written.failed,
        ),
        ("events_total", "Events written.", &sources.written.events),
    ] {
        scrape
            .counter(name, help, &[])?
            .with_label_values::<&str>(&[])
            .inc_by(of(count));
    }
    counted::add(&scrape, sources)?;
    if leads {
        policies(&scrape, sources)?;
    }
    TextEncoder::new().encode_to_string(&scrape.0.gather())
}

/// Their namespace's label is not `namespace`, which Prometheus keeps for where the controller itself runs.
fn policies(scrape: &Scrape, sources: &Sources) -> prometheus::Result<()> {
    let accepted = scrape.gauge(
        "policy_accepted",
        "1 for a policy whose settings are allowed.",
        &["policy_namespace", "policy"],
    )?;
    let told = scrape.gauge(
        "policy_condition",
        "1 where a condition is true of a policy by what its pods say now; its status follows when that lasts.",
        &["policy_namespace", "policy", "condition"],
    )?;
    let pods = scrape.gauge(
        "policy_pods",
        "Pods of a policy, by state: matched are all of them.",
        &["policy_namespace", "policy", "state"],
    )?;
    let names = sources.sync.fleet().policies().names();
    for name in names {
        let fleet = sources.sync.fleet();
        let summary = fleet.summary(&name, sources.sync.now());
        let verdict = fleet.policies().verdict(&name);
        drop(fleet);
        // Deleted since the names were read.
        let Some(verdict) = verdict else { continue };
        let (namespace, policy) = (name.0.as_str(), name.1.as_str());
        accepted
            .with_label_values(&[namespace, policy])
            .set(verdict.problem.is_none().into());
        for (condition, is_true) in conditions::holding(&verdict, &summary) {
            told.with_label_values(&[namespace, policy, condition])
                .set(is_true.into());
        }
        let Summary {
            matched,
            programmed,
            ready,
            ..
        } = *summary;
        for (state, count) in [
            ("matched", matched),
            ("programmed", programmed),
            ("ready", ready),
            ("unknown", summary.unknown.count),
            ("away", summary.away.count),
            ("held", summary.held.count),
        ] {
            pods.with_label_values(&[namespace, policy, state])
                .set(count.into());
        }
    }
    Ok(())
}
