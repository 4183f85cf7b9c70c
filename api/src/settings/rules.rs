//! Rules that one field's range cannot say: between two fields, and about what the kernel can express. It judges
//! complete settings and changes nothing.

use std::fmt::Display;

use super::Settings;
use super::resolve::Report;

pub(super) fn check(settings: &Settings, report: &mut Report) {
    let Settings {
        backoff,
        batch,
        accept,
        buffers,
        timeouts,
        tcp,
        ..
    } = settings;
    at_most(
        report,
        ("backoff.initial", backoff.initial),
        ("backoff.max", backoff.max),
    );
    at_most(report, ("batch.min", batch.min), ("batch.max", batch.max));
    at_most(
        report,
        ("buffers.perDirection", buffers.per_direction),
        ("buffers.pool", buffers.pool),
    );
    at_most(
        report,
        ("timeouts.drainNotice", timeouts.drain_notice),
        ("timeouts.drain", timeouts.drain),
    );
    if accept.resume_below_percent >= accept.pause_above_percent {
        let (resume, pause) = (accept.resume_below_percent, accept.pause_above_percent);
        let problem =
            format!("is {resume}, but must be less than accept.pauseAbovePercent ({pause})");
        report.violation("accept.resumeBelowPercent", problem);
    }
    if tcp.keepalive.as_micros() % 1_000_000 != 0 {
        report.violation(
            "tcp.keepalive",
            format!(
                "is {}, but must be a number of whole seconds",
                tcp.keepalive
            ),
        );
    }
    if tcp.user_timeout.as_micros() % 1_000 != 0 {
        report.violation(
            "tcp.userTimeout",
            format!(
                "is {}, but must be a number of whole milliseconds",
                tcp.user_timeout
            ),
        );
    }
}

fn at_most<T: PartialOrd + Display>(
    report: &mut Report,
    (field, value): (&'static str, T),
    (limit, most): (&str, T),
) {
    if value > most {
        report.violation(
            field,
            format!("is {value}, but must be at most {limit} ({most})"),
        );
    }
}
