//! What the controller may ask of the API server: one list, from which its roles are made.
//!
//! It owns each permission with its reason. Nothing is granted elsewhere, and a test against a real API server compares the list with what was asked,
//! both ways. It grants nothing itself: whoever installs applies what it says.

use ringside_api::resources::GROUP;
use serde_json::{Value, json};

use crate::certificates::Managed;

/// What an installation is called, as far as permissions name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installation {
    /// The namespace that it runs in.
    pub namespace: String,
    /// The name of its Service, its Lease and its service account.
    pub service: String,
    /// The Secret of its certificates.
    pub secret: String,
    /// The name of both webhook configurations; empty for none.
    pub webhooks: String,
    /// Who makes the certificates: those of somebody else are only read.
    pub managed: Managed,
}

impl Default for Installation {
    /// By the names that `ringside-controller run` has without flags.
    fn default() -> Self {
        let [namespace, service, secret, webhooks] = [
            "ringside",
            "ringside-controller",
            "ringside-controller-tls",
            "ringside",
        ]
        .map(str::to_owned);
        Self {
            namespace,
            service,
            secret,
            webhooks,
            managed: Managed::Here,
        }
    }
}

/// Where a permission holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// In every namespace, and for what has none.
    Cluster,
    /// In the controller's own namespace.
    Release,
}

/// Of which objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Of {
    /// All of the resource.
    All,
    /// The Lease.
    Lease,
    /// The Secret of certificates.
    Secret,
    /// The webhook configurations.
    Webhooks,
}

/// Some verbs on one resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Permission {
    /// The API group; empty for the core's.
    pub group: &'static str,
    /// The resource, with its subresource after a slash.
    pub resource: &'static str,
    /// What may be done.
    pub verbs: &'static [&'static str],
    /// With which objects.
    pub of: Of,
    /// Where.
    pub scope: Scope,
    /// What for.
    pub reason: &'static str,
}

/// All that the controller may do.
pub const PERMISSIONS: [Permission; 13] = [
    Permission {
        group: "",
        resource: "pods",
        verbs: &["list", "watch"],
        of: Of::All,
        scope: Scope::Cluster,
        reason: "which pods have a relay, which policy selects them, and whether they are ready",
    },
    Permission {
        group: GROUP,
        resource: "relaypolicies",
        verbs: &["list", "watch"],
        of: Of::All,
        scope: Scope::Cluster,
        reason: "what sidecars are to run",
    },
    Permission {
        group: GROUP,
        resource: "clusterrelaypolicies",
        verbs: &["list", "watch"],
        of: Of::All,
        scope: Scope::Cluster,
        reason: "what sidecars are to run where no policy says otherwise",
    },
    Permission {
        group: GROUP,
        resource: "relaypolicies/status",
        verbs: &["patch"],
        of: Of::All,
        scope: Scope::Cluster,
        reason: "conditions and counts",
    },
    Permission {
        group: GROUP,
        resource: "clusterrelaypolicies/status",
        verbs: &["patch"],
        of: Of::All,
        scope: Scope::Cluster,
        reason: "conditions and counts",
    },
    Permission {
        group: "events.k8s.io",
        resource: "events",
        verbs: &["create", "patch"],
        of: Of::All,
        scope: Scope::Cluster,
        reason: "Events on pods and policies, in their namespaces; one that recurs is counted by a patch",
    },
    Permission {
        group: "authentication.k8s.io",
        resource: "tokenreviews",
        verbs: &["create"],
        of: Of::All,
        scope: Scope::Cluster,
        reason: "which pod's sidecar calls",
    },
    Permission {
        group: "admissionregistration.k8s.io",
        resource: "mutatingwebhookconfigurations",
        verbs: &["list", "watch", "patch"],
        of: Of::Webhooks,
        scope: Scope::Cluster,
        reason: "the API server is to trust the certificate of the moment",
    },
    Permission {
        group: "admissionregistration.k8s.io",
        resource: "validatingwebhookconfigurations",
        verbs: &["list", "watch", "patch"],
        of: Of::Webhooks,
        scope: Scope::Cluster,
        reason: "the API server is to trust the certificate of the moment",
    },
    Permission {
        group: "coordination.k8s.io",
        resource: "leases",
        verbs: &["create"],
        of: Of::All,
        scope: Scope::Release,
        reason: "which replica leads; a name that is to be made cannot be granted",
    },
    Permission {
        group: "coordination.k8s.io",
        resource: "leases",
        verbs: &["get", "update"],
        of: Of::Lease,
        scope: Scope::Release,
        reason: "which replica leads",
    },
    Permission {
        group: "",
        resource: "secrets",
        verbs: &["create"],
        of: Of::All,
        scope: Scope::Release,
        reason: "the certificates; a name that is to be made cannot be granted",
    },
    Permission {
        group: "",
        resource: "secrets",
        verbs: &["get", "list", "watch", "update"],
        of: Of::Secret,
        scope: Scope::Release,
        reason: "the certificates, which every replica reads and the leader renews",
    },
];

