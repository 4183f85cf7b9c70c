//! `docs/quick-start.md`, followed by one shell from its images to the last line, on nodes that run pods. What needs a cluster that is not here, or is
//! run elsewhere, is on a list with its reason; every other command is run as it stands.
//!
//! It is the last story: it begins and ends with nothing installed.

use std::fmt::Write as _;
use std::time::Instant;

use ringside_e2e::chart::project;
use ringside_e2e::cluster::Cluster;
use ringside_e2e::story::{RELEASE, Ringside, Story};
use ringside_tests::document;
use ringside_tests::skip::build_folder;

/// How commands begin that are not run, and why.
const LEFT_OUT: [(&str, &str); 7] = [
    ("make ", "run before the stories, or by tests/readme.rs"),
    (
        "sudo ctr ",
        "run by e2e/cluster/load, on every node, before the others",
    ),
    ("kind ", "needs Docker"),
    ("minikube ", "needs Docker"),
    ("VERSION=", "for a registry"),
    ("skopeo ", "needs a registry"),
    ("REGISTRY=", "run with what follows"),
];

/// How commands begin that are run, and what they say.
const SAYS: [(&str, &str); 18] = [
    ("helm install ringside", "STATUS: deployed"),
    ("helm test", "Succeeded"),
    ("kubectl create namespace shop", "created"),
    (
        "kubectl apply --namespace shop -f docs/quick-start/web.yaml",
        "deployment.apps/web created",
    ),
    ("kubectl rollout status", "successfully rolled out"),
    ("kubectl get pods", "2/2"),
    (
        "kubectl apply --namespace shop -f docs/quick-start/policy.yaml",
        "relaypolicy.ringside.dev/web created",
    ),
    ("kubectl wait", "condition met"),
    ("kubectl get rlp", "2/2"),
    ("kubectl port-forward", "Forwarding from"),
    ("curl -s localhost:15080", "an ordinary application"),
    ("curl -s localhost:15490/readyz", "ready"),
    (
        "curl -s localhost:15490/metrics",
        "ringside_relayed_bytes_total{",
    ),
    ("kubectl ringside top", "web-"),
    (
        "kubectl patch relaypolicy web --namespace shop --type merge --patch '{\"spec\": {\"accept\"",
        "patched",
    ),
    (
        "curl -s localhost:15490/config",
        "accept.maxConnections: RelayPolicy web",
    ),
    (REFUSED, "must be between 1us and 1s"),
    ("helm uninstall", "uninstalled"),
];

/// The one mistake of the document.
const REFUSED: &str =
    "kubectl patch relaypolicy web --namespace shop --type merge --patch '{\"spec\": {\"backoff\"";

/// The last ones, which are awaited for longer than their words.
const ENDS: [(&str, &str); 2] = [
    ("kubectl delete namespace", "\"shop\" deleted"),
    ("kubectl delete crd", "relaypolicies.ringside.dev\" deleted"),
];

/// Parts what commands say from one another.
const MARK: &str = "## ";

