//! Rows about what goes through the sidecars, and what the kernel says to it. Their order in ROWS is the dashboard's.

use super::{Bad, Look, Panel, Query, Row, Unit};

pub(super) const OVERVIEW: Row = Row {
    title: "Overview",
    panels: &[
        Panel {
            title: "Sidecars",
            description: "Sidecars that are scraped.",
            look: Look::Number { bad: Bad::Never },
            unit: Unit::Count,
            width: 4,
            queries: &[Query::new("count(ringside_build_info{%})", "sidecars")],
        },
        Panel {
            title: "Ready",
            description: "The share of sidecars whose /readyz answers 200.",
            look: Look::Number { bad: Bad::BelowOne },
            unit: Unit::Share,
            width: 4,
            queries: &[Query::new("avg(ringside_ready{%})", "ready")],
        },
        Panel {
            title: "Connections",
            description: "Connections open now.",
            look: Look::Number { bad: Bad::Never },
            unit: Unit::Count,
            width: 4,
            queries: &[Query::new("sum(ringside_connections_open{%})", "open")],
        },
        Panel {
            title: "Throughput",
            description: "Bytes relayed a second, both directions together.",
            look: Look::Number { bad: Bad::Never },
            unit: Unit::BytesPerSecond,
            width: 4,
            queries: &[Query::new(
                "sum(rate(ringside_relayed_bytes_total{%}[$__rate_interval]))",
                "relayed",
            )],
        },
        Panel {
            title: "Under sustained pushback",
            description: "Sidecars with a worker that the kernel keeps pushing back.",
            look: Look::Number {
                bad: Bad::AboveZero,
            },
            unit: Unit::Count,
            width: 4,
            queries: &[Query::new(
                "sum(max without (worker) (ringside_pushback_sustained{%}))",
                "sidecars",
            )],
        },
        Panel {
            title: "Alerts firing",
            description: "Alerts of the shipped rules that fire, of any namespace; docs/alerts.md has a heading for each.",
            look: Look::Number {
                bad: Bad::AboveZero,
            },
            unit: Unit::Count,
            width: 4,
            queries: &[Query::new(
                r#"count(ALERTS{alertname=~"Ringside.+", alertstate="firing"}) or vector(0)"#,
                "alerts",
            )],
        },
    ],
};

pub(super) const TRAFFIC: Row = Row {
    title: "Traffic",
    panels: &[
        Panel {
            title: "Bytes by direction",
            description: "Bytes relayed a second.",
            look: Look::Lines,
            unit: Unit::BytesPerSecond,
            width: 8,
            queries: &[Query::new(
                "sum by (direction) (rate(ringside_relayed_bytes_total{%}[$__rate_interval]))",
                "{{direction}}",
            )],
        },
        Panel {
            title: "Connections by pod",
            description: "Connections open, of the twenty pods that have most.",
            look: Look::Lines,
            unit: Unit::Count,
            width: 8,
            queries: &[Query::new(
                "topk(20, sum by (namespace, pod, instance) (ringside_connections_open{%}))",
                "{{pod}} {{instance}}",
            )],
        },
        Panel {
            title: "New connections by relay",
            description: "Connections accepted a second.",
            look: Look::Lines,
            unit: Unit::PerSecond,
            width: 8,
            queries: &[Query::new(
                "sum by (relay) (rate(ringside_connections_opened_total{%}[$__rate_interval]))",
                "{{relay}}",
            )],
        },
        Panel {
            title: "Time to connect",
            description: "From accepting a connection to being connected to its target, over 5 minutes. By the shipped recording rules.",
            look: Look::Lines,
            unit: Unit::Seconds,
            width: 8,
            queries: &[
                Query::new(
                    "histogram_quantile(0.5, sum by (le) (instance:ringside_connect_seconds_bucket:rate5m{%}))",
                    "half",
                ),
                Query::new(
                    "histogram_quantile(0.99, sum by (le) (instance:ringside_connect_seconds_bucket:rate5m{%}))",
                    "99 of 100",
                ),
            ],
        },
        Panel {
            title: "Spliced",
            description: "The share of relayed bytes that splice(2) moved without copying: streams.",
            look: Look::Lines,
            unit: Unit::Share,
            width: 8,
            queries: &[Query::new(
                "sum(rate(ringside_spliced_bytes_total{%}[$__rate_interval])) / sum(rate(ringside_relayed_bytes_total{%}[$__rate_interval]))",
                "spliced",
            )],
        },
        Panel {
            title: "CPU by pod",
            description: "CPUs that sidecars keep busy, of the twenty busiest.",
            look: Look::Lines,
            unit: Unit::Cpus,
            width: 8,
            queries: &[Query::new(
                "topk(20, rate(process_cpu_seconds_total{%}[$__rate_interval]) and on (job, instance) ringside_build_info{%})",
                "{{pod}} {{instance}}",
            )],
        },
    ],
};

