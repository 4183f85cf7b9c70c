//! The frame of a live page, the sidecar's and the controller's alike: one document with its style and its script in it, and the
//! policy by which a browser runs exactly those. It owns the look and what both scripts share; it knows no figures and serves nothing.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{SHA256, digest};

/// The look of both pages.
const STYLE: &str = include_str!("style.css");

/// What both scripts use: texts, tables, graphs, and asking again and again.
const PARTS: &str = include_str!("parts.js");

/// A page, ready to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The document.
    pub html: String,
    /// The value of the header `Content-Security-Policy` that belongs to it.
    pub policy: String,
}

impl Page {
    /// A page of this title, with this in its body and this script after [`PARTS`]. All three are the program's own text.
    pub fn new(title: &str, body: &str, script: &str) -> Self {
        let script = format!("{PARTS}\n{script}");
        let html = format!(
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <meta name=\"color-scheme\" content=\"light dark\">\n<title>{title}</title>\n\
             <link rel=\"icon\" href=\"{ICON}\">\n<style>{STYLE}</style>\n</head>\n<body>\n{body}\n\
             <script>{script}</script>\n</body>\n</html>\n"
        );
        let policy = format!(
            "default-src 'none'; script-src '{}'; style-src '{}'; img-src data:; connect-src 'self'; \
             base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
            source(&script),
            source(STYLE)
        );
        Page { html, policy }
    }

    /// The header lines that a page is sent with.
    pub fn headers(&self) -> [(&'static str, &str); 5] {
        [
            ("content-type", "text/html; charset=utf-8"),
            ("cache-control", "no-cache"),
            ("content-security-policy", &self.policy),
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "no-referrer"),
        ]
    }
}

/// A ring with a post on either side, as an image that needs no request.
const ICON: &str = "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 32 32'%3E%3Crect width='32' height='32' rx='7' \
    fill='%231f5fc4'/%3E%3Ccircle cx='16' cy='16' r='7' fill='none' stroke='white' stroke-width='3'/%3E%3Cpath d='M4 16h5M23 16h5' \
    stroke='white' stroke-width='3' stroke-linecap='round'/%3E%3C/svg%3E";

/// How a policy names an inline text: by its hash, so that a changed or added one does not run.
fn source(text: &str) -> String {
    format!(
        "sha256-{}",
        STANDARD.encode(digest(&SHA256, text.as_bytes()))
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_what_browsers_compute() {
        // From the specification of Content Security Policy, level 3.
        assert_eq!(
            source("alert('Hello, world.');"),
            "sha256-qznLcsROx4GACP2dm0UCKCzCG+HiZ1guq6ZZDob/Tng="
        );
    }

    #[test]
    fn nothing_inline_runs_but_what_is_hashed() {
        let page = Page::new("Title", "<p>body</p>", "\"use strict\";");
        assert!(!page.policy.contains("unsafe"), "{}", page.policy);
        let between = |begin: &str, end: &str| {
            let (_, rest) = page.html.split_once(begin).unwrap();
            rest.split_once(end).unwrap().0.to_owned()
        };
        for text in [
            between("<script>", "</script>"),
            between("<style>", "</style>"),
        ] {
            assert!(page.policy.contains(&source(&text)));
        }
        // Neither could be told from the end of its element.
        assert_eq!(page.html.matches("</script").count(), 1);
        assert_eq!(page.html.matches("</style").count(), 1);
    }

    #[test]
    fn nothing_comes_from_elsewhere() {
        for part in [STYLE, PARTS] {
            for outside in ["http:", "https:", "@import", "url(", "innerHTML", "eval("] {
                let known = part.replace("http://www.w3.org/2000/svg", "");
                assert!(!known.contains(outside), "{outside}");
            }
        }
    }
}
