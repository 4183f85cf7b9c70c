//! `/config`: the configuration in effect and where each field came from, as YAML or, where asked for, JSON.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State as Of;
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use ringside_api::settings::{FieldInEffect, Source};
use ringside_api::{Config, Patch, Relay};
use serde::Serialize;

use crate::process::State;
use crate::settings::{InEffect, Origin};

/// The document: the upper part could be used as a configuration file.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Document<'a> {
    relays: &'a [Relay],
    settings: Patch,
    #[serde(skip_serializing_if = "Option::is_none")]
    admin: Option<String>,
    backend: String,
    workers: String,
    /// Where each setting came from.
    sources: BTreeMap<&'static str, String>,
    /// Where the configuration came from.
    origin: String,
    /// What policies assign, where anything was ever assigned.
    #[serde(skip_serializing_if = "Option::is_none")]
    policies: Option<Policies<'a>>,
    generation: u64,
    hash: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_error: Option<&'a str>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    waiting_for_restart: &'a [String],
}

/// What policies assign.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Policies<'a> {
    /// The RelayPolicy; empty where none applies.
    relay_policy: &'a str,
    hash: &'a str,
    /// Where that was found: `controller`, or for want of it `state folder` or `pod annotation`.
    found_in: &'static str,
}

/// The name of the place that a configuration came from.
pub(super) fn origin(origin: &Origin) -> String {
    match origin {
        Origin::CommandLine => "command line".to_owned(),
        Origin::File(path) => path.display().to_string(),
    }
}

fn document<'a>(now: &'a InEffect, admin: Option<String>) -> Document<'a> {
    let Config {
        relays,
        backend,
        workers,
        ..
    } = &*now.config;
    let policy = now
        .assignment
        .as_ref()
        .map_or("", |assignment| &assignment.assigned.policy);
    let source = |field: FieldInEffect| match field.source {
        Source::Policy => (field.field, format!("RelayPolicy {policy}")),
        source => (field.field, source.to_string()),
    };
    Document {
        relays,
        settings: Patch::from(now.resolved.settings),
        admin,
        backend: backend.to_string(),
        workers: workers.to_string(),
        sources: now.resolved.fields().into_iter().map(source).collect(),
        origin: origin(&now.origin),
        policies: now.assignment.as_ref().map(|assignment| Policies {
            relay_policy: &assignment.assigned.policy,
            hash: &assignment.assigned.hash,
            found_in: assignment.from.label(),
        }),
        generation: now.generation,
        hash: now.resolved.settings.hash(),
        last_error: now.last_refusal.as_ref().map(|r| r.sentence.as_str()),
        waiting_for_restart: &now.waiting_for_restart,
    }
}

/// Shows the configuration: `?format=json` or `Accept: application/json` asks for JSON.
pub(super) async fn config(Of(state): Of<Arc<State>>, uri: Uri, headers: HeaderMap) -> Response {
    let accepts_json = headers
        .get(ACCEPT)
        .and_then(|accept| accept.to_str().ok())
        .is_some_and(|accept| accept.contains("application/json"));
    let as_json = match uri.query() {
        None | Some("") => accepts_json,
        Some("format=json") => true,
        Some("format=yaml") => false,
        Some(_) => {
            let sentence = "this format is not known: ask for ?format=yaml or ?format=json\n";
            return (StatusCode::BAD_REQUEST, sentence).into_response();
        }
    };
    let now = state.live.now();
    let document = document(&now, state.admin.map(|address| address.to_string()));
    let (kind, text) = if as_json {
        let text = serde_json::to_string_pretty(&document).map_err(|error| error.to_string());
        ("application/json", text)
    } else {
        let text = serde_yaml::to_string(&document).map_err(|error| error.to_string());
        ("application/yaml", text)
    };
    match text {
        Ok(text) => ([(CONTENT_TYPE, kind)], text).into_response(),
        Err(error) => (
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("the configuration cannot be written: {error}\n"),
        )
            .into_response(),
    }
}
