//! Things break: certificates grow old. A CA is replaced with overlap and a leaf in time, as they would be after months: the Secret is written as it
//! would be then, and the controller finds that it is time. The Secret is lost, too. Nobody who calls the controller loses trust for a moment.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use ringside_api::sync::fingerprint_of_trust;
use ringside_controller::certificates::{Contents, KEYS, Plan, Terms, plan};
use ringside_e2e::cluster::Cluster;
use ringside_e2e::story::{RELEASE, Ringside, Story, await_within};
use serde_json::{Value, json};

use crate::admission::Admission;
use crate::served::{PATIENCE, Served};

const SECRET: &str = "ringside-controller-tls";

const DAY: Duration = Duration::from_secs(86_400);

/// In how long it is time, once the Secret is written: longer than the news of a CA take here.
const SOON: Duration = Duration::from_secs(15);

#[test]
fn s07c_certificates_are_rotated() {
    let Some(story) = Story::begin(7, "Things break: certificates") else {
        return;
    };
    let cluster = story.cluster();
    story.step("two replicas of the controller, three pods, clients, and somebody who makes pods all the time");
    Ringside::installed_with(cluster, &["--set=replicaCount=2"]);
    let served = Served::deploy(&story, 3, 5_000, |_| {});
    let load = served.clients();
    let admission = Admission::of_pods(cluster, served.namespace.name());
    let terms = Terms::for_service("ringside-controller", RELEASE, &[]).expect("names");
    let before = secret(cluster);
    await_trust(&served, &before);

    story.step("the Secret as it is a day after a new CA has joined");
    // A second CA, older, is for the step after this one.
    let (joined, older) = (made(None, DAY - SOON, &terms), made(None, 25 * DAY, &terms));
    let written = Instant::now();
    write(
        cluster,
        &Contents {
            ca_crt: format!("{}{}{}", joined.ca_crt, before.ca_crt, older.ca_crt),
            ca_key: joined.ca_key.clone(),
            ..before.clone()
        },
    );
    let spread = secret(cluster);
    await_bundles(cluster, &spread);
    // Sidecars are told by the next answer to their calls, which they have every 30 s, or when their policy changes.
    served.change_settings(5_500);
    await_trust(&served, &spread);
    story.took(
        "a new CA is known to both webhook configurations, and to every sidecar by the next answer that it gets",
        written.elapsed(),
    );
    let renewed = await_leaf_after(cluster, &before);
    story.took(
        "the leaf is signed by it (a day after it joined, which is after 15 s here)",
        written.elapsed(),
    );
    let alone = Contents {
        ca_crt: joined.ca_crt.clone(),
        ..renewed
    };
    let kept = plan(Some(&alone), Timestamp::now(), &terms).expect("a plan");
    assert!(matches!(kept, Plan::Keep { .. }), "{kept:?}");
    call_anew(&story, &served);

    story.step("the Secret as it is when two thirds of its leaf's life are over");
    let unsigned = Contents {
        tls_crt: String::new(),
        tls_key: String::new(),
        ..older.clone()
    };
    let aged = made(Some(&unsigned), 20 * DAY - SOON / 2, &terms);
    let written = Instant::now();
    write(
        cluster,
        &Contents {
            ca_crt: format!("{}{}{}", older.ca_crt, joined.ca_crt, before.ca_crt),
            ..aged.clone()
        },
    );
    await_leaf_after(cluster, &aged);
    story.took(
        "the leaf is renewed (when two thirds of its life are over, which is after 7 s here)",
        written.elapsed(),
    );
    call_anew(&story, &served);

    story.step("the Secret is deleted");
    let held = secret(cluster);
    let deleted = Instant::now();
    cluster.kubectl(&["--namespace", RELEASE, "delete", "secret", SECRET]);
    let mended = await_within(PATIENCE, "the Secret to be made anew", || {
        try_secret(cluster)
    });
    story.took("the Secret deleted: it is made anew", deleted.elapsed());
    assert_eq!(
        mended.tls_crt, held.tls_crt,
        "the leaf stays while a new CA spreads"
    );
    await_bundles(cluster, &mended);
    served.change_settings(6_000);
    await_trust(&served, &mended);
    story.took(
        "every sidecar and both webhook configurations know its CA",
        deleted.elapsed(),
    );
    call_anew(&story, &served);

    let seen = admission.end();
    assert!(seen.others.is_empty(), "{seen:?}");
    story.shown(
        "pods made for trial all the while that got their relay; that did not",
        format_args!("{}; 0", seen.good),
    );
    story.shown(
        "calls of sidecars that did not trust the controller",
        served.untrusted(),
    );
    assert_eq!(served.untrusted(), 0.0);
    load.await_more(100);
    let total = load
        .assert_no_failures("while certificates were rotated")
        .total();
    story.shown(
        "requests and pieces of streams; failed",
        format_args!("{}; 0", total.answered),
    );
}

