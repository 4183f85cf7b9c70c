//! `kubectl ringside` at a real API server: which pods it picks, by name, label and policy, and that it picks those that the controller says.
//! Forwarding a port, and running a command in a container, need a kubelet, which is not here: what is asked over a forwarded port is asked
//! of a real sidecar directly, in the plugin's words.

use std::path::Path;
use std::process::{Command, Output};

use ringside_e2e::apiserver::{ApiServer, Namespace};
use ringside_e2e::definitions::installed;
use ringside_tests::relay::{Kind, Setup};
use ringside_tests::skip::skip;
use ringside_tests::traffic::{Server, echo};
use serde_json::{Value, json};

/// The plugin, found as `kubectl ringside` would find it.
fn plugin(server: &ApiServer, arguments: &[&str]) -> Output {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugin");
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = Command::new(server.kubectl_program());
    command
        .arg("ringside")
        .args(arguments)
        .env("PATH", format!("{}:{path}", folder.display()))
        .env("KUBECTL", server.kubectl_program())
        .env("KUBECONFIG", server.kubeconfig());
    command.output().expect("kubectl can be started")
}

/// The pods that it picks, without their namespace.
#[track_caller]
fn picked(server: &ApiServer, shop: &Namespace<'_>, arguments: &[&str]) -> Vec<String> {
    let arguments = [&["pods", "--namespace", shop.name()], arguments].concat();
    let output = plugin(server, &arguments);
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    let said = String::from_utf8(output.stdout).expect("UTF-8");
    let begin = format!("{}/", shop.name());
    let mut names: Vec<String> = said
        .lines()
        .map(|line| line.strip_prefix(&begin).expect("the namespace").to_owned())
        .collect();
    names.sort();
    names
}

/// Why it refuses, and with which code.
fn refused(server: &ApiServer, arguments: &[&str]) -> (Option<i32>, String) {
    let output = plugin(server, arguments);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), said)
}

fn pod(shop: &Namespace<'_>, name: &str, labels: &Value, annotations: &Value, sidecar: bool) {
    let application = json!({"name": "app", "image": "app", "ports": [{"containerPort": 8080}]});
    let relay = json!({"name": "ringside", "image": "ringside", "restartPolicy": "Always",
        "ports": [{"name": "web", "containerPort": 15080}, {"name": "ringside-admin", "containerPort": 15490}]});
    let setup = json!({"name": "setup", "image": "setup"});
    let before = if sidecar {
        vec![setup, relay]
    } else {
        vec![setup]
    };
    shop.apply(
        &json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "labels": labels, "annotations": annotations},
            "spec": {"initContainers": before, "containers": [application]},
        })
        .to_string(),
    );
    let phase = json!({"status": {"phase": "Running"}}).to_string();
    shop.kubectl(&[
        "patch",
        "pod",
        name,
        "--subresource=status",
        "--type=merge",
        "--patch",
        &phase,
    ]);
}

fn policy(shop: &Namespace<'_>, name: &str, selector: &Value) {
    let mut spec = json!({});
    if !selector.is_null() {
        spec["podSelector"] = selector.clone();
    }
    shop.apply(
        &json!({"apiVersion": "ringside.dev/v1alpha1", "kind": "RelayPolicy", "metadata": {"name": name}, "spec": spec})
            .to_string(),
    );
}

