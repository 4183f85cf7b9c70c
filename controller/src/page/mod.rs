//! The controller's page for people: policies and pods, and the JSON that it is made of.
//!
//! It shows what the fleet knows and works nothing out that a status would not say. Nothing on it comes from another host.

mod overview;

use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::response::{IntoResponse, Json};

use crate::http::Sources;
use overview::Overview;

/// Everything is on the page itself, and nothing else may be loaded or shown within another page.
const POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// `GET /`
pub(crate) async fn page() -> impl IntoResponse {
    (
        [
            (CONTENT_TYPE, "text/html; charset=utf-8"),
            (CACHE_CONTROL, "no-cache"),
            (CONTENT_SECURITY_POLICY, POLICY),
        ],
        include_str!("page.html"),
    )
}

/// `GET /statusz`
pub(crate) async fn statusz(State(sources): State<Sources>) -> Json<Overview> {
    Json(Overview::of(&sources))
}
