//! What the chart renders: roles and webhooks as the controller has them, arguments that it takes, and objects that an API server takes.

use std::collections::BTreeMap;
use std::process::Command;

use ringside_controller::admission::configuration::{Reach, Webhooks};
use ringside_controller::certificates::Managed;
use ringside_controller::permissions::Installation;
use ringside_e2e::apiserver::ApiServer;
use ringside_e2e::chart::{HelmVersion, documents, examples, plain, project};
use ringside_e2e::{definitions, others};
use ringside_tests::await_that;
use ringside_tests::processes::Process;
use ringside_tests::setup::program;
use serde_json::{Value, json};

use crate::helm;

/// Labels are Helm's to choose.
fn without_labels(mut object: Value) -> Value {
    if let Some(metadata) = object["metadata"].as_object_mut() {
        metadata.remove("labels");
    }
    object
}

fn of_kinds(objects: &[Value], kinds: &[&str]) -> Vec<Value> {
    let is_of = |object: &&Value| kinds.iter().any(|kind| object["kind"] == *kind);
    let objects = objects.iter().filter(is_of).cloned();
    let mut objects: Vec<Value> = objects.map(without_labels).collect();
    objects.sort_by_key(|object| object["kind"].to_string());
    objects
}

#[test]
fn roles_are_those_that_the_controller_lists() {
    let test = "roles_are_those_that_the_controller_lists";
    let Some(helm) = helm(test, HelmVersion::Three) else {
        return;
    };
    let kinds = [
        "ServiceAccount",
        "ClusterRole",
        "ClusterRoleBinding",
        "Role",
        "RoleBinding",
    ];
    let default = Installation::default();
    for (flags, installation) in [
        (&[][..], default.clone()),
        (
            &["--set=webhook.enabled=false"],
            Installation {
                webhooks: String::new(),
                ..default.clone()
            },
        ),
        (
            &["--set=certificates.source=CertManager"],
            Installation {
                managed: Managed::External,
                ..default
            },
        ),
        (
            &[
                "--set=fullnameOverride=mine",
                "--set=certificates.secretName=keys",
                "--namespace=elsewhere",
            ],
            Installation {
                namespace: "elsewhere".to_owned(),
                service: "mine-controller".to_owned(),
                secret: "keys".to_owned(),
                webhooks: "mine".to_owned(),
                managed: Managed::Here,
            },
        ),
    ] {
        let mut rendered = of_kinds(&documents(&helm.render(flags)), &kinds);
        // Its token is asked for by the pods themselves.
        for object in &mut rendered {
            let fields = object.as_object_mut().unwrap();
            fields.remove("automountServiceAccountToken");
        }
        assert_eq!(
            rendered,
            of_kinds(&installation.objects(), &kinds),
            "{flags:?}"
        );
    }
}

#[test]
fn webhooks_are_those_that_the_controller_prints() {
    let test = "webhooks_are_those_that_the_controller_prints";
    let Some(helm) = helm(test, HelmVersion::Three) else {
        return;
    };
    let webhooks = Webhooks {
        name: "ringside".to_owned(),
        labels: BTreeMap::new(),
        reach: Reach::Service {
            namespace: "ringside".to_owned(),
            name: "ringside-controller".to_owned(),
            port: 443,
        },
        ca_pem: None,
        release_namespace: "ringside".to_owned(),
    };
    let kinds = [
        "MutatingWebhookConfiguration",
        "ValidatingWebhookConfiguration",
    ];
    let rendered = of_kinds(&documents(&helm.render(&[])), &kinds);
    assert_eq!(rendered, [webhooks.mutating(), webhooks.validating()]);
}

#[test]
fn definitions_are_those_that_are_generated() {
    let test = "definitions_are_those_that_are_generated";
    let Some(helm) = helm(test, HelmVersion::Three) else {
        return;
    };
    let kinds = ["CustomResourceDefinition"];
    let rendered = of_kinds(&plain(documents(&helm.render(&[]))), &kinds);
    let generated = ringside_controller::generated::definitions().unwrap();
    assert_eq!(rendered, of_kinds(&documents(&generated), &kinds));
    for object in documents(&helm.render(&["--show-only=templates/crds.yaml"])) {
        let annotations = &object["metadata"]["annotations"];
        assert_eq!(annotations["helm.sh/resource-policy"], "keep");
    }
}

