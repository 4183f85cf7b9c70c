//! The commands of all documents: who runs each is written here, so that none comes in that nobody runs; and those of our own programs are read by these
//! programs, whoever runs them.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use ringside_tests::document::{self, Shown};
use ringside_tests::skip::build_folder;

/// Minutes, or a machine's peace: measured by hand, and the document has what came of it.
const BY_HAND: &str = "by hand: it is how the document's figures are made";

/// Each document with commands: how many, and the tests that run them, or why there is none.
const DOCUMENTS: [(&str, usize, &str); 13] = [
    (
        "docs/alerts.md",
        5,
        "`e2e/tests/quick_start.rs`, save what forwards ports, which needs a kubelet",
    ),
    (
        "docs/configuration.md",
        2,
        "`readme.rs` reads both; every other test starts a relay by a file",
    ),
    ("docs/debugging.md", 14, "`debugging.rs`"),
    ("docs/interception.md", 4, "`interception/`"),
    ("docs/performance.md", 2, BY_HAND),
    (
        "docs/quick-start.md",
        35,
        "`e2e/tests/quick_start.rs`, which lists what it leaves out",
    ),
    (
        "docs/simulation.md",
        3,
        "`sidecar/src/simulation/tests.rs` and `make test`",
    ),
    ("docs/sync.md", 1, "`sync/` starts sidecars by these flags"),
    ("docs/tuning.md", 2, BY_HAND),
    ("docs/upgrade.md", 3, "`e2e/tests/quick_start.rs`"),
    (
        "docs/watching.md",
        9,
        "`top.rs`, `e2e/tests/plugin.rs`, `command_line.rs`",
    ),
    ("CONTRIBUTING.md", 0, "none"),
    ("README.md", 5, "`readme.rs`, which lists them"),
];

#[test]
fn every_document_with_commands_is_on_the_list() {
    let listed: BTreeSet<&str> = DOCUMENTS.iter().map(|(path, ..)| *path).collect();
    let folder = fs::read_dir(document::root().join("docs")).unwrap();
    let documents = folder.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    for name in documents.filter(|name| name.ends_with(".md")) {
        let path = format!("docs/{name}");
        let has_commands = !document::commands(&document::read(&path)).is_empty();
        assert_eq!(has_commands, listed.contains(path.as_str()), "{path}");
    }
    for (path, count, runs) in DOCUMENTS {
        let shown = document::commands(&document::read(path));
        assert_eq!(
            shown.len(),
            count,
            "commands of {path}, which {runs} runs: {shown:?}"
        );
    }
}

/// All commands, without comments at their end and without what sends them to the background.
fn all() -> Vec<(&'static str, String)> {
    let of = |path: &'static str| {
        let shown = document::commands(&document::read(path));
        let plain = |shown: Shown| {
            let command = shown.command.split(" #").next().unwrap_or_default();
            command.trim().trim_end_matches('&').trim().to_owned()
        };
        shown.into_iter().map(move |shown| (path, plain(shown)))
    };
    DOCUMENTS.iter().flat_map(|(path, ..)| of(path)).collect()
}

/// Asked for help as well, a program reads all words before that and does nothing else: an unknown flag or a wrong value is told.
#[test]
fn our_own_programs_know_every_word() {
    let folder = build_folder();
    let plugin = document::root().join("plugin/kubectl-ringside");
    let path = std::env::var("PATH").unwrap_or_default();
    let path = format!("{}:{path}", folder.display());
    let mut seen = 0;
    for (document, command) in all() {
        let command = if let Some(rest) = command.strip_prefix("kubectl ringside ") {
            format!("{} {rest} --help", plugin.display())
        } else if let Some(inner) = command.strip_prefix("source <(") {
            format!("{} --help", inner.trim_end_matches(')'))
        } else if command.starts_with("ringside ") {
            format!("{command} --help")
        } else {
            continue;
        };
        let output = Command::new("bash")
            .args(["-c", &command])
            .env("PATH", &path)
            .output()
            .unwrap();
        assert!(output.status.success(), "{document}: {command}: {output:?}");
        seen += 1;
    }
    assert!(seen > 12, "{seen} commands");
}

#[test]
fn every_target_of_make_is_there() {
    let makefile = document::read("Makefile");
    let mut seen = BTreeSet::new();
    for (document, command) in all() {
        let Some(target) = command.strip_prefix("make ") else {
            continue;
        };
        let target = target.split_whitespace().next().unwrap();
        // Of a tree without images nobody can make any.
        if target == "images" && !document::root().join("images").exists() {
            continue;
        }
        let rule = format!("\n{target}:");
        assert!(makefile.contains(&rule), "{document}: make {target}");
        seen.insert(target.to_owned());
    }
    assert!(seen.len() > 5, "{seen:?}");
}
