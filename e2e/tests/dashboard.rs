//! The dashboard, the rules and the runbooks beside what is really there: a real Prometheus scrapes real sidecars and a real controller at
//! a real API server, with traffic, a policy and pushback. Every metric that is named exists, and every query has an answer.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use ringside_e2e::await_that;
use ringside_e2e::definitions::installed;
use ringside_e2e::watched::{APP, SIDECARS, Watched, names};
use ringside_monitoring::expression::metrics;
use ringside_monitoring::panels;
use ringside_monitoring::rules::Rules;
use ringside_tests::processes;
use ringside_tests::prometheus::{PROGRAMS, promtool};

/// A range of many scrapes, and short enough that what was is soon gone.
const RATE_INTERVAL: &str = "20s";

#[test]
fn all_that_is_asked_of_prometheus_has_an_answer() {
    let test = "all_that_is_asked_of_prometheus_has_an_answer";
    if !processes::installed(test, &PROGRAMS) {
        return;
    }
    let Some(server) = installed(test) else {
        return;
    };
    let mut watched = Watched::start(server);

    // Two pods under pushback, of which one may leave.
    for (pods, pressed) in [("web-0", true), ("web-1", true)] {
        watched.fleet.press_some(pods, pressed);
    }
    let shop = watched.here.shop.name().to_owned();
    let counts = |state: &str| {
        let asked = format!("sum(ringside_leave_state{{namespace=\"{shop}\", state=\"{state}\"}})");
        let found = watched.prometheus.ask(&asked).unwrap();
        found.first().map(|series| series.points[0].1)
    };
    await_that("one pod to be away and one to be held back", || {
        counts("away") == Some(1.0) && counts("wants") == Some(1.0)
    });
    let held = format!(
        "ringside_controller_policy_condition{{policy_namespace=\"{shop}\", policy=\"{APP}\", condition=\"Degraded\"}} == 1"
    );
    await_that("the controller to say so", || {
        watched
            .prometheus
            .ask(&held)
            .is_ok_and(|found| found.len() == 1)
    });

    every_query_of_the_dashboard_has_data(&watched);
    let waiting = || watched.prometheus.rules_not_well();
    await_that("all rules to be evaluated", || waiting().is_empty());
    every_metric_that_is_named_exists(&watched.scrapes());
    promtool_finds_nothing(&watched.scrapes());

    watched.fleet.press(false);
    let shop = watched.here.shop.name().to_owned();
    let ready = format!("sum(ringside_ready{{namespace=\"{shop}\"}})");
    await_that("all pods to be back", || {
        let found = watched.prometheus.ask(&ready).unwrap();
        found.first().map(|series| series.points[0].1) == Some(SIDECARS as f64)
    });
}

fn every_query_of_the_dashboard_has_data(watched: &Watched<'_>) {
    let shop = watched.here.shop.name();
    let mut asked = 0;
    for panel in panels::all() {
        for query in panel.queries {
            // All of them, as the dashboard is opened, and one.
            for (namespace, pod) in [(".*", ".*"), (shop, "web-0")] {
                let expression = query.asked(namespace, pod, RATE_INTERVAL);
                watched
                    .prometheus
                    .await_that(&format!("{} to have data", panel.title), || {
                        let found = watched.prometheus.ask(&expression).unwrap_or_else(|error| {
                            panic!("{}: {error}: {expression}", panel.title)
                        });
                        // Named by labels that are there, in Grafana's way.
                        let labels = query.legend.split("{{").skip(1);
                        for label in labels.filter_map(|rest| rest.split("}}").next()) {
                            let has_it = found.iter().all(|one| one.labels.contains_key(label));
                            assert!(has_it, "{}: no label {label}", panel.title);
                        }
                        let values = found.iter().flat_map(|series| &series.points);
                        values.into_iter().any(|(_, value)| value.is_finite())
                    });
                asked += 1;
            }
        }
    }
    println!("{asked} queries of the dashboard were answered");
}

/// In rules, dashboard and runbooks.
fn every_metric_that_is_named_exists(scrapes: &[String]) {
    let (controller, sidecars) = scrapes.split_last().unwrap();
    let of_sidecars: BTreeSet<&str> = sidecars.iter().flat_map(|scrape| names(scrape)).collect();
    let of_controller = names(controller);
    let both: Vec<_> = of_sidecars.intersection(&of_controller).collect();
    assert!(
        both.is_empty(),
        "of sidecars and of the controller: {both:?}"
    );

    let rules = Rules::shipped();
    let recorded: BTreeSet<&str> = rules.records().map(|rule| rule.record.as_str()).collect();
    let exists = |name: &str| {
        of_sidecars.contains(name) || of_controller.contains(name) || recorded.contains(name)
    };
    let groups = rules.groups.iter().flat_map(|group| &group.rules);
    let of_rules = groups.map(|rule| rule.expr().to_owned());
    let queries = panels::all().flat_map(|panel| panel.queries);
    let of_panels = queries.map(|query| query.expr());
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/alerts.md");
    let runbooks = fs::read_to_string(path).unwrap();
    // Between two back quotes.
    let quoted = runbooks.split('`').skip(1).step_by(2).map(str::to_owned);
    let mut seen = BTreeSet::new();
    for text in of_rules.chain(of_panels).chain(quoted) {
        for name in metrics(&text) {
            assert!(exists(name), "there is no metric {name}, of {text}");
            seen.insert(name.to_owned());
        }
    }
    println!("{} metrics are asked for", seen.len());
    assert!(seen.len() > 50);
}

fn promtool_finds_nothing(scrapes: &[String]) {
    for scrape in scrapes {
        let (is_good, said) = promtool(["check", "metrics"], Path::new("/"), scrape).unwrap();
        assert!(is_good && said.is_empty(), "{said}");
    }
}