#[test]
fn the_controller_takes_its_arguments() {
    let test = "the_controller_takes_its_arguments";
    let Some(helm) = helm(test, HelmVersion::Three) else {
        return;
    };
    let nowhere = tempfile::tempdir().unwrap();
    let mut of_all = examples();
    of_all.push((
        "default".to_owned(),
        project().join("charts/ringside/values.yaml"),
    ));
    for (name, values) in of_all {
        let flag = format!("--values={}", values.display());
        let more = "--set=metrics.annotations=true,service.clusterIP=fd00::1,sidecar.logLevel=info";
        for flags in [vec![flag.as_str()], vec![flag.as_str(), more]] {
            let objects = documents(&helm.render(&flags));
            let deployment = &of_kinds(&objects, &["Deployment"])[0];
            let container = &deployment["spec"]["template"]["spec"]["containers"][0];
            let arguments: Vec<String> = serde_json::from_value(container["args"].clone()).unwrap();
            let mut command = Command::new(program().with_file_name("ringside-controller"));
            command
                .args(&arguments)
                .env("KUBECONFIG", nowhere.path().join("none"))
                .env_remove("KUBERNETES_SERVICE_HOST");
            let output = command.output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            // It understood, and found no cluster: 2 would be a flag that it does not know.
            assert_eq!(output.status.code(), Some(1), "{name}: {said}");
            assert!(said.contains("no way to an API server"), "{name}: {said}");
        }
    }
}

#[test]
fn the_daemon_set_puts_the_profile_where_sidecars_look_for_it() {
    let test = "the_daemon_set_puts_the_profile_where_sidecars_look_for_it";
    let Some(helm) = helm(test, HelmVersion::Three) else {
        return;
    };
    let flags = ["--values=charts/ringside/examples/seccomp-daemonset.yaml"];
    let objects = documents(&helm.render(&flags));
    let daemon_set = &of_kinds(&objects, &["DaemonSet"])[0]["spec"]["template"]["spec"];
    let arguments = &daemon_set["containers"][0]["args"];
    let arguments: Vec<String> = serde_json::from_value(arguments.clone()).unwrap();
    let config = of_kinds(&objects, &["ConfigMap"]);
    let profile = config[0]["data"]["profile.json"].as_str().unwrap();
    let mut process = Process::start("the installer", |folder| {
        std::fs::write(folder.join("profile.json"), profile).unwrap();
        let folder = folder.display().to_string();
        let mut command = Command::new(program().with_file_name("ringside-controller"));
        // Where the pod has its volumes.
        command.args(arguments.iter().map(|word| {
            word.replace("/profile/", &format!("{folder}/"))
                .replace("/seccomp/", &format!("{folder}/"))
        }));
        command
    });
    let shipped = project().join("manifests/seccomp/ringside.json");
    let shipped = std::fs::read_to_string(shipped).unwrap();
    let there = || std::fs::read_to_string(process.folder().join("ringside.json"));
    await_that("the profile to be installed", || there().is_ok());
    assert_eq!(there().unwrap().trim(), shipped.trim());
    process.signal(libc::SIGTERM);
    let ended = process.await_end();
    assert!(ended.success(), "{ended}");
}