pub(super) const PUSHBACK: Row = Row {
    title: "Pushback",
    panels: &[
        Panel {
            title: "Share of pushback",
            description: "The share of pushback over the last second, waits in backoff included, of the worst worker; of the twenty worst pods.",
            look: Look::Lines,
            unit: Unit::Share,
            width: 8,
            queries: &[Query::new(
                "topk(20, max without (worker) (ringside_pushback_percent{%}) / 100)",
                "{{pod}} {{instance}}",
            )],
        },
        Panel {
            title: "Submissions by outcome",
            description: r#"Submissions a second; anything but "all" and "some" is an error that the kernel answered."#,
            look: Look::Stacked,
            unit: Unit::PerSecond,
            width: 8,
            queries: &[Query::new(
                r#"sum by (outcome) (rate(ringside_submissions_total{%, outcome!="nothing"}[$__rate_interval])) > 0"#,
                "{{outcome}}",
            )],
        },
        Panel {
            title: "Reaction to pushback",
            description: "The highest rung of any worker: 0 calm, 1 reap and wait, 2 smaller batches, 3 accept nothing, 4 receive nothing, 5 end idle connections.",
            look: Look::Lines,
            unit: Unit::Count,
            width: 8,
            queries: &[Query::new(
                "topk(20, max by (namespace, pod, instance) (ringside_pressure_rung{%}))",
                "{{pod}} {{instance}}",
            )],
        },
        Panel {
            title: "Backoff",
            description: "How long workers wait after pushback, over 5 minutes; nothing where there was none. By the shipped recording rules.",
            look: Look::Lines,
            unit: Unit::Seconds,
            width: 8,
            queries: &[
                Query::new(
                    "histogram_quantile(0.5, sum by (le) (instance:ringside_submission_backoff_seconds_bucket:rate5m{%}))",
                    "half",
                ),
                Query::new(
                    "histogram_quantile(0.99, sum by (le) (instance:ringside_submission_backoff_seconds_bucket:rate5m{%}))",
                    "99 of 100",
                ),
            ],
        },
        Panel {
            title: "Batches",
            description: "Operations that the kernel takes in a submission, and the lowest limit that any worker keeps to now. By the shipped recording rules.",
            look: Look::Lines,
            unit: Unit::Count,
            width: 8,
            queries: &[
                Query::new(
                    "histogram_quantile(0.5, sum by (le) (instance:ringside_submission_batch_size_bucket:rate5m{%}))",
                    "half",
                ),
                Query::new(
                    "histogram_quantile(0.99, sum by (le) (instance:ringside_submission_batch_size_bucket:rate5m{%}))",
                    "99 of 100",
                ),
                Query::new("min(ringside_submission_batch_limit{%})", "lowest limit"),
            ],
        },
        Panel {
            title: "Stalls and retries",
            description: "Times a second that patience ended (stalls), and operations that were started again, by reason.",
            look: Look::Lines,
            unit: Unit::PerSecond,
            width: 8,
            queries: &[
                Query::new(
                    "sum(rate(ringside_stalls_total{%}[$__rate_interval]))",
                    "stalls",
                ),
                Query::new(
                    "sum by (reason) (rate(ringside_kernel_retries_total{%}[$__rate_interval]))",
                    "retried: {{reason}}",
                ),
            ],
        },
    ],
};