impl Installation {
    /// What its cluster-wide objects are called: another installation has others.
    pub fn cluster_name(&self) -> String {
        format!("{}.{}", self.service, self.namespace)
    }

    /// The name of the objects that a permission is for; `None` for all.
    pub fn name_of(&self, of: Of) -> Option<&str> {
        match of {
            Of::All => None,
            Of::Lease => Some(&self.service),
            Of::Secret => Some(&self.secret),
            Of::Webhooks => Some(&self.webhooks),
        }
    }

    /// Its service account, both roles, and their bindings to it.
    pub fn objects(&self) -> Vec<Value> {
        let Self {
            namespace, service, ..
        } = self;
        let cluster = json!({"name": self.cluster_name()});
        let release = json!({"name": service, "namespace": namespace});
        let group = "rbac.authorization.k8s.io";
        let version = format!("{group}/v1");
        let binding = |kind: &str, role: &str, metadata: &Value| {
            json!({
                "apiVersion": version, "kind": kind, "metadata": metadata,
                "roleRef": {"apiGroup": group, "kind": role, "name": metadata["name"]},
                "subjects": [{"kind": "ServiceAccount", "name": service, "namespace": namespace}],
            })
        };
        vec![
            json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": release}),
            json!({
                "apiVersion": version, "kind": "ClusterRole", "metadata": cluster,
                "rules": self.rules(Scope::Cluster),
            }),
            binding("ClusterRoleBinding", "ClusterRole", &cluster),
            json!({
                "apiVersion": version, "kind": "Role", "metadata": release,
                "rules": self.rules(Scope::Release),
            }),
            binding("RoleBinding", "Role", &release),
        ]
    }

    fn rules(&self, scope: Scope) -> Vec<Value> {
        let of_scope = PERMISSIONS.iter().filter(|one| one.scope == scope);
        // An installation may have none of something, such as webhook configurations.
        let of_scope = of_scope.filter(|one| self.name_of(one.of) != Some(""));
        let rule = |permission: &Permission| {
            let verbs = self.verbs(permission);
            if verbs.is_empty() {
                return None;
            }
            let mut rule = json!({
                "apiGroups": [permission.group], "resources": [permission.resource], "verbs": verbs,
            });
            if let Some(name) = self.name_of(permission.of) {
                rule["resourceNames"] = json!([name]);
            }
            Some(rule)
        };
        of_scope.filter_map(rule).collect()
    }

    /// What it may do of a permission: a Secret that somebody else keeps is not written.
    pub fn verbs(&self, permission: &Permission) -> Vec<&'static str> {
        let reads_only = permission.resource == "secrets" && self.managed == Managed::External;
        let verbs = permission.verbs.iter().copied();
        verbs
            .filter(|verb| !reads_only || ["get", "list", "watch"].contains(verb))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_of_somebody_else_are_only_read() {
        let installation = Installation {
            managed: Managed::External,
            ..Installation::default()
        };
        let secrets: Vec<Value> = installation.rules(Scope::Release);
        let secrets = secrets
            .iter()
            .filter(|rule| rule["resources"][0] == "secrets");
        let verbs: Vec<&Value> = secrets.map(|rule| &rule["verbs"]).collect();
        assert_eq!(verbs, [&json!(["get", "list", "watch"])]);
    }

    #[test]
    fn what_has_a_name_is_granted_by_name_and_nothing_is_granted_twice() {
        for (index, one) in PERMISSIONS.iter().enumerate() {
            let by_name = one.of != Of::All;
            let is_ours = one.scope == Scope::Release || one.group.starts_with("admission");
            // RBAC knows no name of what does not exist yet.
            assert_eq!(by_name, is_ours && one.verbs != ["create"], "{one:?}");
            assert!(!one.reason.is_empty() && !one.verbs.contains(&"*"));
            for other in &PERMISSIONS[index + 1..] {
                let same = (one.group, one.resource, one.scope)
                    == (other.group, other.resource, other.scope);
                let shares = one.verbs.iter().any(|verb| other.verbs.contains(verb));
                assert!(!(same && shares), "{one:?} and {other:?}");
            }
        }
    }
}
