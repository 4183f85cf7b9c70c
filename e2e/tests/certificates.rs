//! The controller's certificates in a real Secret: made, loaded, mended, fought over, and spread to webhook configurations.

use std::pin::pin;
use std::time::{Duration, Instant};

use futures_util::{Stream, StreamExt};
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, WatchEvent, WatchParams};
use kube::{Api, Client};
use ringside_controller::certificates::{
    Contents, Handle, KEYS, Keeper, Managed, Setup, Terms, Webhooks, verify,
};
use ringside_e2e::PATIENCE;
use ringside_e2e::apiserver::{ApiServer, Namespace};
use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

const SECRET: &str = "ringside-controller-tls";

fn runtime() -> Runtime {
    Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime for a test")
}

/// A replica of the controller, as far as certificates go; it ends when it is dropped.
struct Replica {
    handle: Handle,
    leads: watch::Sender<bool>,
    _stop: watch::Sender<bool>,
    run: JoinHandle<()>,
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.run.abort();
    }
}

fn setup(namespace: &Namespace<'_>) -> Setup {
    let terms = Terms::for_service("ringside-controller", namespace.name(), &[]);
    Setup {
        namespace: namespace.name().to_owned(),
        secret: SECRET.to_owned(),
        managed: Managed::Here,
        terms: terms.unwrap(),
        webhooks: Webhooks::default(),
    }
}

fn replica(client: &Client, setup: Setup, leads: bool) -> Replica {
    let (leads, told) = watch::channel(leads);
    let (stop, stopped) = watch::channel(false);
    let (keeper, handle) = Keeper::new(client.clone(), setup, told);
    let run = tokio::spawn(keeper.run(stopped));
    Replica {
        handle,
        leads,
        _stop: stop,
        run,
    }
}