#[test]
fn s11_quick_start() {
    let Some(story) = Story::begin(11, "The quick start, followed") else {
        return;
    };
    let cluster = story.cluster();
    story.step("nothing is installed");
    let uninstall = [
        "uninstall",
        RELEASE,
        "--namespace",
        RELEASE,
        "--ignore-not-found",
        "--wait",
    ];
    cluster.helm().run(&uninstall);
    let crds = [
        "relaypolicies.ringside.dev",
        "clusterrelaypolicies.ringside.dev",
    ];
    for kind in [
        &["namespace", RELEASE, "shop"][..],
        &[&["crd"][..], &crds].concat(),
    ] {
        cluster.kubectl(&[&["delete", "--ignore-not-found"][..], kind].concat());
    }
    Ringside::load_images(cluster);
    let folder = tempfile::tempdir().expect("a folder");
    let configuration = folder.path().join("nginx.conf");
    let plain = "daemon off; pid /tmp/nginx.pid; error_log stderr; events {} \
        http { access_log off; server { listen 80; location / { return 200 \"an ordinary application\\n\"; } } }";
    std::fs::write(&configuration, plain).expect("nginx's configuration");
    let file = format!("{}:/etc/nginx/nginx.conf", configuration.display());
    let flags = [
        "--package",
        "nginx-light",
        "--file",
        &file,
        "--entrypoint",
        "/usr/sbin/nginx",
    ];
    cluster.load_made("localhost/nginx:e2e", &flags);

    story.step("every command, in one shell");
    let shown = document::commands(&document::read("docs/quick-start.md"));
    let commands: Vec<&str> = shown.iter().map(|shown| shown.command.as_str()).collect();
    let commands: Vec<&str> = commands
        .into_iter()
        .filter(|command| !is_left_out(command))
        .collect();
    let begin = Instant::now();
    let said = follow(cluster, &commands);
    story.took(
        "from the images to the uninstall, as it is written",
        begin.elapsed(),
    );

    let mark = format!("\n{MARK}");
    let mut parts = said.split(&mark).skip(1);
    for command in &commands {
        let part = parts
            .next()
            .unwrap_or_else(|| panic!("it ended before `{command}`: {said}"));
        let told = SAYS
            .iter()
            .chain(&ENDS)
            .find(|(begin, _)| command.starts_with(begin));
        let (_, told) = told.unwrap_or_else(|| panic!("nobody knows what `{command}` should say"));
        assert!(part.contains(told), "`{command}` says no {told:?}: {part}");
    }
    story.shown(
        "commands of docs/quick-start.md that did what it says",
        format_args!("{} of {}", commands.len(), shown.len()),
    );
}

fn is_left_out(command: &str) -> bool {
    LEFT_OUT.iter().any(|(begin, _)| command.starts_with(begin))
}

/// Runs commands in one shell in the cluster's network, which must come to its end; returns all that was said, a mark before each.
#[track_caller]
fn follow(cluster: &Cluster, commands: &[&str]) -> String {
    let mut script = String::from("set -e -o pipefail; exec 2>&1; REGISTRY=localhost\n");
    for command in commands {
        let _ = writeln!(script, "printf '\\n%s%s\\n' '{MARK}' {}", quoted(command));
        let here = command
            // No registry is here to pull it from.
            .replace(
                "-f docs/quick-start/web.yaml",
                "-f <(sed 's|image: nginx|image: localhost/nginx:e2e|' docs/quick-start/web.yaml)",
            )
            // Half a minute by default, which a busy machine may need more than.
            .replace("kubectl wait ", "kubectl wait --timeout=180s ");
        let _ = match here.as_str() {
            here if here.starts_with(REFUSED) => {
                writeln!(script, "if {here}; then echo it was taken; exit 1; fi")
            }
            here if here.ends_with('&') => writeln!(
                script,
                "{here}\ntrap 'kill $!' EXIT\nuntil curl -s localhost:15490/livez >/dev/null && curl -s localhost:15080 >/dev/null; do sleep 0.1; done"
            ),
            here if here.starts_with("curl -s localhost:15490/config") => {
                writeln!(
                    script,
                    "until {here} | grep -q RelayPolicy; do sleep 0.1; done; {here}"
                )
            }
            here => writeln!(script, "{here}"),
        };
    }
    let mut bash = cluster.command("bash");
    let mut path = build_folder().into_os_string();
    path.push(":");
    path.push(project().join("plugin"));
    // The plugin and the program, wherever a user would have put them.
    script.insert_str(0, &format!("PATH=$PATH:{}\n", path.to_string_lossy()));
    let output = bash.args(["-c", &script]).current_dir(project()).output();
    let output = output.expect("bash can be started");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{}: {said}", output.status);
    said
}

/// A word for the shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}
