//! Every manifest of the injection's tests, with its sidecar, at a real API server: what is valid is taken, strictly read, and what is marked as
//! invalid is refused with the words that the mark gives.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use ringside_e2e::apiserver::ApiServer;
use ringside_tests::setup::program;

/// As many as there must be at least: a folder that is not found would pass otherwise.
const MANIFESTS_LEAST: usize = 60;

/// The words after `# flags: ` in the second line; `CA` is a file with a certificate.
fn flags<'m>(manifest: &'m str, ca: &'m str) -> Vec<&'m str> {
    let second = manifest.lines().nth(1).unwrap_or_default();
    let flags = second.strip_prefix("# flags: ").unwrap_or_default();
    let flags = flags.split_whitespace();
    flags
        .map(|flag| if flag == "CA" { ca } else { flag })
        .collect()
}

/// What an API server says of a manifest that is marked as invalid: the words in quotes.
fn refusal(manifest: &str) -> Option<&str> {
    let second = manifest.lines().nth(1).unwrap_or_default();
    let mark = second.strip_prefix("# invalid: ")?;
    let words = mark.split('"').nth(1);
    Some(words.expect("a mark has the API server's words in quotes"))
}

fn injected(manifest: &Path, flags: &[&str]) -> String {
    let output = Command::new(program().with_file_name("ringside-controller"))
        .args(["inject", "--image", "ringside:test", "-f"])
        .arg(manifest)
        .args(flags)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}: {output:?}",
        manifest.display()
    );
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn an_api_server_takes_what_injection_makes_of_every_manifest() {
    let test = "an_api_server_takes_what_injection_makes_of_every_manifest";
    let Some(server) = ApiServer::shared(test) else {
        return;
    };
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../controller/tests/injection");
    let entries = fs::read_dir(folder).unwrap();
    let mut manifests: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    manifests.retain(|path| path.is_file());
    manifests.sort();
    assert!(manifests.len() >= MANIFESTS_LEAST, "{}", manifests.len());
    let ca = tempfile::NamedTempFile::new().unwrap();
    fs::write(ca.path(), "-----BEGIN CERTIFICATE-----\n").unwrap();
    let namespace = server.namespace("manifests");
    let (mut failures, mut refused) = (Vec::new(), 0);
    for path in &manifests {
        let manifest = fs::read_to_string(path).unwrap();
        let text = injected(path, &flags(&manifest, ca.path().to_str().unwrap()));
        // `create`, since names may be the server's to make; nothing is stored.
        let arguments = [
            "create",
            "--dry-run=server",
            "--validate=strict",
            "--output=name",
            "--filename=-",
        ];
        let answer = namespace.try_kubectl_with(&arguments, &text);
        let expected = refusal(&manifest);
        refused += usize::from(expected.is_some());
        let is_right = match expected {
            None => answer.status.success() && !answer.out.trim().is_empty(),
            Some(words) => !answer.status.success() && answer.err.contains(words),
        };
        if !is_right {
            let name = path.file_name().unwrap().to_string_lossy();
            let expected = expected.unwrap_or("to be taken");
            failures.push(format!("{name}: expected {expected:?}: {answer}"));
        }
    }
    let (failed, all) = (failures.len(), manifests.len());
    assert!(
        failures.is_empty(),
        "{failed} of {all}:\n{}",
        failures.join("\n")
    );
    println!(
        "{all} manifests: {} taken, {refused} refused as marked",
        all - refused
    );
}
