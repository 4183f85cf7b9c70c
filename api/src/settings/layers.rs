//! The layers that a controller offers: what the ClusterRelayPolicy sets and what the RelayPolicy sets over it. It owns how they
//! are laid over a sidecar's own, and how two offers are told apart.

use serde::{Deserialize, Serialize};

use super::resolve::fingerprint;
use super::{Patch, Resolved, Settings, Source, Violation};

/// What a controller offers to run, by layers, so that a sidecar can say where each field came from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Layers {
    /// What the ClusterRelayPolicy sets.
    #[serde(default)]
    pub cluster: Patch,
    /// What the RelayPolicy sets.
    #[serde(default)]
    pub policy: Patch,
}

impl Layers {
    /// The settings that result over a sidecar's own, if it has any, and over the defaults.
    ///
    /// # Errors
    /// What is not allowed in the result, each with the layer that set it.
    pub fn resolve(&self, own: Option<&Patch>) -> Result<Resolved, Vec<Violation>> {
        let none = Patch::default();
        Settings::resolve(&[
            (Source::File, own.unwrap_or(&none)),
            (Source::ClusterPolicy, &self.cluster),
            (Source::Policy, &self.policy),
        ])
    }

    /// A fingerprint of the offer, 16 hex digits: the same for equal layers, whatever the process or version.
    pub fn hash(&self) -> String {
        let layers = [("cluster", &self.cluster), ("policy", &self.policy)];
        fingerprint(layers.into_iter().flat_map(|(name, patch)| {
            let mut fields = patch.fields();
            fields.sort_unstable();
            let line = move |(field, value)| format!("{name}.{field}={value}\n");
            fields.into_iter().map(line)
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patch(yaml: &str) -> Patch {
        serde_yaml::from_str(yaml).unwrap()
    }

    #[test]
    fn each_layer_is_believed_over_the_one_below_and_named() {
        let layers = Layers {
            cluster: patch("{batch: {min: 4, max: 64}}"),
            policy: patch("{batch: {max: 32}}"),
        };
        let own = patch("{batch: {min: 2, max: 2}, tcp: {noDelay: false}}");
        let resolved = layers.resolve(Some(&own)).unwrap();
        let batch = resolved.settings.batch;
        assert_eq!((batch.min, batch.max), (4, 32));
        let source = |field| resolved.source_of(field).unwrap();
        assert_eq!(source("batch.min"), Source::ClusterPolicy);
        assert_eq!(source("batch.max"), Source::Policy);
        assert_eq!(source("tcp.noDelay"), Source::File);
        assert_eq!(source("tcp.keepalive"), Source::Default);
    }

    #[test]
    fn what_only_the_whole_shows_is_told_to_the_layer_that_set_it() {
        let layers = Layers {
            cluster: patch("{batch: {max: 64}}"),
            policy: patch("{batch: {min: 128}}"),
        };
        let violations = layers.resolve(None).unwrap_err();
        assert_eq!(violations[0].field, "batch.min");
        assert_eq!(violations[0].source_of_value, Source::Policy);
    }

    #[test]
    fn offers_have_a_hash_each() {
        let one = Layers {
            cluster: patch("{batch: {min: 4}}"),
            policy: patch("{}"),
        };
        let other = Layers {
            cluster: one.policy,
            policy: one.cluster,
        };
        assert_eq!(one.hash(), one.hash());
        // An empty group says nothing.
        let empty = patch("{batch: {}}");
        assert_eq!(
            Layers {
                cluster: empty,
                ..Layers::default()
            }
            .hash(),
            Layers::default().hash()
        );
        assert_ne!(one.hash(), other.hash());
        assert_ne!(one.hash(), Layers::default().hash());
    }
}
