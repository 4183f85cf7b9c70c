//! AdmissionReview v1: the question as it comes, and the answer as it goes. It owns its fields and the limits of warnings; what is answered
//! is decided elsewhere.

use axum::http::StatusCode;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use json_patch::PatchOperation;
use serde_json::{Value, json};
use thiserror::Error;

/// The version of reviews that is spoken.
const VERSION: &str = "admission.k8s.io/v1";

/// The longest warning that an API server shows whole, in bytes.
const WARNING_BYTES_MOST: usize = 256;

/// The most warnings of one answer; together with their length what an API server passes on.
const WARNINGS_MOST: usize = 12;

/// A body that cannot be answered as a review.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("this is no AdmissionReview of {VERSION} with a request and its uid: {0}")]
pub struct Unanswerable(pub(super) String);

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request<'a> {
    whole: &'a Value,
    pub(super) uid: &'a str,
}

impl<'a> Request<'a> {
    /// The request of a review.
    ///
    /// # Errors
    /// There is none, or it has no uid, without which there is no answer.
    pub(super) fn of(review: &'a Value) -> Result<Self, Unanswerable> {
        let missing = |what: &str| Unanswerable(format!("{what} is missing"));
        let request = review.get("request").ok_or_else(|| missing("request"))?;
        let uid = request.get("uid").and_then(Value::as_str);
        let uid = uid.filter(|uid| !uid.is_empty());
        let uid = uid.ok_or_else(|| missing("request.uid"))?;
        let whole = request;
        Ok(Self { whole, uid })
    }

    /// A field that is text; empty where it is missing.
    pub(super) fn text(&self, path: &str) -> &'a str {
        let value = self.whole.pointer(path).and_then(Value::as_str);
        value.unwrap_or_default()
    }

    /// A field; null where it is missing.
    pub(super) fn field(&self, name: &str) -> &'a Value {
        self.whole.get(name).unwrap_or(&Value::Null)
    }
}

/// What is answered.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Answer {
    /// Why not; `None` allows.
    pub(super) denied: Option<String>,
    /// What to add.
    pub(super) patch: Vec<PatchOperation>,
    /// What kubectl shows.
    pub(super) warnings: Vec<String>,
    /// What the audit log keeps.
    pub(super) outcome: String,
}

impl Answer {
    /// Allowed as it is.
    pub(super) fn allowed(outcome: impl Into<String>) -> Self {
        Self {
            outcome: outcome.into(),
            ..Self::default()
        }
    }

    /// Allowed, though something is wrong with the question.
    pub(super) fn allowed_with_warning(warning: String) -> Self {
        Self {
            outcome: warning.clone(),
            warnings: vec![warning],
            ..Self::default()
        }
    }

    /// The whole review that answers `request`.
    pub(super) fn review(&self, request: &Request<'_>) -> Value {
        let mut response = json!({"uid": request.uid, "allowed": self.denied.is_none()});
        if let Some(why) = &self.denied {
            response["status"] = json!({
                "status": "Failure", "reason": "Invalid", "message": why,
                "code": StatusCode::UNPROCESSABLE_ENTITY.as_u16(),
            });
        }
        if !self.patch.is_empty() {
            let patch = json!(self.patch).to_string();
            response["patchType"] = json!("JSONPatch");
            response["patch"] = json!(BASE64_STANDARD.encode(patch));
        }
        if !self.warnings.is_empty() {
            response["warnings"] = json!(shown(&self.warnings));
        }
        if !self.outcome.is_empty() {
            response["auditAnnotations"] = json!({"outcome": self.outcome});
        }
        json!({"apiVersion": VERSION, "kind": "AdmissionReview", "response": response})
    }
}

/// Warnings within an API server's limits: it cuts longer ones, and drops all if they are too many.
fn shown(warnings: &[String]) -> Vec<String> {
    let short = |warning: &String| {
        if warning.len() <= WARNING_BYTES_MOST {
            return warning.clone();
        }
        let end = warning.floor_char_boundary(WARNING_BYTES_MOST - '…'.len_utf8());
        format!("{}…", &warning[..end])
    };
    let mut shown: Vec<String> = warnings.iter().take(WARNINGS_MOST).map(short).collect();
    if warnings.len() > WARNINGS_MOST {
        let others = warnings.len() - WARNINGS_MOST;
        shown.push(format!(
            "{others} more warnings are not shown: mend these first"
        ));
    }
    shown
}
