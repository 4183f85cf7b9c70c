//! The live page: one document without anything from elsewhere, which reads `/statusz` and `/history` every second. Its frame is
//! `ringside_api::page`; what it shows is here.

use std::sync::LazyLock;

use axum::response::{IntoResponse, Response};
use ringside_api::page::Page;

static PAGE: LazyLock<Page> = LazyLock::new(|| {
    Page::new(
        "Ringside",
        include_str!("body.html"),
        include_str!("live.js"),
    )
});

/// The live page.
pub(super) async fn page() -> Response {
    (PAGE.headers(), PAGE.html.as_str()).into_response()
}
