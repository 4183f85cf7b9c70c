//! What stands in the Secret: four texts in PEM, under the names that Kubernetes and cert-manager use.
//!
//! It owns the names and the shape of the object; whether the texts are any good is read elsewhere. It never shows a key.

use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::core::ObjectMeta;

/// The keys of the Secret's data.
pub const KEYS: [&str; 4] = ["ca.crt", "ca.key", "tls.crt", "tls.key"];

/// The texts of a Secret; one that is not there is empty.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Contents {
    /// `ca.crt`: the CA that signs, then those that are still trusted beside it.
    pub ca_crt: String,
    /// `ca.key`: the key of the CA that signs.
    pub ca_key: String,
    /// `tls.crt`: the leaf, and with a CA that somebody else keeps what stands between the two.
    pub tls_crt: String,
    /// `tls.key`: the leaf's key.
    pub tls_key: String,
}

impl fmt::Debug for Contents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Contents")
            .field("ca_crt", &self.ca_crt)
            .field("tls_crt", &self.tls_crt)
            .finish_non_exhaustive()
    }
}

impl Contents {
    /// What a Secret holds. Bytes that are no text become signs that no reader takes for PEM.
    pub fn of(secret: &Secret) -> Self {
        let text = |key: &str| {
            let bytes = secret.data.as_ref().and_then(|data| data.get(key));
            let text = bytes.map(|bytes| String::from_utf8_lossy(&bytes.0).into_owned());
            text.unwrap_or_default()
        };
        let [ca_crt, ca_key, tls_crt, tls_key] = KEYS.map(text);
        Self {
            ca_crt,
            ca_key,
            tls_crt,
            tls_key,
        }
    }

    /// The Secret with this in it: `before` where there is one, with all else as it is and only to be written over what was read.
    pub fn into_secret(self, namespace: &str, name: &str, before: Option<&Secret>) -> Secret {
        let texts = [self.ca_crt, self.ca_key, self.tls_crt, self.tls_key];
        let bytes = texts.map(|text| ByteString(text.into_bytes()));
        let mut secret = before.cloned().unwrap_or_else(|| Secret {
            type_: Some("kubernetes.io/tls".to_owned()),
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                namespace: Some(namespace.to_owned()),
                labels: Some(BTreeMap::from([(
                    "app.kubernetes.io/managed-by".to_owned(),
                    "ringside-controller".to_owned(),
                )])),
                ..ObjectMeta::default()
            },
            ..Secret::default()
        });
        let data = secret.data.get_or_insert_default();
        data.extend(KEYS.map(str::to_owned).into_iter().zip(bytes));
        secret
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_keeps_what_is_not_ours() {
        let contents = Contents {
            ca_crt: "a".to_owned(),
            ca_key: "secret".to_owned(),
            tls_crt: "c".to_owned(),
            tls_key: "secret".to_owned(),
        };
        assert!(!format!("{contents:?}").contains("secret"));
        let mut secret = contents.clone().into_secret("ns", "name", None);
        assert_eq!(Contents::of(&secret), contents);
        secret.type_ = Some("Opaque".to_owned());
        secret.metadata.resource_version = Some("7".to_owned());
        let bytes = ByteString(vec![0xff]);
        secret
            .data
            .get_or_insert_default()
            .insert("more".to_owned(), bytes.clone());
        let next = Contents::default().into_secret("ns", "name", Some(&secret));
        assert_eq!(next.type_.as_deref(), Some("Opaque"));
        assert_eq!(next.metadata, secret.metadata);
        assert_eq!(next.data.as_ref().unwrap()["more"], bytes);
        assert_eq!(Contents::of(&next), Contents::default());
    }
}