#[test]
fn an_api_server_takes_what_every_example_renders() {
    let test = "an_api_server_takes_what_every_example_renders";
    let Some(helm) = helm(test, HelmVersion::Three) else {
        return;
    };
    // Not a given cluster, where the kinds of others are their own.
    let Some(server) = ApiServer::own(test) else {
        return;
    };
    definitions::install(&server);
    others::install(&server);
    // Namespaces of the manifests themselves, which a dry run does not make.
    for namespace in ["ringside", "ringside-seccomp", "123"] {
        let object =
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}});
        server.apply(&object.to_string());
    }
    let check = |name: &str, text: &str| {
        let arguments = [
            "apply",
            "--server-side",
            "--dry-run=server",
            "--validate=strict",
            "--force-conflicts",
            "--filename=-",
        ];
        let answer = server.try_kubectl_with(&arguments, text);
        assert!(answer.status.success(), "{name}: {answer}");
        // The definitions were applied by this kubectl's other way before, which it would like to take over.
        let ours = |line: &&str| !line.contains("last-applied-configuration");
        let warnings: Vec<&str> = answer.err.lines().filter(ours).collect();
        assert_eq!(warnings, [""; 0], "{name}");
        answer.out.lines().count()
    };
    let default = check("default", &helm.render(&[]));
    assert!(default >= 12, "{default} objects by default");
    for (name, values) in examples() {
        let flag = format!("--values={}", values.display());
        let objects = check(&name, &helm.render(&[&flag]));
        assert!(objects + 2 >= default, "{name}: {objects} objects");
    }
    let all = [
        "--set=certificates.source=CertManager,certificates.extraNames={10.0.0.7}",
        "--set=hostNetwork=true,networkPolicy.enabled=true,seccomp.install=DaemonSet",
        "--set=replicaCount=3,podDisruptionBudget.minAvailable=50%,service.clusterIP=10.96.0.77",
        "--set=policy.default.timeouts.idle=5m,metrics.annotations=true,commonLabels.team=net",
    ];
    check("what no example has", &helm.render(&all));
    let published = [
        "--set=service.type=LoadBalancer,service.port=8080,updateStrategy.type=Recreate",
        "--set=livenessProbe=null,sidecar.resources=null,sidecar.runAsUser=null",
        "--set=replicaCount=2,podDisruptionBudget.minAvailable=null",
    ];
    check("a published Service", &helm.render(&published));
    // YAML would take both for something else than texts.
    let words = ["--namespace=123", "--set=fullnameOverride=no"];
    check("names that are no words", &helm.render(&words));
    for path in [
        "install.yaml",
        "seccomp/daemonset.yaml",
        "seccomp/security-profiles-operator.yaml",
    ] {
        let text = std::fs::read_to_string(project().join("manifests").join(path)).unwrap();
        check(path, &text);
    }
    for path in ["base", "overlays/production"] {
        let folder = project().join("manifests/kustomize").join(path);
        let built = server.kubectl(&["kustomize", folder.to_str().unwrap()]);
        check(path, &built);
        if path == "base" {
            let install = project().join("manifests/install.yaml");
            let install = documents(&std::fs::read_to_string(install).unwrap());
            // Kustomize writes the definitions' numbers in another way.
            let rest = |objects: Vec<Value>| {
                let is_rest = |one: &Value| one["kind"] != "CustomResourceDefinition";
                let mut rest: Vec<Value> = objects.into_iter().filter(is_rest).collect();
                rest.sort_by_key(|one| format!("{}{}", one["kind"], one["metadata"]["name"]));
                rest
            };
            let (built, install) = (rest(documents(&built)), rest(install));
            assert_eq!(built, install, "the base is the plain install");
        }
    }
}

#[test]
fn values_that_cannot_be_are_refused_with_a_sentence() {
    let test = "values_that_cannot_be_are_refused_with_a_sentence";
    let Some(helm) = helm(test, HelmVersion::Three) else {
        return;
    };
    for (values, told) in [
        (
            "webhook.failurePolicy=ignore",
            "must be one of 'Ignore', 'Fail'",
        ),
        (
            "webhok.enabled=false",
            "additional properties 'webhok' not allowed",
        ),
        ("replicaCount=many", "got string, want integer"),
        (
            "sidecar.seccomp.mode=Custom",
            "'RuntimeDefault', 'Localhost', 'Unconfined'",
        ),
        ("image.digest=sha256:12", "/image/digest"),
        (
            "policy.default.acept.backlog=1",
            "additional properties 'acept' not allowed",
        ),
        (
            "certificates.source=External",
            "tls.crt, tls.key and ca.crt",
        ),
        (
            "sidecar.seccomp.mode=Localhost,sidecar.seccomp.profile=",
            "such as ringside.json",
        ),
        (
            "webhook.failurePolicy=Fail",
            "set replicaCount to 2 or more",
        ),
        ("ports.http=8443", "must differ"),
        ("service.port=8080", "write another"),
        ("fullnameOverride=1st", "/fullnameOverride"),
        ("sidecar.backend=tokio-uring", "'auto', 'ring', 'epoll'"),
        ("sidecar.logLevel=verbose", "/sidecar/logLevel"),
        ("serviceAccount.create=false", "one that is there"),
        (
            "seccomp.install=SecurityProfilesOperator,sidecar.seccomp.mode=Localhost,fullnameOverride=relay",
            "operator/relay.json",
        ),
        (
            "seccomp.install=DaemonSet,sidecar.seccomp.mode=Localhost,seccomp.daemonSet.fileName=other.json",
            "write the same",
        ),
    ] {
        let flag = format!("--set={values}");
        let said = helm.attempt(&["template", "ringside", "charts/ringside", &flag]);
        assert!(
            !said.succeeded && said.err.contains(told),
            "{values}: {said}"
        );
    }
}