#[test]
fn pods_are_picked_by_name_label_and_policy() {
    let Some(server) = installed("pods_are_picked_by_name_label_and_policy") else {
        return;
    };
    let shop = server.namespace("plugin");
    let none = json!({});
    pod(
        &shop,
        "api-1",
        &json!({"app": "api", "tier": "front"}),
        &none,
        true,
    );
    pod(
        &shop,
        "api-2",
        &json!({"app": "api"}),
        &json!({"ringside.dev/policy": "named"}),
        true,
    );
    pod(
        &shop,
        "api-3",
        &json!({"app": "api"}),
        &json!({"ringside.dev/policy": "not-there"}),
        true,
    );
    pod(
        &shop,
        "web-1",
        &json!({"app": "web", "tier": "front"}),
        &none,
        true,
    );
    pod(&shop, "db-1", &json!({"app": "db"}), &none, true);
    pod(&shop, "plain", &json!({"app": "api"}), &none, false);

    assert_eq!(
        picked(server, &shop, &[]),
        ["api-1", "api-2", "api-3", "db-1", "web-1"]
    );
    assert_eq!(picked(server, &shop, &["db-1", "api-1"]), ["api-1", "db-1"]);
    assert_eq!(
        picked(server, &shop, &["-l", "app in (web, db)"]),
        ["db-1", "web-1"]
    );
    assert_eq!(picked(server, &shop, &["-lapp=web"]), ["web-1"]);

    // Made in one second or not, `a-first` is before `b-second` for both.
    policy(
        &shop,
        "a-first",
        &json!({"matchExpressions": [{"key": "app", "operator": "In", "values": ["api", "web"]},
        {"key": "tier", "operator": "Exists"}]}),
    );
    policy(&shop, "b-second", &json!({"matchLabels": {"app": "api"}}));
    policy(
        &shop,
        "c-rest",
        &json!({"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["api"]}]}),
    );
    policy(&shop, "named", &Value::Null);
    assert_eq!(
        picked(server, &shop, &["--policy", "a-first"]),
        ["api-1", "web-1"]
    );
    assert_eq!(picked(server, &shop, &["--policy=b-second"]), ["api-3"]);
    assert_eq!(picked(server, &shop, &["-p", "c-rest"]), ["db-1"]);
    assert_eq!(picked(server, &shop, &["-p", "named"]), ["api-2"]);
    assert_eq!(
        picked(server, &shop, &["-p", "a-first", "-l", "app=web"]),
        ["web-1"]
    );
    // One that selects everything leaves nothing to those that come later.
    let other = server.namespace("plugin");
    pod(&other, "one", &none, &none, true);
    policy(&other, "all", &json!({}));
    policy(&other, "late", &json!({}));
    assert_eq!(picked(server, &other, &["-p", "all"]), ["one"]);

    let (namespace, wrong) = (["--namespace", shop.name()], ["--namespace", other.name()]);
    for (arguments, code, part) in [
        (
            &["pods", "-p", "late"][..],
            1,
            "no running pod with a sidecar was found",
        ),
        (
            &["pods", "-p", "nobody"],
            1,
            "there is no RelayPolicy nobody in namespace",
        ),
        (
            &["pods", "missing"],
            1,
            "there is no running pod missing with a sidecar",
        ),
        (&["drain"], 2, "drain needs pods"),
        (&["pods", "one", "-l", "app=web"], 2, "do one of both"),
        (&["restart"], 2, "there is no command restart"),
        (&["pods", "--colour"], 2, "there is no flag --colour"),
        (&["pods", "--policy"], 2, "--policy needs a value"),
        (&["pods", "a b;c"], 2, "is no pod's name"),
    ] {
        let (got, said) = refused(server, &[&wrong, arguments].concat());
        assert!(
            got == Some(code) && said.contains(part),
            "{arguments:?}: {got:?} {said}"
        );
    }
    // Another context is another cluster: what kubectl says of it is said.
    let (code, said) = refused(
        server,
        &[&["pods", "--context", "nowhere"][..], &namespace].concat(),
    );
    assert!(
        code != Some(0) && said.contains("nowhere"),
        "{code:?} {said}"
    );
    let nowhere =
        Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugin/kubectl-ringside"))
            .arg("pods")
            .env("KUBECTL", "/nowhere/kubectl")
            .output()
            .expect("the plugin can be started");
    let said = String::from_utf8_lossy(&nowhere.stderr);
    assert!(
        nowhere.status.code() == Some(1) && said.contains("there is no /nowhere/kubectl here"),
        "{said}"
    );
    let help = plugin(server, &["--help"]);
    assert!(String::from_utf8_lossy(&help.stdout).contains("Usage: kubectl ringside"));
    // There is no kubelet to forward by: it says so, and ends.
    let (code, said) = refused(server, &[&["config", "db-1"][..], &namespace].concat());
    assert!(
        code == Some(1) && said.contains("the admin port of pod db-1 cannot be forwarded"),
        "{code:?} {said}"
    );
}

#[test]
fn kubectl_asks_a_forwarded_sidecar_without_a_cluster() {
    let Some(server) = installed("kubectl_asks_a_forwarded_sidecar_without_a_cluster") else {
        return;
    };
    let application = Server::local(echo);
    let mut relay = Setup::new(Kind::Epoll)
        .to(&application)
        .settings(json!({"timeouts": {"drainNotice": "0s"}}))
        .start();
    let address = format!("http://{}", relay.admin_address());
    let asked = |words: &[&str]| {
        let mut command = Command::new(server.kubectl_program());
        command
            .arg("--kubeconfig=/dev/null")
            .arg(format!("--server={address}"))
            .args(words);
        let output = command
            .stdin(std::process::Stdio::null())
            .output()
            .expect("kubectl can be started");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert!(asked(&["get", "--raw", "/config?format=yaml"]).contains("drainNotice: 0s"));
    let status: Value = serde_json::from_str(&asked(&["get", "--raw", "/statusz"])).expect("JSON");
    assert_eq!(status["ready"], true);
    assert!(asked(&["create", "--raw", "/drain", "-f", "-"]).contains("draining"));
    assert!(relay.process_mut().await_end().success());
}

#[test]
fn the_plugin_is_sound_shell() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugin/kubectl-ringside");
    let mut command = Command::new("/bin/sh");
    assert!(
        command
            .arg("-n")
            .arg(&file)
            .status()
            .expect("a shell")
            .success()
    );
    match Command::new("shellcheck").arg(&file).output() {
        Ok(output) => assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stdout)
        ),
        Err(_) => skip(
            "the_plugin_is_sound_shell (shellcheck)",
            "shellcheck is not installed",
        ),
    }
}
