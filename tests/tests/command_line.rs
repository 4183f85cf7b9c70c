//! What the command line says of itself: completions that shells understand, manual pages that man understands, and what `ringside check`
//! finds where something holds a port or no controller answers.

use std::ffi::OsStr;
use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Command, Output};

use ringside_tests::controller::{Authority, Controller, Pod, Script};
use ringside_tests::namespaced;
use ringside_tests::processes::{find, installed};
use ringside_tests::relay::{Kind, Setup};
use ringside_tests::setup::program;
use ringside_tests::traffic::{Server, echo};
use serde_json::Value;

fn programs() -> [PathBuf; 2] {
    [program(), program().with_file_name("ringside-controller")]
}

fn run(program: impl AsRef<OsStr>, arguments: &[&str]) -> Output {
    let mut command = Command::new(program);
    command.args(arguments).output().unwrap()
}

#[track_caller]
fn said(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn shells_understand_their_completions() {
    for program in programs() {
        for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
            let text = said(&run(&program, &["completions", shell]));
            assert!(
                text.contains("completions") && text.lines().count() > 30,
                "{shell}: {text}"
            );
            // Those that can say whether they understand it.
            let checks = matches!(shell, "bash" | "zsh" | "fish");
            if !checks
                || !installed(
                    &format!("shells_understand_their_completions ({shell})"),
                    &[shell],
                )
            {
                continue;
            }
            let folder = tempfile::tempdir().unwrap();
            let file = folder.path().join("completions");
            fs::write(&file, text).unwrap();
            let mut command = Command::new(find(shell).unwrap());
            let judged = command.arg("-n").arg(&file).output().unwrap();
            assert!(
                judged.status.success() && judged.stderr.is_empty(),
                "{shell}: {judged:?}"
            );
        }
    }
}

#[test]
fn bash_completes_commands() {
    if !installed("bash_completes_commands", &["bash"]) {
        return;
    }
    let script = "source <(\"$0\" completions bash); COMP_WORDS=(ringside che); COMP_CWORD=1; _ringside ringside che ringside; \
         echo \"${COMPREPLY[@]}\"";
    let mut command = Command::new("bash");
    let output = command
        .args(["-c", script])
        .arg(program())
        .output()
        .unwrap();
    assert_eq!(said(&output).trim(), "check", "{output:?}");
}

#[test]
fn every_command_has_a_manual_page_without_a_mistake() {
    for program in programs() {
        let folder = tempfile::tempdir().unwrap();
        let pages = folder.path().join("man1");
        said(&run(&program, &["man", pages.to_str().unwrap()]));
        let name = program.file_name().unwrap().to_str().unwrap();
        let help = said(&run(&program, &["--help"]));
        let commands = help.split_once("Commands:\n").unwrap().1;
        let mut wanted = vec![format!("{name}.1")];
        for line in commands.lines().take_while(|line| !line.is_empty()) {
            // Descriptions go on further to the right.
            if let Some(word) = line
                .strip_prefix("  ")
                .filter(|line| !line.starts_with(' '))
            {
                let word = word.split_whitespace().next().unwrap();
                if word != "help" {
                    wanted.push(format!("{name}-{word}.1"));
                }
            }
        }
        let listed = fs::read_dir(&pages).unwrap();
        let mut found: Vec<String> = listed
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        found.sort();
        wanted.sort();
        assert_eq!(found, wanted);
        let linter = installed(
            "every_command_has_a_manual_page_without_a_mistake (mandoc)",
            &["mandoc"],
        );
        for page in &found {
            let page = pages.join(page);
            assert!(
                fs::read_to_string(&page).unwrap().contains(".SH SYNOPSIS"),
                "{page:?}"
            );
            if linter {
                let mut command = Command::new("mandoc");
                let judged = command
                    .args(["-T", "lint", "-W", "error"])
                    .arg(&page)
                    .output()
                    .unwrap();
                assert!(judged.status.success(), "{page:?}: {judged:?}");
            }
        }
    }
}

/// The findings of this subject: level, what was found, and the cure.
fn findings(report: &Value, subject: &str) -> Vec<(String, String, String)> {
    let text =
        |finding: &Value, field: &str| finding[field].as_str().unwrap_or_default().to_owned();
    let all = report["findings"].as_array().unwrap().iter();
    all.filter(|finding| finding["subject"] == subject)
        .map(|finding| {
            (
                text(finding, "level"),
                text(finding, "found"),
                text(finding, "remedy"),
            )
        })
        .collect()
}

fn check(arguments: &[&str]) -> (Option<i32>, Value) {
    let arguments = [&["check", "--json"], arguments].concat();
    let output = run(program(), &arguments);
    let report = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("no JSON ({error}): {output:?}"));
    (output.status.code(), report)
}

namespaced!(check_tries_ports_and_says_who_may_hold_them, {
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let held = holder.local_addr().unwrap();
    let relay = format!("web={held}:127.0.0.1:1");
    let (code, report) = check(&["--relay", &relay, "--relay", "db=127.0.0.1:0:127.0.0.1:1"]);
    assert_eq!(code, Some(1), "{report:#}");
    let listening = findings(&report, "listening");
    let levels: Vec<&str> = listening.iter().map(|(level, ..)| level.as_str()).collect();
    // The admin listener, then the relays in their order.
    assert_eq!(levels, ["ok", "problem", "ok"], "{listening:?}");
    assert!(
        listening[1].1.contains("relay web cannot listen") && listening[1].2.contains("ss -ltnp")
    );
    drop(holder);

    // What a relay holds that runs here is as it should be.
    let server = Server::local(echo);
    let running = Setup::new(Kind::Epoll).to(&server).start();
    let (relay, admin) = (
        format!("web={}:127.0.0.1:1", running.address()),
        running.admin_address().to_string(),
    );
    let (code, report) = check(&["--relay", &relay, "--admin", &admin]);
    assert_eq!(code, Some(0), "{report:#}");
    let listening = findings(&report, "listening");
    assert!(
        listening
            .iter()
            .all(|(_, found, _)| found.contains("the relay that runs here")),
        "{listening:?}"
    );
    let (code, report) = check(&["--admin", "off"]);
    assert_eq!((code, findings(&report, "listening").len()), (Some(0), 0));
});

namespaced!(check_reaches_for_the_controller, {
    let authority = Authority::new();
    let controller = Controller::start(&authority, Script::default());
    let pod = Pod::new(authority.pem());
    let flags = pod.flags(controller.address());
    let flags: Vec<&str> = flags.iter().map(|flag| flag.to_str().unwrap()).collect();
    let (code, report) = check(&flags);
    assert_eq!(code, Some(0), "{report:#}");
    let (level, found, _) = findings(&report, "controller").remove(0);
    assert!(
        level == "ok" && found.contains("answers at 127.0.0.1:"),
        "{found}"
    );
    let stranger = Pod::new(Authority::new().pem());
    let flags = stranger.flags(controller.address());
    let flags: Vec<&str> = flags.iter().map(|flag| flag.to_str().unwrap()).collect();
    let (code, report) = check(&flags);
    let (level, found, remedy) = findings(&report, "controller").remove(0);
    // The relay would go on without it.
    assert!(
        code == Some(0) && level == "note" && found.contains("issued by none"),
        "{found}"
    );
    assert!(remedy.contains("injected by this controller"), "{remedy}");
    drop(controller);
    let (_, report) = check(&flags);
    assert!(
        findings(&report, "controller")[0]
            .1
            .contains("cannot be reached")
    );
});