/// Looks until something is found.
async fn until<T>(what: &str, mut found: impl AsyncFnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = found().await {
            return found;
        }
        assert!(start.elapsed() < PATIENCE, "never: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn contents(api: &Api<Secret>) -> Option<Contents> {
    let secret = api.get_opt(SECRET).await.expect("it can be read");
    secret.as_ref().map(Contents::of)
}

async fn spoil(api: &Api<Secret>, data: Value) {
    let patch = Patch::Merge(json!({"stringData": data}));
    let patched = api.patch(SECRET, &PatchParams::default(), &patch).await;
    patched.expect("it can be spoilt");
}

fn cas(bundle: &str) -> usize {
    bundle.matches("BEGIN CERTIFICATE").count()
}

fn is_good(contents: &Contents, namespace: &Namespace<'_>) -> bool {
    let terms = setup(namespace).terms;
    let now = Timestamp::now();
    verify(contents, terms.names(), now).is_ok()
}

/// Waits until a replica has in effect what the Secret holds, which is good.
async fn agrees(replica: &Replica, api: &Api<Secret>, namespace: &Namespace<'_>) -> Contents {
    until(
        "what a replica shows is what the Secret holds",
        async || {
            let contents = contents(api).await?;
            let same = *replica.handle.ca_bundle() == *contents.ca_crt;
            let agrees = same && replica.handle.is_ready() && replica.handle.problem().is_none();
            (agrees && is_good(&contents, namespace)).then_some(contents)
        },
    )
    .await
}

#[test]
fn a_secret_is_made_loaded_by_all_and_mended_when_it_is_spoilt() {
    let test = "a_secret_is_made_loaded_by_all_and_mended_when_it_is_spoilt";
    let Some(server) = ApiServer::shared(test) else {
        return;
    };
    let namespace = server.namespace("certificates");
    runtime().block_on(async {
        let client = server.client();
        let api: Api<Secret> = Api::namespaced(client.clone(), namespace.name());
        let follower = replica(&client, setup(&namespace), false);
        let none = until("that there is no Secret is told", async || {
            follower.handle.problem()
        });
        let none = none.await;
        assert!(none.contains("there is no Secret"), "{none}");
        let leader = replica(&client, setup(&namespace), true);
        let first = agrees(&leader, &api, &namespace).await;
        assert_eq!(agrees(&follower, &api, &namespace).await, first);
        assert_eq!(
            follower.handle.ca_fingerprint(),
            leader.handle.ca_fingerprint()
        );
        let secret = api.get(SECRET).await.unwrap();
        assert_eq!(secret.type_.as_deref(), Some("kubernetes.io/tls"));
        assert!(secret.data.unwrap().keys().eq(KEYS));

        // What was good is put back, so that nobody notices.
        for garbage in [
            json!({"tls.key": "garbage"}),
            json!({"ca.crt": "", "tls.crt": "-"}),
        ] {
            spoil(&api, garbage).await;
            let mended = until("it is mended", async || {
                contents(&api).await.filter(|now| is_good(now, &namespace))
            });
            assert_eq!(mended.await, first);
        }

        // Deleted, as who wants another CA would: it joins, and the leaf stays for those who do not know it.
        let mut changed = follower.handle.changed();
        changed.mark_unchanged();
        let delete = DeleteParams::default();
        api.delete(SECRET, &delete).await.unwrap();
        changed.changed().await.unwrap();
        assert_eq!(cas(&changed.borrow().ca_bundle), 2);
        let second = agrees(&follower, &api, &namespace).await;
        assert_eq!(second.tls_crt, first.tls_crt);
        assert_ne!(second.ca_key, first.ca_key);
        assert!(second.ca_crt.ends_with(&first.ca_crt));

        // Garbage that nobody remembers anything better than; and the follower is told to lead.
        drop(leader);
        drop(follower);
        let all = json!({"ca.crt": "a", "ca.key": "b", "tls.crt": "c", "tls.key": "d"});
        spoil(&api, all).await;
        let follower = replica(&client, setup(&namespace), false);
        let told = until("garbage is told", async || follower.handle.problem());
        let told = told.await;
        assert!(told.contains("holds no certificate in PEM"), "{told}");
        assert!(!follower.handle.is_ready());
        follower.leads.send(true).unwrap();
        let third = agrees(&follower, &api, &namespace).await;
        assert_eq!(cas(&third.ca_crt), 1);
    });
}

/// Every version of the Secret, with the second in which it was written: a watch misses none, however slow this machine is.
async fn versions(client: &Client, namespace: &Namespace<'_>) -> impl Stream<Item = Version> {
    let api: Api<Secret> = Api::namespaced(client.clone(), namespace.name());
    let now = api.list(&ListParams::default()).await.expect("a list");
    let from = now.metadata.resource_version.expect("a list has one");
    let only = WatchParams::default().fields(&format!("metadata.name={SECRET}"));
    let events = api.watch(&only, &from).await.expect("a watch");
    events.map(|event| match event.expect("the watch goes on") {
        WatchEvent::Added(secret) | WatchEvent::Modified(secret) => {
            let managed = secret.metadata.managed_fields.iter().flatten();
            let written = managed.filter_map(|by| by.time.as_ref()).map(|time| time.0);
            (Contents::of(&secret), written.max().expect("a time"))
        }
        other => panic!("the Secret is only written: {other:?}"),
    })
}

type Version = (Contents, Timestamp);

#[test]
fn a_leaf_is_renewed_in_time_without_anybody() {
    let test = "a_leaf_is_renewed_in_time_without_anybody";
    let Some(server) = ApiServer::shared(test) else {
        return;
    };
    let namespace = server.namespace("renewed");
    runtime().block_on(async {
        let client = server.client();
        let mut setup = setup(&namespace);
        let lives = [60, 15, 2].map(Duration::from_secs);
        setup.terms = setup.terms.living(lives[0], lives[1], lives[2]).unwrap();
        let names = setup.terms.names().to_vec();
        let mut versions = pin!(versions(&client, &namespace).await);
        let mut version = async || {
            let next = timeout(PATIENCE, versions.next());
            next.await.expect("never: another version").expect("one")
        };
        let _leader = replica(&client, setup, true);
        let (first, _) = version().await;
        let (mut before, mut renewed, mut joined) = (first.clone(), 0, 0);
        let signed_by_the_first =
            |leaf: &Contents, at| verify(&with_cas(leaf, &first), &names, at).is_ok();
        loop {
            let (now, at) = version().await;
            verify(&now, &names, at).expect("what is written is good");
            verify(&with_cas(&now, &before), &names, at)
                .expect("who knows the bundle before believes what is signed now");
            verify(&with_cas(&before, &now), &names, at)
                .expect("a leaf is replaced before its end, and good by the bundle after it");
            renewed += usize::from(now.tls_crt != before.tls_crt && now.ca_crt == first.ca_crt);
            joined += usize::from(cas(&now.ca_crt) == 2 && cas(&before.ca_crt) == 1);
            if !signed_by_the_first(&now, at) {
                break;
            }
            before = now;
        }
        assert!(renewed > 0, "a leaf by the first CA, and another");
        assert_eq!(joined, 1, "the second CA was known before it signed");
    });
}

/// A leaf as who knows another version's CAs sees it.
fn with_cas(leaf: &Contents, of: &Contents) -> Contents {
    Contents {
        tls_crt: leaf.tls_crt.clone(),
        tls_key: leaf.tls_key.clone(),
        ..of.clone()
    }
}

#[test]
fn two_that_take_themselves_for_the_leader_agree() {
    let test = "two_that_take_themselves_for_the_leader_agree";
    let Some(server) = ApiServer::shared(test) else {
        return;
    };
    let namespace = server.namespace("two");
    runtime().block_on(async {
        let client = server.client();
        let api: Api<Secret> = Api::namespaced(client.clone(), namespace.name());
        let both = [(); 2].map(|()| replica(&client, setup(&namespace), true));
        for round in 0..6 {
            let mut agreed = Vec::new();
            for replica in &both {
                agreed.push(agrees(replica, &api, &namespace).await);
            }
            // The first may have been overtaken by a write of the second's; in the end there is one.
            let settled = until("both show the same", async || {
                let one = agrees(&both[0], &api, &namespace).await;
                let other = agrees(&both[1], &api, &namespace).await;
                (one == other).then_some(one)
            });
            let settled = settled.await;
            assert!(cas(&settled.ca_crt) <= 4, "round {round}: {settled:?}");
            spoil(&api, json!({"ca.key": format!("garbage {round}")})).await;
            until("it is mended", async || {
                let now = contents(&api).await?;
                (!now.ca_key.contains("garbage")).then_some(())
            })
            .await;
        }
    });
}

#[test]
fn a_secret_that_somebody_else_keeps_is_read_and_never_written() {
    let test = "a_secret_that_somebody_else_keeps_is_read_and_never_written";
    let Some(server) = ApiServer::shared(test) else {
        return;
    };
    let namespace = server.namespace("external");
    runtime().block_on(async {
        let client = server.client();
        let api: Api<Secret> = Api::namespaced(client.clone(), namespace.name());
        let maker = replica(&client, setup(&namespace), true);
        let made = agrees(&maker, &api, &namespace).await;
        drop(maker);
        // As cert-manager does, which keeps the CA's key to itself.
        spoil(&api, json!({"ca.key": ""})).await;
        let external = Setup {
            managed: Managed::External,
            ..setup(&namespace)
        };
        let reader = replica(&client, external, true);
        agrees(&reader, &api, &namespace).await;
        spoil(&api, json!({"tls.key": "garbage"})).await;
        let version = async || api.get(SECRET).await.unwrap().metadata.resource_version;
        let before = version().await;
        let told = until("garbage is told", async || reader.handle.problem());
        let told = told.await;
        assert!(
            told.contains("tls.key holds no private key")
                && told.contains("whoever keeps it has to mend it"),
            "{told}"
        );
        // Looked at, and left as it is: whoever writes does so before the problem is told.
        assert_eq!(version().await, before);
        assert!(reader.handle.is_ready());
        spoil(&api, json!({"tls.key": made.tls_key})).await;
        let mended = async || reader.handle.problem().is_none().then_some(());
        until("it is mended by its keeper", mended).await;
    });
}

/// A webhook configuration that is asked for nothing; it is deleted when it is dropped.
struct Configuration<'a> {
    server: &'a ApiServer,
    kind: &'static str,
    name: String,
}

