//! The README's own words: its documents are read by the real parser, its commands are run.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use ringside_api::{Config, Settings};
use ringside_tests::document;
use ringside_tests::skip::{build_folder, skip};

/// The tests that `docs/reliability.md` names are there: each table's last cell is a list of "`FILE`: `TEST`, `TEST`; ...".
#[test]
fn the_tests_that_are_called_proof_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let text = fs::read_to_string(root.join("docs/reliability.md")).unwrap();
    let rows = text
        .lines()
        .filter(|line| line.starts_with("| ") && !line.ends_with("| test |"));
    let mut seen = 0;
    for row in rows {
        let cell = row.trim_end_matches([' ', '|']).rsplit('|').next().unwrap();
        for part in cell.split("; ") {
            let (file, names) = part
                .split_once(": ")
                .unwrap_or_else(|| panic!("no file and tests in {row}"));
            let file = file.trim().trim_matches('`');
            let folder = if file.starts_with("sidecar/") {
                ""
            } else {
                "tests/tests"
            };
            let source = fs::read_to_string(root.join(folder).join(file))
                .unwrap_or_else(|error| panic!("{file}: {error}"));
            let dense: String = source.split_whitespace().collect();
            for name in names.split(", ") {
                let name = name.trim().trim_matches('`');
                assert!(
                    source.contains(&format!("fn {name}("))
                        || dense.contains(&format!("namespaced!({name},")),
                    "there is no test {name} in {file}"
                );
                seen += 1;
            }
        }
    }
    assert!(seen > 80, "{seen} tests were named");
}

fn readme() -> String {
    document::read("README.md")
}

#[test]
fn every_document_is_named_and_every_named_one_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let text = readme();
    let mut named: Vec<String> = text
        .split("docs/")
        .skip(1)
        .filter_map(|rest| Some(rest.split_once(".md")?.0.to_owned() + ".md"))
        .filter(|name| {
            name.bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(&byte))
        })
        .collect();
    named.sort_unstable();
    named.dedup();
    let mut there: Vec<String> = fs::read_dir(root.join("docs"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".md"))
        .collect();
    there.sort_unstable();
    assert_eq!(named, there);
}

/// The README's fenced blocks of one language.
fn blocks(language: &str) -> Vec<String> {
    document::blocks(&readme(), language)
}

fn ringside(arguments: &[&str]) -> Output {
    let program = build_folder().join("ringside");
    assert!(
        program.exists(),
        "there is no {}: run `make test`",
        program.display()
    );
    Command::new(program).args(arguments).output().unwrap()
}

#[test]
fn the_example_of_a_configuration_is_one() {
    let yaml = &blocks("yaml")[0];
    let config = Config::from_yaml(yaml).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(config.relays.len(), 3);
}

#[test]
fn the_settings_that_are_called_defaults_are_the_defaults() {
    let settings = &blocks("yaml")[1];
    let indented: String = settings.lines().map(|line| format!("  {line}\n")).collect();
    let yaml = format!(
        "relays:\n  - {{name: web, listen: \"127.0.0.1:1\", target: \"127.0.0.1:2\"}}\nsettings:\n{indented}"
    );
    let config = Config::from_yaml(&yaml).unwrap_or_else(|error| panic!("{error}"));
    let told = config.resolve_settings().unwrap().settings;
    assert_eq!(told, Settings::default());
    // None is left out.
    let named = Settings::default().fields().len();
    assert_eq!(
        settings.matches(": ").count(),
        named + 9,
        "fields and groups"
    );
}

#[test]
fn the_first_command_line_is_understood() {
    let line = blocks("sh")
        .into_iter()
        .find(|block| block.starts_with("ringside relay --relay"))
        .unwrap();
    let words: Vec<&str> = line.split_whitespace().collect();
    let relay: ringside_api::Relay = words[3].parse().unwrap();
    assert_eq!((relay.name.as_str(), relay.listen.0.port()), ("web", 15080));
}

#[test]
fn check_tells_what_is_allowed_here() {
    let output = ringside(&["check"]);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{output:?}");
    assert!(said.contains("io_uring"), "{said}");
}

#[test]
fn the_demo_loses_nothing() {
    let output = ringside(&["demo"]);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{output:?}");
    assert!(!said.contains('\x1b'), "colours in a pipe: {said}");
    let lost = said.lines().find(|line| line.trim().starts_with("lost"));
    assert_eq!(
        lost.and_then(|line| line.split_whitespace().last()),
        Some("0")
    );
    if said.contains("the fault is left out") {
        return skip(
            "the_demo_loses_nothing",
            "its fault cannot be injected here",
        );
    }
    for part in [
        "NO worker 0 under sustained pushback",
        "paused",
        "ready again after",
    ] {
        assert!(said.contains(part), "no `{part}` in {said}");
    }
}
