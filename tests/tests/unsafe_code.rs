//! Where unsafe code is: in the relay only where it meets the kernel, elsewhere only in what tests and measures; and with
//! its reason, each time.

use std::fs;
use std::path::{Path, PathBuf};

/// Folders and files of the relay and what it shares that may hold unsafe code. Nothing else of them may.
const ALLOWED: [&str; 1] = ["sidecar/src/backend"];

/// What tests and measures may, file by file, where it says so itself.
const MAY_LIFT: [&str; 2] = ["tests", "bench"];

/// What the programs are made of.
const CHECKED: [&str; 6] = ["api", "sidecar", "controller", "tests", "bench", "e2e"];

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() && !path.ends_with("target") {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// A file's lines of code: without comments and without what stands in strings on one line.
fn code(text: &str) -> Vec<(usize, String)> {
    let mut lines = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let mut kept = String::new();
        let mut in_string = false;
        let mut before = ' ';
        for character in line.chars() {
            if character == '"' && before != '\\' {
                in_string = !in_string;
            } else if !in_string {
                if character == '/' && before == '/' {
                    break;
                }
                kept.push(character);
            }
            before = character;
        }
        lines.push((number, kept));
    }
    lines
}

fn has_word(line: &str, word: &str) -> bool {
    let is_part = |character: char| character.is_alphanumeric() || character == '_';
    line.match_indices(word).any(|(at, _)| {
        !line[..at].ends_with(is_part) && !line[at + word.len()..].starts_with(is_part)
    })
}

#[test]
fn unsafe_code_is_only_where_it_may_be_and_says_why() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut files = Vec::new();
    for folder in CHECKED {
        sources(&root.join(folder), &mut files);
    }
    assert!(files.len() > 100, "only {} files were found", files.len());
    let (mut blocks, mut wrong) = (0, Vec::new());
    for path in files {
        let text = fs::read_to_string(&path).unwrap();
        let name = path.strip_prefix(&root).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        let allowed = ALLOWED.iter().any(|folder| name.starts_with(folder));
        let may_lift = MAY_LIFT.iter().any(|folder| name.starts_with(folder));
        for (number, line) in code(&text) {
            let lifts = line.contains("(unsafe_code)") && line.contains("#");
            if lifts && !allowed && !may_lift {
                wrong.push(format!("{}:{}: lifts the lint", name.display(), number + 1));
            }
            if !has_word(&line, "unsafe") {
                continue;
            }
            blocks += 1;
            let lifted = may_lift && text.contains("#![allow(unsafe_code)]");
            if !allowed && !lifted {
                wrong.push(format!("{}:{}: unsafe code", name.display(), number + 1));
            }
            // Just above, or above the statement that it is a part of.
            let mut above = lines[number.saturating_sub(8)..=number].iter();
            if !above.any(|line| line.contains("SAFETY:") || line.contains("# Safety")) {
                wrong.push(format!("{}:{}: no reason", name.display(), number + 1));
            }
        }
    }
    assert!(
        blocks > 20,
        "only {blocks} were found: this test looks at the wrong place"
    );
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