impl<'a> Configuration<'a> {
    fn make(server: &'a ApiServer, kind: &'static str, name: &str) -> Self {
        let configuration = Self {
            server,
            kind,
            name: name.to_owned(),
        };
        configuration.apply();
        configuration
    }

    /// As a chart would, which knows no CA.
    fn apply(&self) {
        let webhook = |name: &str| {
            json!({
                "name": format!("{name}.ringside.dev"), "sideEffects": "None", "admissionReviewVersions": ["v1"],
                "failurePolicy": "Ignore", "clientConfig": {"service": {"name": "ringside", "namespace": "nowhere", "path": "/"}},
                "rules": [{"apiGroups": ["nothing.example"], "apiVersions": ["v1"], "resources": ["nothings"], "operations": ["CREATE"]}],
            })
        };
        let object = json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": self.kind,
            "metadata": {"name": self.name}, "webhooks": [webhook("one"), webhook("two")],
        });
        self.server.apply(&object.to_string());
    }

    fn bundles(&self) -> Vec<String> {
        let object = self
            .server
            .kubectl(&["get", self.kind, &self.name, "-o=json"]);
        let object: Value = serde_json::from_str(&object).unwrap();
        let webhooks = object["webhooks"].as_array().unwrap().iter();
        let bundle = |webhook: &Value| {
            let bundle = webhook["clientConfig"]["caBundle"].clone();
            let bytes = serde_json::from_value::<k8s_openapi::ByteString>(bundle);
            String::from_utf8(bytes.map(|bytes| bytes.0).unwrap_or_default()).unwrap()
        };
        webhooks.map(bundle).collect()
    }

    async fn has(&self, bundle: &str) {
        until("all webhooks have the bundle", async || {
            let all = self.bundles();
            (all.len() == 2 && all.iter().all(|one| one == bundle)).then_some(())
        })
        .await;
    }
}

