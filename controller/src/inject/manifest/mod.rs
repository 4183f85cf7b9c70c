//! Injection into manifests, offline: YAML or JSON with any number of documents. It owns which kinds hold a pod's template and where,
//! and that everything else comes out as it went in, byte for byte. It reads and writes no file.

mod stream;
mod yaml;

use json_patch::PatchOperation;
use ringside_api::sync::Assigned;
use serde_json::Value;
use thiserror::Error;

use super::{Injection, inject};

/// A manifest with sidecars.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Manifest {
    /// The documents, in their order.
    pub text: String,
    /// What to know, each with the object that it is about.
    pub warnings: Vec<String>,
    /// How many templates got a sidecar.
    pub injected: usize,
}

/// A document that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("document {number}, which begins in line {line}, cannot be read: {why}")]
pub struct ManifestError {
    /// Which, from 1.
    pub number: usize,
    /// Where it begins, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub why: String,
}

/// Injects into every template of a manifest.
///
/// # Errors
/// The first document that cannot be read.
pub fn inject_all(
    text: &str,
    injection: &Injection,
    assigned: &Assigned,
) -> Result<Manifest, ManifestError> {
    let mut manifest = Manifest::default();
    // Windows' editors put a mark before a text, and nobody needs it; and they end lines by two characters.
    let (whole, text) = (text, text.strip_prefix('\u{feff}').unwrap_or(text));
    let first_line = text.split_inclusive('\n').next().unwrap_or_default();
    let line_break = if first_line.ends_with("\r\n") {
        "\r\n"
    } else {
        "\n"
    };
    if let Some(documents) = stream::json(text) {
        for (raw, mut value) in documents {
            let additions = additions(&value, injection, assigned, &mut manifest);
            if additions.is_empty() {
                manifest.text.push_str(raw);
                continue;
            }
            for (path, patch) in additions {
                if let Some(pod) = value.pointer_mut(&path) {
                    // The patch was made of this very value.
                    let _ = json_patch::patch(pod, &patch);
                }
            }
            // The line breaks around it are part of what is raw.
            let start = raw.len() - raw.trim_start().len();
            manifest.text.push_str(&raw[..start]);
            let written = format!("{value:#}\n");
            manifest.text.push_str(&written.replace('\n', line_break));
        }
        return Ok(as_it_was(manifest, whole));
    }
    for (index, document) in stream::yaml(text).into_iter().enumerate() {
        let mut value = yaml::read(document.body).map_err(|why| ManifestError {
            number: index + 1,
            line: document.line,
            why,
        })?;
        let as_json = serde_json::to_value(&value).map_err(|error| ManifestError {
            number: index + 1,
            line: document.line,
            why: error.to_string(),
        })?;
        let additions = additions(&as_json, injection, assigned, &mut manifest);
        manifest.text.push_str(document.mark);
        if additions.is_empty() {
            manifest.text.push_str(document.body);
            continue;
        }
        if !document.mark.is_empty() && !document.mark.ends_with('\n') {
            // What is written in several lines cannot begin in that of the mark.
            manifest.text.push_str(line_break);
        }
        manifest.warnings.extend(yaml::warnings(&document));
        for (path, patch) in additions {
            yaml::apply(&mut value, &path, &patch);
        }
        manifest
            .text
            .push_str(yaml::leading_comments(document.body));
        let written = yaml::write(&value);
        manifest.text.push_str(&written.replace('\n', line_break));
    }
    Ok(as_it_was(manifest, whole))
}

/// Where nothing is injected, every byte is as it was.
fn as_it_was(mut manifest: Manifest, whole: &str) -> Manifest {
    if manifest.injected == 0 {
        whole.clone_into(&mut manifest.text);
    }
    manifest
}

/// For each template of a document that gets a sidecar: where it is, and what to add.
fn additions(
    document: &Value,
    injection: &Injection,
    assigned: &Assigned,
    manifest: &mut Manifest,
) -> Vec<(String, Vec<PatchOperation>)> {
    let mut found = Vec::new();
    for (path, object) in templates(document, String::new(), ("", "")) {
        let Some(template) = document.pointer(&path) else {
            continue;
        };
        let injected = inject(template, injection, assigned);
        let about = |warning: &String| format!("{object}: {warning}");
        manifest
            .warnings
            .extend(injected.warnings.iter().map(about));
        if !injected.patch().is_empty() {
            manifest.injected += 1;
            found.push((path, injected.patch().to_vec()));
        }
    }
    found
}

/// Where in a document pods and their templates are, and the object that each belongs to. A document that does not say is of `default`, a
/// kind and its apiVersion.
fn templates(document: &Value, at: String, default: (&str, &str)) -> Vec<(String, String)> {
    let field = |name: &str, default| {
        let written = document.get(name).and_then(Value::as_str);
        written.filter(|text| !text.is_empty()).unwrap_or(default)
    };
    let (kind, version) = (field("kind", default.0), field("apiVersion", default.1));
    let group = version.split_once('/').map_or("", |(group, _)| group);
    let within = match (group, kind) {
        ("", "Pod") => "",
        ("", "PodTemplate") => "/template",
        ("", "ReplicationController")
        | ("apps", "Deployment" | "ReplicaSet" | "StatefulSet" | "DaemonSet")
        | ("batch", "Job") => "/spec/template",
        ("batch", "CronJob") => "/spec/jobTemplate/spec/template",
        // kubectl writes List; the API server's own lists are named after what they hold, and what they hold does not say it again.
        ("" | "apps" | "batch", list) if list.ends_with("List") => {
            let of = (list.strip_suffix("List").unwrap_or_default(), version);
            let items = document.get("items").and_then(Value::as_array);
            let items = items.into_iter().flatten().enumerate();
            return items
                .flat_map(|(index, item)| templates(item, format!("{at}/items/{index}"), of))
                .collect();
        }
        _ => return Vec::new(),
    };
    let metadata = |name: &str| document.get("metadata")?.get(name)?.as_str();
    let name = metadata("name").or_else(|| metadata("generateName"));
    vec![(
        format!("{at}{within}"),
        format!("{kind}/{}", name.unwrap_or_default()),
    )]
}
