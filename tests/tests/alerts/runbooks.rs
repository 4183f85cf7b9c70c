//! docs/alerts.md: a heading for each alert, in the rules' order, with all that somebody who is woken needs.

use std::fs;
use std::path::Path;

use ringside_monitoring::rules::Rules;

/// What stands below each heading, in bold.
const PARTS: [&str; 4] = ["Meaning.", "Users notice", "Look:", "Do:"];

fn runbooks() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/alerts.md");
    fs::read_to_string(path).unwrap()
}

#[test]
fn each_alert_has_a_runbook_and_each_runbook_an_alert() {
    let text = runbooks();
    let headings: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("## "))
        .filter(|heading| heading.starts_with("Ringside"))
        .collect();
    let rules = Rules::shipped();
    let alerts: Vec<&str> = rules.alerts().map(|alert| alert.alert.as_str()).collect();
    assert_eq!(headings, alerts);
    for part in text.split("\n## Ringside").skip(1) {
        for wanted in PARTS {
            assert!(
                part.contains(&format!("**{wanted}")),
                "no {wanted} in {part}"
            );
        }
    }
}

/// The tables of what each severity means and of all alerts.
#[test]
fn each_alert_is_in_the_table_with_its_severity_and_its_wait() {
    let text = runbooks();
    for alert in Rules::shipped().alerts() {
        let (name, severity, wait) = (&alert.alert, &alert.labels["severity"], &alert.wait);
        let row = format!(
            "| [{name}](#{}) | {severity} | {wait} |",
            name.to_lowercase()
        );
        assert!(text.contains(&row), "no row {row}");
    }
}
