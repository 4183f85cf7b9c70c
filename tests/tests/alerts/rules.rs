//! The rules as promtool judges them: their form, and each alert in a file of its own that says when it fires and when it does not.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use ringside_monitoring::rules::Rules;
use ringside_tests::processes::installed;
use ringside_tests::prometheus::{PROGRAMS, promtool};
use serde_json::Value;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests/prometheus")
}

/// The files of tests, by name.
fn files() -> Vec<String> {
    let found = fs::read_dir(folder().join("tests")).unwrap();
    let mut files: Vec<String> = found
        .map(|file| format!("tests/{}", file.unwrap().file_name().to_str().unwrap()))
        .collect();
    files.sort();
    files
}

#[test]
fn promtool_finds_nothing_wrong_with_the_rules() {
    if !installed(
        "rules::promtool_finds_nothing_wrong_with_the_rules",
        &PROGRAMS,
    ) {
        return;
    }
    let (is_good, said) = promtool(["check", "rules", "rules.yaml"], &folder(), "").unwrap();
    assert!(is_good, "{said}");
    let rules = Rules::shipped();
    let count = rules.alerts().count() + rules.records().count();
    assert!(
        said.contains(&format!("SUCCESS: {count} rules found")),
        "{said}"
    );
}

#[test]
fn each_alert_fires_when_it_should_and_only_then() {
    if !installed(
        "rules::each_alert_fires_when_it_should_and_only_then",
        &PROGRAMS,
    ) {
        return;
    }
    let files = files();
    let arguments = ["test", "rules"].map(str::to_owned).into_iter();
    let (is_good, said) = promtool(arguments.chain(files.clone()), &folder(), "").unwrap();
    assert!(is_good, "{said}");
    assert_eq!(said.matches("SUCCESS").count(), files.len(), "{said}");
}

/// promtool passes over what it is not asked about.
#[test]
fn each_alert_has_a_file_with_a_time_at_which_it_fires_and_one_at_which_it_does_not() {
    let (mut fires, mut rests) = (BTreeSet::new(), BTreeSet::new());
    for file in files() {
        let text = fs::read_to_string(folder().join(&file)).unwrap();
        let document: Value =
            serde_yaml::from_str(&text).unwrap_or_else(|error| panic!("{file}: {error}"));
        assert_eq!(document["rule_files"][0], "../rules.yaml", "{file}");
        let mut names = BTreeSet::new();
        for test in document["tests"].as_array().unwrap() {
            let asked = test["alert_rule_test"].as_array().unwrap();
            assert!(!asked.is_empty(), "{file}");
            let of = |alert: &Value| alert["alertname"].as_str().unwrap().to_owned();
            names.extend(asked.iter().map(of));
            let is_firing = |alert: &&Value| !alert["exp_alerts"].as_array().unwrap().is_empty();
            let fired: BTreeSet<String> = asked.iter().filter(is_firing).map(of).collect();
            if fired.is_empty() {
                // A whole story in which it never fires, and not only the time before it does.
                rests.extend(asked.iter().map(of));
            }
            fires.extend(fired);
        }
        assert_eq!(names.len(), 1, "{file} is about {names:?}");
    }
    let rules = Rules::shipped();
    let all: BTreeSet<String> = rules.alerts().map(|alert| alert.alert.clone()).collect();
    assert_eq!(fires, all, "alerts with a test in which they fire");
    assert_eq!(rests, all, "alerts with a test in which they do not");
}
