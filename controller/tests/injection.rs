//! `ringside-controller inject` on every manifest of `injection/`, against what it is known to answer.
//!
//! For each: nothing of it is lost or changed, a second time changes nothing, and what is added and warned of is in `injection/golden/`, which
//! `RINGSIDE_GOLDEN=write cargo test -p ringside-controller --test injection` writes anew. A sidecar is shown by what differs from the one of
//! `plain.yaml`, or without a controller of `standalone.yaml`; those are shown whole. A manifest's second line may hold flags.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::Deserialize;
use serde_json::{Map, Value, json};

/// As many as there must be at least: a folder that is not found would pass otherwise.
const FIXTURES_LEAST: usize = 60;

/// The longest warning that an API server shows whole.
const WARNING_BYTES_MOST: usize = 256;

const STAMPS: [&str; 3] = [
    "ringside.dev/injected",
    "ringside.dev/settings",
    "ringside.dev/controller-ca",
];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/injection")
}

/// The program, with a certificate to trust.
struct Program {
    ca: tempfile::NamedTempFile,
}

impl Program {
    fn new() -> Self {
        let mut ca = tempfile::NamedTempFile::new().unwrap();
        ca.write_all(b"-----BEGIN CERTIFICATE-----\n").unwrap();
        Self { ca }
    }

    /// What it writes to standard output and to standard error.
    fn inject(&self, manifest: &str, flags: &[&str]) -> Result<(String, String), String> {
        let ca = self.ca.path().to_str().unwrap();
        let flags = flags
            .iter()
            .map(|flag| if *flag == "CA" { ca } else { flag });
        let mut child = Command::new(env!("CARGO_BIN_EXE_ringside-controller"))
            .args(["inject", "-f", "-", "--image", "ringside:test"])
            .args(flags)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // It reads all before it writes.
        child
            .stdin
            .take()
            .unwrap()
            .write_all(manifest.as_bytes())
            .unwrap();
        let output = child.wait_with_output().unwrap();
        let [out, err] =
            [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
        if output.status.success() {
            Ok((out, err))
        } else {
            Err(err)
        }
    }
}

/// The documents of a manifest as Kubernetes takes them.
fn documents(text: &str) -> Vec<Value> {
    let documents = serde_yaml::Deserializer::from_str(text);
    let read = documents.map(|document| {
        let mut value = serde_yaml::Value::deserialize(document).unwrap();
        value.apply_merge().unwrap();
        serde_json::to_value(value).unwrap()
    });
    read.filter(|document| !document.is_null()).collect()
}

/// What was added; an error says what was lost or changed, and where.
fn added(before: &Value, after: &Value, at: &str) -> Result<Option<Value>, String> {
    let lost = || Err(format!("{at} was {before} and is {after}"));
    match (before, after) {
        (before, after) if before == after => Ok(None),
        (Value::Null, after) => Ok(Some(after.clone())),
        (Value::Object(old), Value::Object(new)) => {
            let mut found = Map::new();
            for (key, value) in new {
                let at = format!("{at}/{key}");
                let what = match old.get(key) {
                    Some(_) if STAMPS.contains(&key.as_str()) => Some(value.clone()),
                    Some(old) => added(old, value, &at)?,
                    None => Some(value.clone()),
                };
                found.extend(what.map(|what| (key.clone(), what)));
            }
            if let Some(key) = old.keys().find(|key| !new.contains_key(*key)) {
                return Err(format!("{at}/{key} is gone"));
            }
            Ok(Some(Value::Object(found)).filter(|found| *found != json!({})))
        }
        (Value::Array(old), Value::Array(new)) => {
            let mut found = Map::new();
            let mut old = old.iter().peekable();
            for (index, value) in new.iter().enumerate() {
                let within = old
                    .peek()
                    .map(|old| added(old, value, &format!("{at}/{index}")));
                match within {
                    Some(Ok(what)) => {
                        old.next();
                        found.extend(what.map(|what| (format!("{index}"), what)));
                    }
                    _ => drop(found.insert(format!("{index} (new)"), value.clone())),
                }
            }
            if old.next().is_some() {
                return lost();
            }
            Ok(Some(Value::Object(found)).filter(|found| *found != json!({})))
        }
        // kubectl reads it as octal.
        (Value::String(mode), Value::Number(number)) if at.to_lowercase().ends_with("mode") => {
            let same = i64::from_str_radix(mode, 8).ok() == number.as_i64();
            if same { Ok(None) } else { lost() }
        }
        _ => lost(),
    }
}

/// A list whose members have names, as an object.
fn by_name(list: &Value) -> Value {
    let members = list.as_array().into_iter().flatten();
    members
        .map(|member| {
            let mut fields = member.as_object().unwrap().clone();
            let name = fields.remove("name").unwrap();
            (name.as_str().unwrap().to_owned(), Value::Object(fields))
        })
        .collect::<Map<_, _>>()
        .into()
}

fn keyed(container: &Value) -> Value {
    let mut keyed = container.clone();
    for field in ["env", "ports", "volumeMounts"] {
        keyed[field] = by_name(&container[field]);
    }
    keyed
}

/// What of `other` differs from `base`; what is missing is null.
fn difference(base: &Value, other: &Value) -> Option<Value> {
    match (base, other) {
        (base, other) if base == other => None,
        (Value::Object(base), Value::Object(other)) => {
            let keys: BTreeSet<&String> = base.keys().chain(other.keys()).collect();
            let nothing = Value::Null;
            let of =
                |map: &'_ Map<String, Value>, key: &str| map.get(key).unwrap_or(&nothing).clone();
            let differences = keys.into_iter().filter_map(|key| {
                Some((key.clone(), difference(&of(base, key), &of(other, key))?))
            });
            Some(Value::Object(differences.collect()))
        }
        _ => Some(other.clone()),
    }
}

/// The sidecars that others are compared with.
struct Known {
    /// With a controller.
    plain: Value,
    /// Without one.
    standalone: Value,
}

impl Known {
    fn new(program: &Program) -> Self {
        let injected = |name: &str| {
            let manifest = fs::read_to_string(folder().join(name)).unwrap();
            let (injected, _) = program.inject(&manifest, &flags(&manifest)).unwrap();
            documents(&injected).remove(0)
        };
        Self {
            plain: injected("plain.yaml"),
            standalone: injected("standalone.yaml"),
        }
    }

