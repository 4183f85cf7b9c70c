//! `docs/tuning.md`: its tables are the ones that `make tuning` measures, what they tell people to look at is there, and no setting is left out. The
//! figures themselves are a measurement's, and not judged.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use ringside_api::Settings;
use ringside_monitoring::rules::Rules;
use ringside_tests::namespaced;
use ringside_tests::relay::{Kind, Setup};
use ringside_tests::traffic::{Server, echo};
use ringside_tests::tuning::{AREAS, Row, rows};

fn document() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/tuning.md");
    fs::read_to_string(path).unwrap()
}

/// The cells of the rows of the first table below a heading, without its head.
fn table(text: &str, heading: &str) -> Vec<Vec<String>> {
    let begin = format!("\n## {heading}\n");
    let (_, rest) = text
        .split_once(&begin)
        .unwrap_or_else(|| panic!("no {begin:?}"));
    let lines = rest.lines().skip_while(|line| !line.starts_with('|'));
    lines
        .take_while(|line| line.starts_with('|'))
        .skip(2)
        .map(|line| {
            let line = line.trim_start_matches("| ").trim_end_matches(" |");
            line.split(" | ")
                .map(|cell| cell.trim().to_owned())
                .collect()
        })
        .collect()
}

#[test]
fn the_tables_are_the_ones_that_are_measured() {
    let text = document();
    for area in AREAS {
        let found = table(&text, area.name);
        let expected = rows(area);
        assert_eq!(found.len(), expected.len(), "rows of {}", area.name);
        for (cells, row) in found.iter().zip(expected) {
            assert_eq!(cells.len(), 7, "{cells:?}");
            let told = Row {
                symptom: cells[0].clone(),
                look: cells[1].clone(),
                settings: cells[2].clone(),
                figure: cells[3].clone(),
            };
            assert_eq!(told, row);
            let is_figure = |cell: &String| cell.starts_with(|first: char| first.is_ascii_digit());
            assert!(cells[4..6].iter().all(is_figure), "no figures in {cells:?}");
            assert!(cells[6] == "-" || cells[6].starts_with("**x"), "{cells:?}");
        }
    }
}

#[test]
fn no_setting_is_left_out() {
    let text = document();
    for (field, _) in Settings::default().fields() {
        let (group, name) = field.split_once('.').unwrap();
        assert!(
            text.contains(&format!("{group}.{name}"))
                || text.contains(&format!("{group}: {{{name}:")),
            "nothing is said of {field}"
        );
    }
}

/// The words of a text that begin so.
fn words<'t>(text: &'t str, prefix: &str) -> BTreeSet<&'t str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(|word| word.starts_with(prefix) && word.len() > prefix.len())
        .collect()
}

namespaced!(what_is_to_be_looked_at_is_there, {
    let text = document();
    let rules = Rules::shipped();
    let alerts: BTreeSet<&str> = rules.alerts().map(|alert| alert.alert.as_str()).collect();
    let named = words(&text, "Ringside");
    assert!(named.len() > 8, "{named:?}");
    for alert in named {
        assert!(alerts.contains(alert), "there is no alert {alert}");
    }
    let server = Server::local(echo);
    let relay = Setup::new(Kind::Ring).to(&server).start();
    let scrape = relay.admin("GET", "/metrics").unwrap().body;
    let named = words(&text, "ringside_");
    assert!(named.len() > 15, "{named:?}");
    for metric in named {
        let line = format!("# TYPE {metric} ");
        assert!(scrape.contains(&line), "there is no metric {metric}");
    }
});
