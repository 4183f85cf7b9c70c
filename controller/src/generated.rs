//! What is generated for kubectl, as YAML: the custom resource definitions and the controller's roles, which are in `manifests/` as well, and the
//! webhook configurations. It writes nothing itself.

use ringside_api::resources;
use serde_json::Value;

use crate::admission::configuration::Webhooks;
use crate::permissions::{Installation, PERMISSIONS};

/// Both custom resource definitions, as YAML documents.
///
/// # Errors
/// They cannot be written as YAML, which a test rules out.
pub fn definitions() -> Result<String, serde_yaml::Error> {
    let mut text = String::from(
        "# Ringside's custom resource definitions. Generated: `make manifests` writes them anew.\n",
    );
    for definition in resources::definitions() {
        let value = serde_json::to_value(definition)
            .map_err(<serde_yaml::Error as serde::ser::Error>::custom)?;
        push(&mut text, &value)?;
    }
    Ok(text)
}

/// An installation's service account and all that it may do, as YAML documents, with the reasons before them. Its namespace must exist.
///
/// # Errors
/// They cannot be written as YAML, which a test rules out.
pub fn roles(installation: &Installation) -> Result<String, serde_yaml::Error> {
    let mut text = format!(
        "# All that Ringside's controller may do, and what for. Generated: `make manifests` writes it anew.\n# The namespace {} must be there.\n#\n",
        installation.namespace
    );
    for permission in &PERMISSIONS {
        let verbs = installation.verbs(permission);
        if verbs.is_empty() || installation.name_of(permission.of) == Some("") {
            continue;
        }
        let of = installation
            .name_of(permission.of)
            .map(|name| format!(" {name}"));
        text.push_str(&format!(
            "# {} {}{}: {}\n",
            verbs.join(", "),
            permission.resource,
            of.unwrap_or_default(),
            permission.reason
        ));
    }
    for object in installation.objects() {
        push(&mut text, &object)?;
    }
    Ok(text)
}

/// Both webhook configurations, as YAML documents.
///
/// # Errors
/// They cannot be written as YAML, which a test rules out.
pub fn webhooks(webhooks: &Webhooks) -> Result<String, serde_yaml::Error> {
    let mut text = String::from(
        "# Ringside's webhook configurations: with them injection begins. They come last, after the definitions, the roles and the controller.\n",
    );
    for configuration in [webhooks.mutating(), webhooks.validating()] {
        push(&mut text, &configuration)?;
    }
    Ok(text)
}

/// By JSON's value, whose keys are sorted: the same text whoever generates it.
fn push(text: &mut String, value: &Value) -> Result<(), serde_yaml::Error> {
    text.push_str("---\n");
    text.push_str(&serde_yaml::to_string(value)?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_checked_in(path: &str, generated: &str) {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../manifests");
        let checked_in = std::fs::read_to_string(format!("{folder}/{path}")).unwrap();
        assert!(
            checked_in == generated,
            "manifests/{path} is stale: `make manifests` writes it anew"
        );
    }

    #[test]
    fn what_is_checked_in_is_what_is_generated() {
        is_checked_in("crds/ringside.yaml", &definitions().unwrap());
        is_checked_in(
            "rbac/ringside.yaml",
            &roles(&Installation::default()).unwrap(),
        );
    }
}