    /// Additions in which each sidecar and volume is shown by what differs.
    fn shortened(&self, value: &Value) -> Value {
        let volumes = self.plain["spec"]["volumes"].as_array().unwrap();
        match value {
            Value::Object(fields)
                if fields.get("name") == Some(&json!("ringside")) && fields.contains_key("env") =>
            {
                let has_controller = by_name(&fields["env"]).get("RINGSIDE_CONTROLLER").is_some();
                let (base, name) = if has_controller {
                    (&self.plain, "plain.yaml")
                } else {
                    (&self.standalone, "standalone.yaml")
                };
                let base = &base["spec"]["initContainers"][0];
                match difference(&keyed(base), &keyed(value)) {
                    None => json!(format!("the sidecar of {name}")),
                    Some(differs) => json!({format!("the sidecar of {name}, but for"): differs}),
                }
            }
            Value::Object(_) if volumes.contains(value) => {
                json!(format!("{} of plain.yaml", value["name"].as_str().unwrap()))
            }
            Value::Object(fields) => {
                let short = |(key, value): (&String, &Value)| (key.clone(), self.shortened(value));
                Value::Object(fields.iter().map(short).collect())
            }
            Value::Array(members) => members
                .iter()
                .map(|member| self.shortened(member))
                .collect(),
            _ => value.clone(),
        }
    }
}

fn flags(manifest: &str) -> Vec<&str> {
    let second = manifest.lines().nth(1).unwrap_or_default();
    let flags = second.strip_prefix("# flags: ").unwrap_or_default();
    flags.split_whitespace().collect()
}

/// What the golden file of a manifest should say.
fn golden(program: &Program, name: &str, manifest: &str, known: &Known) -> Result<String, String> {
    let flags = flags(manifest);
    let (injected, warnings) = program.inject(manifest, &flags)?;
    let (again, _) = program.inject(&injected, &flags)?;
    if again != injected {
        return Err(format!(
            "injected again it changes:\n{injected}\n---\n{again}"
        ));
    }
    let (before, after) = (documents(manifest), documents(&injected));
    if before.len() != after.len() {
        return Err(format!("{} documents became {}", before.len(), after.len()));
    }
    let texts = warnings
        .lines()
        .filter_map(|line| line.splitn(3, ": ").nth(2));
    if let Some(long) = texts
        .into_iter()
        .find(|text| text.len() > WARNING_BYTES_MOST)
    {
        return Err(format!("an API server would cut this warning: {long}"));
    }
    let mut text = warnings;
    let mut was_added = false;
    for (before, after) in before.iter().zip(&after) {
        let Some(mut added) = added(before, after, "")? else {
            continue;
        };
        was_added = true;
        if !["plain", "standalone"].contains(&name) {
            added = known.shortened(&added);
        }
        let stamped = format!("{}: {}", STAMPS[0], env!("CARGO_PKG_VERSION"));
        let yaml = serde_yaml::to_string(&added).unwrap();
        text.push_str("---\n");
        text.push_str(&yaml.replace(&stamped, &format!("{}: VERSION", STAMPS[0])));
    }
    if !was_added {
        if injected != manifest {
            return Err(format!(
                "nothing is added, and yet it is written anew:\n{injected}"
            ));
        }
        text.push_str("--- unchanged\n");
    }
    Ok(text)
}

#[test]
fn every_manifest_gets_what_is_known() {
    let program = Program::new();
    let mut fixtures: Vec<PathBuf> = fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    fixtures.retain(|path| path.is_file());
    fixtures.sort();
    assert!(fixtures.len() >= FIXTURES_LEAST, "{}", fixtures.len());
    let sidecars = Known::new(&program);
    let writes = std::env::var("RINGSIDE_GOLDEN").as_deref() == Ok("write");
    let mut failures = Vec::new();
    for fixture in &fixtures {
        let name = fixture.file_stem().unwrap().to_str().unwrap();
        let manifest = fs::read_to_string(fixture).unwrap();
        let known_at = folder().join("golden").join(format!("{name}.txt"));
        match golden(&program, name, &manifest, &sidecars) {
            Err(why) => failures.push(format!("{name}: {why}")),
            Ok(text) if writes => {
                fs::create_dir_all(folder().join("golden")).unwrap();
                fs::write(known_at, text).unwrap();
            }
            Ok(text) => {
                let known = fs::read_to_string(known_at).unwrap_or_default();
                if known != text {
                    failures.push(format!("{name}: expected\n{known}\nbut got\n{text}"));
                }
            }
        }
    }
    let expected = fixtures
        .iter()
        .map(|path| path.file_stem().unwrap().to_owned());
    let known = fs::read_dir(folder().join("golden")).unwrap();
    let known = known.map(|entry| entry.unwrap().path().file_stem().unwrap().to_owned());
    let (expected, known): (BTreeSet<_>, BTreeSet<_>) = (expected.collect(), known.collect());
    assert!(
        failures.is_empty(),
        "{} of {} manifests:\n{}",
        failures.len(),
        fixtures.len(),
        failures.join("\n")
    );
    assert_eq!(
        expected, known,
        "golden files without a manifest, or the other way round"
    );
}

#[test]
fn what_is_not_changed_keeps_every_byte() {
    let manifest = fs::read_to_string(folder().join("documents.yaml")).unwrap();
    let (injected, _) = Program::new().inject(&manifest, &[]).unwrap();
    let (before, after) = (
        manifest.split_once("--- # a mark").unwrap(),
        injected.split_once("--- # a mark").unwrap(),
    );
    assert_eq!(before.0, after.0);
    let last = |text: &str| text.rsplit_once("---\n").unwrap().1.to_owned();
    assert_eq!(last(before.1), last(after.1));
    assert_ne!(before.1, after.1);
}

#[test]
fn what_windows_editors_write_is_taken_and_keeps_its_line_breaks() {
    let program = Program::new();
    for name in [
        "plain.yaml",
        "documents.yaml",
        "list.yaml",
        "json-list.json",
    ] {
        let manifest = fs::read_to_string(folder().join(name)).unwrap();
        let (expected, warnings) = program.inject(&manifest, &flags(&manifest)).unwrap();
        let theirs = format!("\u{feff}{}", manifest.replace('\n', "\r\n"));
        let (injected, told) = program.inject(&theirs, &flags(&manifest)).unwrap();
        assert_eq!(injected, expected.replace('\n', "\r\n"), "{name}");
        assert_eq!(told, warnings);
        let (again, _) = program.inject(&injected, &flags(&manifest)).unwrap();
        assert_eq!(again, injected);
    }
    // Without anything to inject not even the mark is lost; in a later document it is one of the document.
    let untouched = "\u{feff}a: 1\r\n---\r\n\u{feff}b: 2\r\n";
    let same = program.inject(untouched, &[]).unwrap();
    assert_eq!(same, (untouched.to_owned(), String::new()));
    let plain = fs::read_to_string(folder().join("standalone.yaml")).unwrap();
    let two = format!("{plain}---\n\u{feff}{plain}");
    let (injected, _) = program.inject(&two, &[]).unwrap();
    let found = documents(&injected);
    assert_eq!(found.len(), 2);
    assert_eq!(found[0], found[1]);
}

#[test]
fn a_document_in_the_line_of_its_mark_is_written_below_it() {
    let pod = r#"--- {apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {containers: [{name: app, ports: [{containerPort: 80}]}]}}"#;
    let (injected, _) = Program::new().inject(pod, &[]).unwrap();
    let found = documents(&injected);
    assert_eq!(found[0]["spec"]["initContainers"][0]["name"], "ringside");
}

#[test]
fn what_cannot_be_read_is_told_with_its_place() {
    let program = Program::new();
    let error = program.inject("a: 1\n---\n\nb: [\n", &[]).unwrap_err();
    assert!(
        error.contains("document 2, which begins in line 3"),
        "{error}"
    );
    let error = program
        .inject("", &["--controller", "name:443"])
        .unwrap_err();
    assert!(error.contains("--controller-ca"), "{error}");
    let error = program
        .inject("", &["--seccomp", "Localhost:/x"])
        .unwrap_err();
    assert!(error.contains("Localhost:PATH"), "{error}");
    assert_eq!(program.inject("", &[]), Ok((String::new(), String::new())));
}
