//! What is generated for `manifests/`: the custom resource definitions as YAML. It writes nothing itself.

use ringside_api::resources;

/// Both custom resource definitions, as YAML documents.
///
/// # Errors
/// They cannot be written as YAML, which a test rules out.
pub fn definitions() -> Result<String, serde_yaml::Error> {
    let mut text = String::from(
        "# Ringside's custom resource definitions. Generated: `make manifests` writes them anew.\n",
    );
    for definition in resources::definitions() {
        text.push_str("---\n");
        // By JSON's value, whose keys are sorted: the same text whoever generates it.
        let value = serde_json::to_value(definition)
            .map_err(<serde_yaml::Error as serde::ser::Error>::custom)?;
        text.push_str(&serde_yaml::to_string(&value)?);
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_is_checked_in_is_what_is_generated() {
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../manifests/crds/ringside.yaml"
        );
        let checked_in = std::fs::read_to_string(path).unwrap();
        let generated = super::definitions().unwrap();
        assert!(
            checked_in == generated,
            "manifests/crds is stale: `make manifests` writes it anew"
        );
    }
}
