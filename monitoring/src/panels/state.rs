//! Rows about how the sidecars stand, their limits, how connections end. Their order in ROWS is the dashboard's.

use super::{Look, Panel, Query, Row, Unit};

pub(super) const READINESS_AND_LEAVE: Row = Row {
    title: "Readiness and leave",
    panels: &[
        Panel {
            title: "Ready, live and draining",
            description: "Sidecars whose /readyz and /livez answer 200, and those that drain.",
            look: Look::Lines,
            unit: Unit::Count,
            width: 8,
            queries: &[
                Query::new("sum(ringside_ready{%})", "ready"),
                Query::new("sum(ringside_live{%})", "live"),
                Query::new("sum(ringside_draining{%})", "draining"),
            ],
        },
        Panel {
            title: "Where pods stand on leaving",
            description: "Pods that have no reason to leave their Services, that want to and may not, and that are away.",
            look: Look::Stacked,
            unit: Unit::Count,
            width: 8,
            queries: &[Query::new(
                "sum by (state) (ringside_leave_state{%})",
                "{{state}}",
            )],
        },
        Panel {
            title: "Leaves and flips",
            description: "Wishes to leave for pressure a second, by what came of them, and changes of readiness.",
            look: Look::Lines,
            unit: Unit::PerSecond,
            width: 8,
            queries: &[
                Query::new(
                    "sum by (outcome) (rate(ringside_leaves_total{%}[$__rate_interval]))",
                    "{{outcome}}",
                ),
                Query::new(
                    "sum(rate(ringside_readiness_flips_total{%}[$__rate_interval]))",
                    "flips",
                ),
            ],
        },
    ],
};

pub(super) const LIMITS: Row = Row {
    title: "Limits",
    panels: &[
        Panel {
            title: "Use of limits",
            description: "The highest of any sidecar or worker, as a share of its limit.",
            look: Look::Lines,
            unit: Unit::Share,
            width: 12,
            queries: &[
                Query::new(
                    "max(sum without (worker) (ringside_connections_open{%}) / ringside_connections_limit{%})",
                    "connections",
                ),
                Query::new(
                    "max(ringside_operations_in_flight{%} / ringside_operations_budget{%})",
                    "operations in flight",
                ),
                Query::new(
                    "max(ringside_descriptors_open{%} / (ringside_descriptors_limit{%} - ringside_descriptors_reserve{%}))",
                    "descriptors",
                ),
                Query::new(
                    r#"max(sum without (state) (ringside_buffer_pool_bytes{%, state="pinned"}) / ringside_buffer_pool_limit_bytes{%})"#,
                    "buffers that are pinned",
                ),
                Query::new(
                    "max(ringside_pipes_held{%} / ringside_pipes_limit{%})",
                    "pipes",
                ),
            ],
        },
        Panel {
            title: "Buffer pools",
            description: "Memory of all receive pools, what of it cannot be filled, bytes that wait to be sent, and what the pools may grow to.",
            look: Look::Lines,
            unit: Unit::Bytes,
            width: 12,
            queries: &[
                Query::new(
                    "sum by (state) (ringside_buffer_pool_bytes{%})",
                    "{{state}}",
                ),
                Query::new("sum(ringside_queued_bytes{%})", "queued"),
                Query::new("sum(ringside_buffer_pool_limit_bytes{%})", "limit"),
            ],
        },
        Panel {
            title: "Accept pauses",
            description: "Times a second that accepting was paused, by reason, and workers that are paused now.",
            look: Look::Lines,
            unit: Unit::PerSecond,
            width: 8,
            queries: &[
                Query::new(
                    "sum by (reason) (rate(ringside_accept_pauses_total{%}[$__rate_interval]))",
                    "{{reason}}",
                ),
                Query::new("sum(ringside_accept_paused{%})", "workers paused now"),
            ],
        },
        Panel {
            title: "What was left out",
            description: "Receives a second that found no buffer, and lines that the logs lack.",
            look: Look::Lines,
            unit: Unit::PerSecond,
            width: 8,
            queries: &[
                Query::new(
                    "sum(rate(ringside_buffer_shortages_total{%}[$__rate_interval]))",
                    "receives without a buffer",
                ),
                Query::new(
                    "sum(rate(ringside_access_log_dropped_total{%}[$__rate_interval]))",
                    "access log lines",
                ),
                Query::new(
                    "sum(rate(ringside_log_lines_dropped_total{%}[$__rate_interval]))",
                    "log lines",
                ),
            ],
        },
        Panel {
            title: "Memory by pod",
            description: "Resident memory of sidecars, of the twenty largest.",
            look: Look::Lines,
            unit: Unit::Bytes,
            width: 8,
            queries: &[Query::new(
                "topk(20, process_resident_memory_bytes{%} and on (job, instance) ringside_build_info{%})",
                "{{pod}} {{instance}}",
            )],
        },
    ],
};

pub(super) const CONNECTIONS_BY_REASON: Row = Row {
    title: "Connections by reason",
    panels: &[
        Panel {
            title: "Ended by reason",
            description: "Connections ended a second; each has exactly one reason.",
            look: Look::Stacked,
            unit: Unit::PerSecond,
            width: 8,
            queries: &[Query::new(
                "sum by (reason) (rate(ringside_connections_closed_total{%}[$__rate_interval])) > 0",
                "{{reason}}",
            )],
        },
        Panel {
            title: "Not connected, by relay",
            description: "Connections ended a second because there was no connection to the target.",
            look: Look::Lines,
            unit: Unit::PerSecond,
            width: 8,
            queries: &[Query::new(
                r#"sum by (relay) (rate(ringside_connections_closed_total{%, reason=~"connect_.+|no_address|no_descriptor"}[$__rate_interval]))"#,
                "{{relay}}",
            )],
        },
        Panel {
            title: "Targets",
            description: "Sidecars whose relay listens, and whose target takes connections, by relay.",
            look: Look::Lines,
            unit: Unit::Count,
            width: 8,
            queries: &[
                Query::new(
                    "sum by (relay) (ringside_relay_listening{%})",
                    "{{relay}} listens",
                ),
                Query::new(
                    "sum by (relay) (ringside_target_reachable{%})",
                    "{{relay}} reachable",
                ),
            ],
        },
    ],
};