/// Makes every sidecar shake hands anew with what the controller shows now: another controller takes over.
fn call_anew(story: &Story, served: &Served) {
    let begin = Instant::now();
    let rollout = |words: &[&str]| {
        let deployment = ["deployment/ringside-controller", "--namespace", RELEASE];
        served
            .cluster
            .kubectl(&[&["rollout"], words, &deployment].concat())
    };
    rollout(&["restart"]);
    rollout(&["status", "--timeout=180s"]);
    served.await_connected(begin);
    story.took(
        "controllers restarted one by one: every sidecar has a new connection",
        begin.elapsed(),
    );
}

/// What a controller would have made of `contents` so long ago.
fn made(contents: Option<&Contents>, ago: Duration, terms: &Terms) -> Contents {
    let ago = SignedDuration::try_from(ago).expect("a time of this century");
    match plan(contents, Timestamp::now() - ago, terms) {
        Ok(Plan::Write { contents, .. }) => contents,
        other => panic!("something was to be made: {other:?}"),
    }
}

fn try_secret(cluster: &Cluster) -> Option<Contents> {
    let question = ["get", "secret", SECRET, "--output=json"];
    let answer = cluster.try_kubectl(&[&["--namespace", RELEASE], &question[..]].concat());
    let secret: Secret = serde_json::from_str(&answer.out).ok()?;
    Some(Contents::of(&secret))
}

#[track_caller]
fn secret(cluster: &Cluster) -> Contents {
    try_secret(cluster).expect("the Secret is there")
}

fn write(cluster: &Cluster, contents: &Contents) {
    let Contents {
        ca_crt,
        ca_key,
        tls_crt,
        tls_key,
    } = contents;
    let texts = KEYS.into_iter().zip([ca_crt, ca_key, tls_crt, tls_key]);
    let texts: serde_json::Map<String, Value> = texts
        .map(|(key, text)| (key.to_owned(), json!(text)))
        .collect();
    let patch = json!({"stringData": texts}).to_string();
    let words = ["patch", "secret", SECRET, "--patch", &patch];
    cluster.kubectl(&[&["--namespace", RELEASE], &words[..]].concat());
}

/// Waits until the Secret shows another leaf than `before`, and returns it.
#[track_caller]
fn await_leaf_after(cluster: &Cluster, before: &Contents) -> Contents {
    await_within(PATIENCE, "another leaf", || {
        try_secret(cluster).filter(|now| now.tls_crt != before.tls_crt)
    })
}

/// Waits until every sidecar trusts the Secret's CAs.
#[track_caller]
fn await_trust(served: &Served, secret: &Contents) {
    let fingerprint = fingerprint_of_trust(&secret.ca_crt);
    served.await_sidecars("every sidecar to know the CAs", |one| {
        one.trusts == fingerprint
    });
}

/// Waits until both webhook configurations have the Secret's CAs.
#[track_caller]
fn await_bundles(cluster: &Cluster, secret: &Contents) {
    let fingerprint = fingerprint_of_trust(&secret.ca_crt);
    await_within(PATIENCE, "the CAs in both webhook configurations", || {
        let have = ["mutating", "validating"].iter().all(|kind| {
            let kind = format!("{kind}webhookconfiguration");
            let bundle = "--output=jsonpath={.webhooks[0].clientConfig.caBundle}";
            let bundle = cluster.kubectl(&["get", &kind, RELEASE, bundle]);
            let bundle: Result<k8s_openapi::ByteString, _> = serde_json::from_value(json!(bundle));
            bundle.is_ok_and(|bundle| {
                fingerprint_of_trust(&String::from_utf8_lossy(&bundle.0)) == fingerprint
            })
        });
        have.then_some(())
    });
}
