//! Rows about the controller, and what runs where. Their order in ROWS is the dashboard's.

use super::{Bad, Look, Panel, Query, Row, Unit};

pub(super) const CONTROLLER: Row = Row {
    title: "Controller",
    panels: &[
        Panel {
            title: "Replicas that lead",
            description: "Exactly one should.",
            look: Look::Number { bad: Bad::BelowOne },
            unit: Unit::Count,
            width: 4,
            queries: &[Query::new("sum(ringside_controller_leads)", "leads")],
        },
        Panel {
            title: "Certificates end in",
            description: "How long the controller's certificate and the last CA that it is trusted by are good.",
            look: Look::Lines,
            unit: Unit::Seconds,
            width: 4,
            queries: &[Query::new(
                "min by (certificate) (ringside_controller_certificate_expiry_timestamp_seconds) - time()",
                "{{certificate}}",
            )],
        },
        Panel {
            title: "Pods of policies by state",
            description: "Pods that policies match, of those the ones that run their settings, are ready, unknown, away for pressure, or held back by the limit.",
            look: Look::Lines,
            unit: Unit::Count,
            width: 8,
            queries: &[Query::new(
                r#"sum by (state) (max by (policy_namespace, policy, state) (ringside_controller_policy_pods{policy_namespace=~"$namespace"}))"#,
                "{{state}}",
            )],
        },
        Panel {
            title: "Policies by condition",
            description: "Policies of which each condition is true.",
            look: Look::Lines,
            unit: Unit::Count,
            width: 8,
            queries: &[Query::new(
                r#"sum by (condition) (max by (policy_namespace, policy, condition) (ringside_controller_policy_condition{policy_namespace=~"$namespace"}))"#,
                "{{condition}}",
            )],
        },
        Panel {
            title: "Sidecars' calls",
            description: "Calls a second that the controller answered, refused or was left with, and calls that are open.",
            look: Look::Lines,
            unit: Unit::PerSecond,
            width: 8,
            queries: &[
                Query::new(
                    "sum by (outcome) (rate(ringside_controller_calls_total[$__rate_interval]))",
                    "{{outcome}}",
                ),
                Query::new("sum(ringside_controller_calls_open)", "open now"),
            ],
        },
        Panel {
            title: "The controller as sidecars see it",
            description: "Calls a second by how they came out, and sidecars with a connection.",
            look: Look::Lines,
            unit: Unit::PerSecond,
            width: 8,
            queries: &[
                Query::new(
                    "sum by (outcome) (rate(ringside_sync_calls_total{%}[$__rate_interval]))",
                    "{{outcome}}",
                ),
                Query::new("sum(ringside_controller_connected{%})", "connected now"),
            ],
        },
        Panel {
            title: "Asked and written",
            description: "Questions to the API server about tokens, statuses and Events written, pods that the webhook was asked about, and what failed, a second.",
            look: Look::Lines,
            unit: Unit::PerSecond,
            width: 8,
            queries: &[
                Query::new(
                    "sum(rate(ringside_controller_token_reviews_total[$__rate_interval]))",
                    "token reviews",
                ),
                Query::new(
                    "sum(rate(ringside_controller_status_writes_total[$__rate_interval]))",
                    "statuses",
                ),
                Query::new(
                    "sum(rate(ringside_controller_events_total[$__rate_interval]))",
                    "Events",
                ),
                Query::new(
                    "sum by (outcome) (rate(ringside_controller_injections_total[$__rate_interval]))",
                    "pods {{outcome}}",
                ),
                Query::new(
                    "sum(rate(ringside_controller_status_write_errors_total[$__rate_interval]))",
                    "statuses that failed",
                ),
                Query::new(
                    "sum(rate(ringside_controller_handshake_errors_total[$__rate_interval]))",
                    "handshakes that failed",
                ),
            ],
        },
    ],
};

pub(super) const SETTINGS: Row = Row {
    title: "Settings",
    panels: &[
        Panel {
            title: "Settings in effect",
            description: "How many sidecars run which settings, and by which policy.",
            look: Look::Table,
            unit: Unit::Count,
            width: 8,
            queries: &[Query::new(
                "count by (source, policy, hash) (ringside_settings_info{%})",
                "",
            )],
        },
        Panel {
            title: "Backends",
            description: "How many sidecars run on which backend, and why.",
            look: Look::Table,
            unit: Unit::Count,
            width: 8,
            queries: &[Query::new(
                "count by (backend, reason) (max without (worker) (ringside_backend_info{%}))",
                "",
            )],
        },
        Panel {
            title: "Versions",
            description: "How many sidecars are of which build.",
            look: Look::Table,
            unit: Unit::Count,
            width: 8,
            queries: &[Query::new(
                "count by (version, commit) (ringside_build_info{%})",
                "",
            )],
        },
        Panel {
            title: "Refused settings",
            description: "Sidecars that refuse the newest settings, relays that cannot listen, and refusals a second.",
            look: Look::Lines,
            unit: Unit::Count,
            width: 24,
            queries: &[
                Query::new("sum(ringside_settings_last_refused{%})", "refusing now"),
                Query::new(
                    "sum(ringside_relays_unopened{%})",
                    "relays that cannot listen",
                ),
                Query::new(
                    "sum(rate(ringside_settings_errors_total{%}[$__rate_interval]))",
                    "refusals a second",
                ),
            ],
        },
    ],
};