impl Drop for Configuration<'_> {
    fn drop(&mut self) {
        let _ = self.server.try_kubectl(&["delete", self.kind, &self.name]);
    }
}

#[test]
fn webhook_configurations_get_the_bundle_and_keep_it() {
    let test = "webhook_configurations_get_the_bundle_and_keep_it";
    let Some(server) = ApiServer::shared(test) else {
        return;
    };
    let namespace = server.namespace("webhooks");
    let [mutating, late, others] =
        ["mutating", "late", "others"].map(|what| format!("{}-{what}", namespace.name()));
    runtime().block_on(async {
        let client = server.client();
        let api: Api<Secret> = Api::namespaced(client.clone(), namespace.name());
        let first = Configuration::make(server, "MutatingWebhookConfiguration", &mutating);
        let foreign = Configuration::make(server, "MutatingWebhookConfiguration", &others);
        let with = |mutating: &str, validating: &[String]| Setup {
            webhooks: Webhooks {
                mutating: vec![mutating.to_owned()],
                validating: validating.to_vec(),
            },
            ..setup(&namespace)
        };
        let leader = replica(&client, with(&mutating, std::slice::from_ref(&late)), true);
        let follower = replica(&client, with(&others, &[]), false);
        agrees(&leader, &api, &namespace).await;
        first.has(&leader.handle.ca_bundle()).await;
        // One that is installed later.
        let late = Configuration::make(server, "ValidatingWebhookConfiguration", &late);
        late.has(&leader.handle.ca_bundle()).await;
        // An upgrade that takes it away.
        let none = r#"[{"op": "remove", "path": "/webhooks/1/clientConfig/caBundle"}]"#;
        server.kubectl(&["patch", first.kind, &first.name, "--type=json", "-p", none]);
        first.has(&leader.handle.ca_bundle()).await;
        // Another CA.
        let mut changed = leader.handle.changed();
        changed.mark_unchanged();
        spoil(&api, json!({"ca.key": "garbage"})).await;
        changed.changed().await.unwrap();
        let bundle = leader.handle.ca_bundle();
        assert_eq!(cas(&bundle), 2);
        first.has(&bundle).await;
        late.has(&bundle).await;
        // Who does not lead writes nothing, until it leads.
        agrees(&follower, &api, &namespace).await;
        assert_eq!(foreign.bundles(), ["", ""]);
        drop(leader);
        follower.leads.send(true).unwrap();
        foreign.has(&bundle).await;
    });
}
