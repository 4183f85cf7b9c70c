//! Dependencies, by what cargo itself knows of them: licences, duplicate versions, sources. The rules are `deny.toml`'s;
//! `make deny` has cargo-deny check the same and known vulnerabilities, where it can be installed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use ringside_tests::skip::skip;
use serde_json::Value;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The strings of a list of `deny.toml`.
fn listed(name: &str) -> Vec<String> {
    let text = fs::read_to_string(root().join("deny.toml")).unwrap();
    let begin = text
        .find(&format!("\n{name} = [\n"))
        .expect("the list is there");
    let list = text[begin..].lines().skip(2);
    let entries = list.take_while(|line| *line != "]");
    let strings = entries.filter_map(|line| line.trim().strip_prefix('"')?.split('"').next());
    strings.map(str::to_owned).collect()
}

/// What the workspace is built of on Linux.
fn packages(test: &str) -> Vec<Value> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--locked", "--offline"])
        .args([
            "--filter-platform=x86_64-unknown-linux-gnu",
            "--manifest-path",
        ])
        .arg(root().join("Cargo.toml"))
        .output()
        .unwrap();
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        skip(
            test,
            &format!("cargo metadata: {}", said.trim().replace('\n', " ")),
        );
        return Vec::new();
    }
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    metadata["packages"].as_array().unwrap().clone()
}

fn name(package: &Value) -> String {
    format!(
        "{} {}",
        package["name"].as_str().unwrap(),
        package["version"].as_str().unwrap()
    )
}

/// Whether a licence expression can be met by what is `allowed`. `AND` binds more than `OR`; old crates write `/` for it.
fn is_met(expression: &str, allowed: &[String]) -> bool {
    let expression = expression
        .replace('/', " OR ")
        .replace('(', " ( ")
        .replace(')', " ) ");
    let words: Vec<&str> = expression.split_whitespace().collect();
    let (met, rest) = any(&words, allowed);
    assert!(rest.is_empty(), "`{expression}` is no licence expression");
    met
}

fn any<'w>(words: &'w [&'w str], allowed: &[String]) -> (bool, &'w [&'w str]) {
    let (mut met, mut rest) = all(words, allowed);
    while let ["OR", more @ ..] = rest {
        let (other, left) = all(more, allowed);
        (met, rest) = (met | other, left);
    }
    (met, rest)
}

fn all<'w>(words: &'w [&'w str], allowed: &[String]) -> (bool, &'w [&'w str]) {
    let (mut met, mut rest) = one(words, allowed);
    while let ["AND", more @ ..] = rest {
        let (other, left) = one(more, allowed);
        (met, rest) = (met & other, left);
    }
    (met, rest)
}

fn one<'w>(words: &'w [&'w str], allowed: &[String]) -> (bool, &'w [&'w str]) {
    match words {
        ["(", inner @ ..] => {
            let (met, rest) = any(inner, allowed);
            assert_eq!(rest.first(), Some(&")"), "a bracket is not closed");
            (met, &rest[1..])
        }
        // An exception only ever allows more.
        [id, "WITH", _, rest @ ..] | [id, rest @ ..] => {
            (allowed.iter().any(|known| known == id), rest)
        }
        [] => (false, words),
    }
}

#[test]
fn licence_expressions_are_understood() {
    let allowed = ["MIT".to_owned(), "ISC".to_owned()];
    for met in [
        "MIT",
        "GPL-3.0 OR MIT",
        "GPL-3.0/MIT",
        "MIT AND ISC",
        "(GPL-3.0 OR MIT) AND ISC",
        "MIT WITH x",
    ] {
        assert!(is_met(met, &allowed), "{met}");
    }
    for unmet in [
        "",
        "GPL-3.0",
        "MIT AND GPL-3.0",
        "(MIT OR ISC) AND GPL-3.0",
        "GPL-3.0 WITH x OR BSD",
    ] {
        assert!(!is_met(unmet, &allowed), "{unmet}");
    }
}

#[test]
fn every_licence_is_allowed() {
    let allowed = listed("allow");
    let mut used = BTreeSet::new();
    for package in packages("every_licence_is_allowed") {
        let licence = package["license"].as_str().unwrap_or_default();
        assert!(
            is_met(licence, &allowed),
            "{}: licence `{licence}`",
            name(&package)
        );
        used.extend(allowed.iter().filter(|id| licence.contains(*id)).cloned());
    }
    if !used.is_empty() {
        let all: BTreeSet<String> = allowed.into_iter().collect();
        assert_eq!(used, all, "deny.toml allows a licence that nothing has");
    }
}

#[test]
fn no_dependency_comes_in_two_versions() {
    let excepted: Vec<String> = listed("skip");
    let mut versions: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for package in packages("no_dependency_comes_in_two_versions") {
        let (name, version) = (&package["name"], package["version"].as_str().unwrap());
        let name = name.as_str().unwrap().to_owned();
        let is_excepted = excepted.iter().any(|skipped| {
            let (skipped, begin) = skipped.split_once('@').unwrap();
            skipped == name && version.starts_with(&format!("{begin}."))
        });
        if !is_excepted {
            versions.entry(name).or_default().insert(version.to_owned());
        }
    }
    versions.retain(|_, versions| versions.len() > 1);
    assert!(versions.is_empty(), "twice: {versions:?}");
}

#[test]
fn every_dependency_comes_from_the_registry_and_is_pinned() {
    let mut registries = BTreeSet::new();
    for package in packages("every_dependency_comes_from_the_registry_and_is_pinned") {
        // Without a source it is a part of this workspace.
        if let Some(source) = package["source"].as_str() {
            assert!(
                source.starts_with("registry+"),
                "{} comes from {source}",
                name(&package)
            );
            registries.insert(source.to_owned());
        } else {
            let path = package["manifest_path"].as_str().unwrap();
            let root = root().canonicalize().unwrap();
            assert!(Path::new(path).starts_with(root), "{path}");
        }
    }
    assert_eq!(registries.len(), 1, "more than cargo's own: {registries:?}");
    let lock = fs::read_to_string(root().join("Cargo.lock")).unwrap();
    let from_registry = lock.matches("\nsource = ").count();
    assert_eq!(
        lock.matches("\nchecksum = ").count(),
        from_registry,
        "one without a checksum"
    );
}
