//! Keeps web pages of other sites from draining a relay through somebody's browser.

use axum::extract::Request;
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

/// Refuses requests that change something when a browser says that another site made them.
pub(super) async fn refuse_other_sites(request: Request, next: Next) -> Response {
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    // Browsers send it, and no page can change it; other clients do not send it.
    let site = request.headers().get("sec-fetch-site");
    let foreign = site.is_some_and(|site| site != "same-origin" && site != "none");
    if foreign && !reads {
        let sentence =
            "a page of another site may not do this: use curl, or the page of this relay\n";
        return (StatusCode::FORBIDDEN, sentence).into_response();
    }
    next.run(request).await
}
