//! The words of the README and of `docs/configuration.md`: documents are read by the real parser, commands are run, figures are those that were measured.

use std::collections::BTreeMap;
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
            let folder = if file.starts_with("sidecar/") || file.starts_with("e2e/") {
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

/// The README's commands, and who runs each.
const COMMANDS: [(&str, &str); 5] = [
    ("make demo", "the_demo_loses_nothing, below"),
    ("make test", "whoever reads this"),
    (
        "helm install ringside charts/ringside",
        "e2e/tests/quick_start.rs",
    ),
    ("kubectl patch deployment NAME", "e2e/tests/quick_start.rs"),
    (
        "ringside relay --relay",
        "the_first_command_line_is_understood, below",
    ),
];

#[test]
fn each_command_is_run_by_a_test() {
    let shown = document::commands(&readme());
    let commands: Vec<&str> = shown.iter().map(|shown| shown.command.as_str()).collect();
    assert_eq!(commands.len(), COMMANDS.len(), "{commands:?}");
    for (command, (begin, runs)) in commands.iter().zip(COMMANDS) {
        assert!(command.starts_with(begin), "`{command}` is not `{begin}`");
        let file = runs.split(',').next().unwrap();
        let file = document::root().join(file);
        assert!(file.extension().is_none() || file.is_file(), "{runs}");
    }
}

/// Rows of tables, by their first cell.
fn rows(text: &str) -> BTreeMap<&str, &str> {
    let rows = text
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.split_once(" | "));
    rows.map(|(name, figures)| (name.trim(), figures)).collect()
}

/// A figure that stands in the README and was measured anew in `docs/performance.md` would be an old one.
#[test]
fn the_figures_are_those_of_the_document_about_them() {
    let (readme, performance) = (readme(), document::read("docs/performance.md"));
    // The first of its tables has the costs.
    let costs = performance.split("What came through").next().unwrap();
    let measured = rows(costs);
    let begin = readme.find("## How fast").expect("a table of figures");
    let table = &readme[begin..];
    let table = &table[..table.find("## Documents").expect("links after it")];
    let mut seen = 0;
    for (name, figures) in rows(table)
        .into_iter()
        .filter(|(name, _)| !name.starts_with('|'))
    {
        let row = measured
            .get(name)
            .unwrap_or_else(|| panic!("nobody measured {name:?}"));
        let cells: Vec<&str> = row.split(" | ").map(str::trim).collect();
        let told: Vec<&str> = figures.trim_end_matches(" |").split(" | ").collect();
        assert!(
            cells[0].starts_with(&format!("{} ", told[0])),
            "{name}: {told:?}, measured {cells:?}"
        );
        let ring = format!("{} {} ", told[1], told[2]);
        assert!(
            cells[1].starts_with(&ring),
            "{name}: {told:?}, measured {cells:?}"
        );
        seen += 1;
    }
    assert!(seen > 5, "{seen} figures");
}

/// The files that a document for contributors sends its readers to.
#[test]
fn what_the_architecture_names_is_there() {
    let text = document::read("docs/architecture.md");
    let paths = text.split('`').skip(1).step_by(2);
    let paths: Vec<&str> = paths
        .filter(|text| text.contains('/') && !text.contains(' '))
        .collect();
    assert!(paths.len() > 20, "{paths:?}");
    for path in paths {
        assert!(document::root().join(path).exists(), "there is no {path}");
    }
}

/// The fenced blocks of YAML about configuration.
fn yaml() -> Vec<String> {
    document::blocks(&document::read("docs/configuration.md"), "yaml")
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
    let yaml = &yaml()[0];
    let config = Config::from_yaml(yaml).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(config.relays.len(), 3);
}

#[test]
fn the_settings_that_are_called_defaults_are_the_defaults() {
    let settings = &yaml()[1];
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
    for path in ["README.md", "docs/configuration.md"] {
        let shown = document::commands(&document::read(path));
        let mut commands = shown.iter().map(|shown| &shown.command);
        let line = commands
            .find(|line| line.starts_with("ringside relay --relay"))
            .unwrap();
        let words: Vec<&str> = line.split_whitespace().collect();
        let relay: ringside_api::Relay = words[3].parse().unwrap();
        assert_eq!((relay.name.as_str(), relay.listen.0.port()), ("web", 15080));
    }
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
