//! Whom a sidecar believes to be its controller.

use std::sync::Arc;

use ringside_api::sync::fingerprint_of_trust;
use ringside_tests::controller::{Authority, Controller, NAME, Pod, Script, Valid};
use ringside_tests::{await_that, namespaced};
use serde_json::json;

use crate::traffic::{echoing, sidecar};

/// Starts a sidecar before a controller with this identity, and returns why it is not trusted.
fn refusal(identity: Arc<tokio_rustls::rustls::ServerConfig>, ca: &str) -> String {
    let server = echoing();
    let controller = Controller::start_as(identity, 0, Script::default());
    let pod = Pod::new(ca);
    let relay = sidecar(&server, &pod, &controller).start();
    relay.await_metric("sync_calls_total", &[("outcome", "untrusted")], |count| {
        count >= 1.0
    });
    assert!(relay.ready() && controller.calls().is_empty());
    let status = relay.status();
    assert_eq!(status["controller"]["connected"], false);
    let told = status["controller"]["lastError"]["message"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(relay.process().log().contains(&told));
    told
}

namespaced!(who_cannot_be_trusted_is_told_why_in_a_sentence, {
    let (authority, other) = (Authority::new(), Authority::new());
    let now = |name| authority.identity(name, Valid::Now);
    let said = refusal(now(NAME), other.pem());
    assert!(
        said.contains("issued by none of those that this pod trusts"),
        "{said}"
    );
    let said = refusal(now("another.svc"), authority.pem());
    assert!(said.contains(&format!("not for {NAME}")), "{said}");
    let said = refusal(authority.identity(NAME, Valid::Before), authority.pem());
    assert!(said.contains("has expired by this pod's clock"), "{said}");
    let said = refusal(authority.identity(NAME, Valid::Later), authority.pem());
    assert!(said.contains("not valid yet by this pod's clock"), "{said}");
    let said = refusal(now(NAME), "no certificate at all");
    assert!(
        said.contains("ca.pem") && said.contains("there is none"),
        "{said}"
    );
});

namespaced!(certificates_are_renewed_by_the_controller_and_kept, {
    let (old, new, server) = (Authority::new(), Authority::new(), echoing());
    let both = format!("{}{}", old.pem(), new.pem());
    let controller = Controller::start(&old, Script::default());
    let port = controller.address().port();
    let pod = Pod::new(old.pem());
    let relay = sidecar(&server, &pod, &controller).start();
    let call = controller.await_call("a call", 0, |_| true);
    assert_eq!(call.report.trusts, fingerprint_of_trust(old.pem()));

    // Nonsense is not trusted, and does not end what is.
    controller.change(|script| script.ca = Some("nonsense".to_owned()));
    await_that("the nonsense to be told", || {
        relay.status()["controller"]["lastError"]["message"]
            .as_str()
            .is_some_and(|told| told.contains("refused: there is none"))
    });
    // While both hold, both are trusted; then the old one is dropped.
    for bundle in [both.as_str(), new.pem()] {
        controller.change(|script| script.ca = Some(bundle.to_owned()));
        let trusts = fingerprint_of_trust(bundle);
        controller.await_call("the new ones to be trusted", 0, |report| {
            report.trusts == trusts
        });
        if bundle == both {
            assert_eq!(relay.status()["controller"]["trusts"], trusts);
        }
    }
    drop(controller);
    let controller = Controller::start_as(new.identity(NAME, Valid::Now), port, Script::default());
    controller.await_call("a call to the new one", 0, |_| true);
    drop((relay, controller));

    // A restarted container knows the new ones too, though its pod was stamped with the old one.
    let controller = Controller::start(&new, Script::default());
    let relay = sidecar(&server, &pod, &controller).start();
    controller.await_call("a call after a restart", 0, |_| true);
    drop((relay, controller));
    let hash = {
        let mut script = Script::default();
        let hash = script.offer("api", json!({"timeouts": {"idle": "21s"}}));
        let controller = Controller::start(&old, script);
        let relay = sidecar(&server, &pod, &controller).start();
        relay.await_metric("sync_calls_total", &[("outcome", "untrusted")], |count| {
            count >= 1.0
        });
        hash
    };
    assert!(!hash.is_empty());
});
