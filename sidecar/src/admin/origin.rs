//! Keeps web pages of other sites from draining a relay through somebody's browser.

use std::net::IpAddr;

use axum::extract::Request;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

/// Refuses requests that change something when a browser says that another site made them.
pub(super) async fn refuse_other_sites(request: Request, next: Next) -> Response {
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    if !reads && is_from_elsewhere(request.headers()) {
        let sentence =
            "a page of another site may not do this: use curl, or the page of this relay\n";
        return (StatusCode::FORBIDDEN, sentence).into_response();
    }
    next.run(request).await
}

fn is_from_elsewhere(headers: &HeaderMap) -> bool {
    let header = |name: &str| headers.get(name)?.to_str().ok();
    // Browsers send it, and no page can change it; other clients do not send it.
    let site = header("sec-fetch-site");
    let foreign = site.is_some_and(|site| site != "same-origin" && site != "none");
    // To an address that is neither https nor localhost they send no such word, but always their page's origin.
    let other_host = header("origin").is_some_and(|origin| {
        let host = origin.split_once("://").map_or(origin, |(_, host)| host);
        Some(host) != header("host") || !is_nobodys_name(host)
    });
    foreign || other_host
}

/// Whether it is an address, or this machine: any other name may be led here by whoever owns it, and the browser takes that for one site.
fn is_nobodys_name(host: &str) -> bool {
    let is_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
    let bare = match host.rsplit_once(':') {
        Some((bare, port)) if is_port(port) && !host.ends_with(']') => bare,
        _ => host,
    };
    let bare = bare.trim_start_matches('[').trim_end_matches(']');
    bare == "localhost" || bare.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(headers: &[(&'static str, &'static str)]) -> bool {
        let headers = headers
            .iter()
            .map(|&(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
        is_from_elsewhere(&headers.collect())
    }

    #[test]
    fn a_page_of_another_site_is_told_by_either_header() {
        let host = ("host", "10.0.0.7:15490");
        assert!(!asked(&[host]));
        assert!(!asked(&[host, ("origin", "http://10.0.0.7:15490")]));
        assert!(asked(&[host, ("origin", "http://evil.example")]));
        assert!(asked(&[host, ("origin", "null")]));
        // A name that leads here, whoever's it is.
        let named = |host| {
            asked(&[
                ("host", host),
                ("origin", &*format!("http://{host}").leak()),
            ])
        };
        assert!(named("evil.example:15490") && named("evil.example"));
        assert!(!named("localhost:15490") && !named("[::1]:15490") && !named("[::1]"));
        assert!(asked(&[host, ("sec-fetch-site", "cross-site")]));
        assert!(!asked(&[host, ("sec-fetch-site", "same-origin")]));
    }
}
