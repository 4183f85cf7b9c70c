//! The controller's page for people: policies and pods, and the JSON that it is made of. Its frame is `ringside_api::page`.
//!
//! It shows what the fleet knows and works nothing out that a status would not say. Nothing on it comes from another host.

mod overview;

use std::sync::LazyLock;

use axum::extract::State;
use axum::response::{IntoResponse, Json, Response};
use ringside_api::page::Page;

use crate::http::Sources;
use overview::Overview;

static PAGE: LazyLock<Page> = LazyLock::new(|| {
    Page::new(
        "Ringside controller",
        include_str!("body.html"),
        include_str!("fleet.js"),
    )
});

/// `GET /`
pub(crate) async fn page() -> Response {
    (PAGE.headers(), PAGE.html.as_str()).into_response()
}

/// `GET /statusz`
pub(crate) async fn statusz(State(sources): State<Sources>) -> Json<Overview> {
    Json(Overview::of(&sources))
}
