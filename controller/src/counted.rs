//! Metrics of what surrounds sync: connections, what the webhook was asked, and until when certificates are good.
//!
//! It owns their names and help texts, and counts nothing itself.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::http::{Scrape, Sources};
use crate::serve::HandshakeFailure;

/// Adds them to a scrape.
pub(crate) fn add(scrape: &Scrape, sources: &Sources) -> prometheus::Result<()> {
    connections(scrape, sources)?;
    admission(scrape, sources)?;
    certificates(scrape, sources)
}

fn connections(scrape: &Scrape, sources: &Sources) -> prometheus::Result<()> {
    let served = &sources.served;
    let open = scrape.gauge(
        "connections_open",
        "Connections of sidecars and API servers that are open, those in their handshake among them.",
        &[],
    )?;
    open.with_label_values::<&str>(&[])
        .set(i64::try_from(served.open()).unwrap_or(i64::MAX));
    for (name, help, count) in [
        (
            "connections_total",
            "Connections of sidecars and API servers taken.",
            served.accepted(),
        ),
        (
            "connections_refused_total",
            "Connections closed at once because as many as may be were open, and something was asked on each.",
            served.refused(),
        ),
        (
            "connections_sent_away_total",
            "Connections on which nothing was asked, closed for a newcomer because as many as may be were open.",
            served.sent_away(),
        ),
        (
            "connections_idle_closed_total",
            "Connections closed because nothing was asked for too long.",
            served.idle_closed(),
        ),
        (
            "accept_errors_total",
            "Accepts that failed for want of something, such as descriptors.",
            served.accept_failures(),
        ),
        (
            "handshakes_total",
            "TLS handshakes that went well.",
            served.handshakes(),
        ),
        (
            "requests_total",
            "Requests of sidecars and API servers, whatever became of them.",
            served.requests(),
        ),
    ] {
        scrape
            .counter(name, help, &[])?
            .with_label_values::<&str>(&[])
            .inc_by(count);
    }
    let failed = scrape.counter(
        "handshake_errors_total",
        "TLS handshakes that failed, by reason.",
        &["reason"],
    )?;
    for why in HandshakeFailure::ALL {
        failed
            .with_label_values(&[why.name()])
            .inc_by(served.handshakes_failed(why));
    }
    Ok(())
}

fn admission(scrape: &Scrape, sources: &Sources) -> prometheus::Result<()> {
    let of = |value: &AtomicU64| value.load(Ordering::Relaxed);
    let asked = &sources.live.asked;
    let injections = scrape.counter(
        "injections_total",
        "Pods that the webhook was asked about, by outcome.",
        &["outcome"],
    )?;
    for (outcome, count) in [("injected", &asked.injected), ("skipped", &asked.skipped)] {
        injections.with_label_values(&[outcome]).inc_by(of(count));
    }
    scrape
        .counter(
            "injection_warnings_total",
            "Warnings given to whoever made a pod.",
            &[],
        )?
        .with_label_values::<&str>(&[])
        .inc_by(of(&asked.warnings));
    Ok(())
}

fn certificates(scrape: &Scrape, sources: &Sources) -> prometheus::Result<()> {
    let Some((leaf, ca)) = sources.certificates.ends() else {
        return Ok(());
    };
    let ends = scrape.gauge(
        "certificate_expiry_timestamp_seconds",
        "When the certificate that is shown ends, and the last of the CAs that it is trusted by, in Unix seconds.",
        &["certificate"],
    )?;
    for (certificate, seconds) in [("leaf", leaf), ("ca", ca)] {
        ends.with_label_values(&[certificate]).set(seconds);
    }
    Ok(())
}
