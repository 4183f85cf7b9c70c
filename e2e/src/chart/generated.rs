//! Every file that is generated for the chart or from it: its path, and what it must hold. It owns the list; it writes nothing.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::helm::Helm;
use super::plain::{documents, plain};
use super::{NAMESPACE, project, table};

/// Between these the README has the table of values.
const TABLE: [&str; 2] = ["<!-- values: generated -->\n", "<!-- values: end -->\n"];

/// What `manifests/` and the chart's `files/` both hold, and which of them is copied.
const COPIES: [(&str, &str); 4] = [
    ("manifests/crds/ringside.yaml", "crds/ringside.yaml"),
    ("manifests/seccomp/ringside.json", "seccomp/ringside.json"),
    ("manifests/prometheus/rules.yaml", "prometheus/rules.yaml"),
    ("manifests/grafana/ringside.json", "grafana/ringside.json"),
];

/// The images of plain manifests: as `images/build` names those that were pushed nowhere, and as nodes know them that they were loaded onto.
const IMAGES: &str = "image.registry=localhost,sidecar.image.registry=localhost";

/// A file, and what it must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generated {
    /// Its path, from the project's folder on.
    pub path: String,
    /// Its text.
    pub text: String,
}

/// All of them. Those that Helm renders are left out where there is no Helm. The chart's own files come first, since Helm renders them.
///
/// # Errors
/// A file that they are made of cannot be read, or says something that cannot be.
pub fn generated(helm: Option<&Helm>) -> Result<Vec<Generated>, String> {
    let mut files = Vec::new();
    let mut add = |path: &str, text: String| {
        files.push(Generated {
            path: path.to_owned(),
            text,
        });
    };
    for (from, to) in COPIES {
        if project().join(from).exists() {
            add(&format!("charts/ringside/files/{to}"), read(from)?);
        }
    }
    add(
        "charts/ringside/files/seccomp/security-profiles-operator.yaml",
        operator_profile(&read("manifests/seccomp/ringside.json")?)?,
    );
    add("charts/ringside/README.md", readme()?);
    let Some(helm) = helm else {
        return Ok(files);
    };

    let install = plain(documents(&helm.render(&["--set", IMAGES])));
    let (mut definitions, mut rbac, mut controller, mut webhooks) =
        (vec![], vec![], vec![], vec![]);
    for object in install {
        let kind = object["kind"].as_str().unwrap_or_default();
        match kind {
            "CustomResourceDefinition" => definitions.push(object),
            "ServiceAccount" | "ClusterRole" | "ClusterRoleBinding" | "Role" | "RoleBinding" => {
                rbac.push(object);
            }
            _ if kind.ends_with("WebhookConfiguration") => webhooks.push(object),
            _ => controller.push(object),
        }
    }
    let namespace = vec![json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": NAMESPACE, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}},
    })];
    let parts = [
        ("namespace", namespace),
        ("crds", definitions),
        ("rbac", rbac),
        ("controller", controller),
        ("webhooks", webhooks),
    ];
    let whole: Vec<&Value> = parts.iter().flat_map(|(_, objects)| objects).collect();
    add(
        "manifests/install.yaml",
        yaml(
            "# Ringside as a whole: `kubectl apply --server-side -f install.yaml`, once nodes have the images, localhost/ringside-controller and localhost/ringside\n# (`make images`, docs/quick-start.md). Those of a registry are named by an overlay of Kustomize: manifests/kustomize/overlays/production.\n# Generated from the chart: `make manifests` writes it anew.\n",
            whole,
        )?,
    );
    let heading = "# Generated from the chart: `make manifests` writes it anew.\n";
    for (name, objects) in &parts {
        let path = format!("manifests/kustomize/base/{name}.yaml");
        add(&path, yaml(heading, objects)?);
    }
    for (how, path) in [
        ("DaemonSet", "manifests/seccomp/daemonset.yaml"),
        (
            "SecurityProfilesOperator",
            "manifests/seccomp/security-profiles-operator.yaml",
        ),
    ] {
        let flag = format!("seccomp.install={how}");
        let rendered = helm.render(&[
            "--set",
            IMAGES,
            "--set",
            &flag,
            "--show-only",
            "templates/seccomp.yaml",
        ]);
        let mut objects = plain(documents(&rendered));
        if how == "DaemonSet" {
            // Apart from the controller's namespace, which allows no folder of a node.
            let name = "ringside-seccomp";
            for object in &mut objects {
                object["metadata"]["namespace"] = json!(name);
            }
            objects.insert(0, json!({
                "apiVersion": "v1", "kind": "Namespace",
                "metadata": {"name": name, "labels": {"pod-security.kubernetes.io/enforce": "privileged"}},
            }));
        }
        add(path, yaml(heading, &objects)?);
    }
    Ok(files)
}

fn read(path: &str) -> Result<String, String> {
    let whole = project().join(Path::new(path));
    fs::read_to_string(&whole).map_err(|error| format!("{path} cannot be read: {error}"))
}

fn yaml<'v>(heading: &str, objects: impl IntoIterator<Item = &'v Value>) -> Result<String, String> {
    let mut text = heading.to_owned();
    for object in objects {
        text.push_str("---\n");
        text.push_str(&serde_yaml::to_string(object).map_err(|error| error.to_string())?);
    }
    Ok(text)
}

/// The README with the table of the values that there are.
fn readme() -> Result<String, String> {
    let path = "charts/ringside/README.md";
    let text = read(path)?;
    let values = table::read(&read("charts/ringside/values.yaml")?)?;
    let [begin, end] = TABLE;
    let around = text.split_once(begin).and_then(|(before, rest)| {
        let (_, after) = rest.split_once(end)?;
        Some((before, after))
    });
    let (before, after) =
        around.ok_or_else(|| format!("{path} has no lines {begin}and {end}around the table"))?;
    let table = table::markdown(&values);
    Ok(format!("{before}{begin}{table}{end}{after}"))
}

/// The profile as the Security Profiles Operator's resource has it. That knows no default for the error, which is EPERM as in ours, and
/// writes an error of its own (`clone3`: ENOSYS) as text, which no runtime reads: the sidecar makes no such call.
fn operator_profile(profile: &str) -> Result<String, String> {
    let mut profile: Value = serde_json::from_str(profile).map_err(|error| error.to_string())?;
    if profile["defaultErrnoRet"] != 1 {
        return Err(
            "the profile's default error is not EPERM, which the operator takes for granted"
                .to_owned(),
        );
    }
    let fields = profile.as_object_mut().ok_or("the profile is no object")?;
    fields.remove("defaultErrnoRet");
    if let Some(Value::Array(calls)) = fields.get_mut("syscalls") {
        calls.retain(|call| call.get("errnoRet").is_none());
    }
    let heading = "# manifests/seccomp/ringside.json as the Security Profiles Operator has it: `make manifests` writes it anew.\n";
    let text = serde_yaml::to_string(&profile).map_err(|error| error.to_string())?;
    Ok(format!("{heading}{text}"))
}
