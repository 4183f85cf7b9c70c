//! Settings that policies assign: live at once, last good kept, over the file's.

use std::fs;
use std::time::{Duration, Instant};

use ringside_api::sync::Assigned;
use ringside_tests::controller::{Authority, Controller, Pod, SESSION, Script, assigned};
use ringside_tests::relay::Relay;
use ringside_tests::{await_that, namespaced};
use serde_json::{Value, json};

use crate::traffic::{Clients, echoing, sidecar};

fn config(relay: &Relay) -> Value {
    let answer = relay.admin("GET", "/config?format=json").unwrap();
    serde_json::from_str(&answer.body).unwrap()
}

/// The value of `settings.GROUP.FIELD` in effect.
fn in_effect(relay: &Relay, pointer: &str) -> Value {
    config(relay)
        .pointer(&format!("/settings{pointer}"))
        .cloned()
        .unwrap_or_default()
}

namespaced!(a_change_is_live_at_once_and_ends_no_connection, {
    let (authority, server) = (Authority::new(), echoing());
    let controller = Controller::start(&authority, Script::default());
    let pod = Pod::new(authority.pem());
    let relay = sidecar(&server, &pod, &controller).start();
    controller.await_call("a first call", 0, |report| {
        report.runs.is_empty() && report.pod.name == "web-1" && !report.version.is_empty()
    });
    let clients = Clients::start(&relay, 8);
    for (round, idle) in ["11s", "12s", "13s"].into_iter().enumerate() {
        let begin = Instant::now();
        let from = controller.calls().len();
        let hash =
            controller.change(|script| script.offer("api", json!({"timeouts": {"idle": idle}})));
        controller.await_call("word that it runs", from, |report| report.runs == hash);
        let took = begin.elapsed();
        let seen = controller.calls().last().unwrap().report.seen;
        assert_eq!((seen.session, seen.number), (SESSION, round as u64 + 1));
        println!("round {round}: live after {took:?}");
        // Far below how long a call is held, and above what a busy machine makes of it.
        assert!(
            took < Duration::from_secs(15),
            "round {round} took {took:?}"
        );
        assert_eq!(in_effect(&relay, "/timeouts/idle"), *idle);
    }
    let labels = [("source", "controller"), ("policy", "api")];
    assert_eq!(relay.metric("settings_info", &labels), 1.0);
    assert_eq!(relay.metric("controller_connected", &[]), 1.0);
    assert_eq!(
        config(&relay)["sources"]["timeouts.idle"],
        "RelayPolicy api"
    );
    clients.finish();
    relay.settle();
    relay.expect_closed("finished", 8);
});

namespaced!(
    a_bad_offer_is_refused_and_the_last_good_kept_over_a_restart,
    {
        let (authority, server) = (Authority::new(), echoing());
        let controller = Controller::start(&authority, Script::default());
        let pod = Pod::new(authority.pem());
        let relay = sidecar(&server, &pod, &controller).start();
        let good = controller
            .change(|script| script.offer("api", json!({"batch": {"min": 4, "max": 32}})));
        controller.await_call("the good one to run", 0, |report| report.runs == good);

        let from = controller.calls().len();
        let bad = controller
            .change(|script| script.offer("api", json!({"batch": {"min": 64, "max": 32}})));
        let call = controller.await_call("a refusal", from, |report| report.refused.is_some());
        let refused = call.report.refused.unwrap();
        assert_eq!(
            (refused.hash.as_str(), call.report.runs.as_str()),
            (bad.as_str(), good.as_str())
        );
        assert!(
            refused.why.contains("batch.min") && refused.why.contains("RelayPolicy"),
            "{refused:?}"
        );
        assert_eq!(in_effect(&relay, "/batch/max"), 32);
        assert_eq!(relay.metric("settings_errors_total", &[]), 1.0);
        let status = relay.status();
        assert_eq!(status["controller"]["refused"]["hash"], *bad, "{status}");
        // It says so once, and does not spin on it.
        let calls = controller.calls().len();
        let log = relay.process().log();
        assert_eq!(
            log.matches("what policies assign is refused").count(),
            1,
            "{log}"
        );
        std::thread::sleep(Duration::from_millis(500));
        assert!(controller.calls().len() <= calls + 1);

        drop((relay, controller));
        let gone = Controller::start(&authority, Script::default());
        let setup = sidecar(&server, &pod, &gone);
        drop(gone);
        let relay = setup.start();
        assert_eq!(in_effect(&relay, "/batch/max"), 32);
        assert_eq!(
            relay.status()["controller"]["runs"]["foundIn"],
            "state folder"
        );
        relay
            .connect()
            .ping(ringside_tests::traffic::Pattern::new(1), 0, 100)
            .unwrap();
    }
);

namespaced!(
    the_file_lies_under_the_policies_and_its_reload_leaves_them,
    {
        let (authority, server) = (Authority::new(), echoing());
        let mut script = Script::default();
        let first = script.offer("api", json!({"batch": {"max": 32}}));
        let controller = Controller::start(&authority, script);
        let pod = Pod::new(authority.pem());
        let own = |max: u32| json!({"batch": {"min": 4, "max": max}, "timeouts": {"idle": "90s"}});
        let mut relay = sidecar(&server, &pod, &controller)
            .settings(own(64))
            .start();
        controller.await_call("the policy to run", 0, |report| report.runs == first);
        let sources = || config(&relay)["sources"].clone();
        assert_eq!(sources()["batch.max"], "RelayPolicy api");
        assert_eq!(
            (&sources()["batch.min"], &sources()["tcp.noDelay"]),
            (&json!("file"), &json!("default"))
        );
        assert_eq!(in_effect(&relay, "/timeouts/idle"), "90s");

        relay.reconfigure(|setup| setup.settings(json!({"batch": {"min": 8, "max": 128}})));
        await_that("the file to be taken", || {
            in_effect(&relay, "/batch/min") == 8
        });
        assert_eq!(in_effect(&relay, "/batch/max"), 32);
        // A file that cannot be under these policies is refused, and they stay.
        relay.reconfigure(|setup| setup.settings(json!({"batch": {"min": 64, "max": 128}})));
        relay.await_metric("settings_errors_total", &[], |errors| errors == 1.0);
        assert!(
            config(&relay)["lastError"]
                .as_str()
                .unwrap()
                .contains("what policies assign")
        );
        assert_eq!(in_effect(&relay, "/batch/min"), 8);
        // And the other way round: what policies assign changes, the file's part stays.
        let next =
            controller.change(|script| script.offer("api", json!({"accept": {"backlog": 77}})));
        controller.await_call("the next to run", 0, |report| report.runs == next);
        assert_eq!(
            (
                in_effect(&relay, "/batch/max"),
                in_effect(&relay, "/batch/min")
            ),
            (json!(128), json!(8))
        );
    }
);

namespaced!(what_was_stamped_is_where_it_begins, {
    let (authority, server) = (Authority::new(), echoing());
    let controller = Controller::start(&authority, Script::default());
    let pod = Pod::new(authority.pem());
    let stamped = Assigned {
        hash: "0123".to_owned(),
        ..assigned("stamped", json!({"timeouts": {"idle": "21s"}}))
    };
    let text = serde_json::to_string(&stamped).unwrap();
    pod.write("settings.json", &text);
    {
        let relay = sidecar(&server, &pod, &controller).start();
        assert_eq!(in_effect(&relay, "/timeouts/idle"), "21s");
        controller.await_call("what was stamped", 0, |report| report.runs == "0123");
        // A word of the controller that changes nothing leaves it.
        assert_eq!(
            relay.status()["controller"]["runs"]["foundIn"],
            "pod annotation"
        );
    }
    // Half of each file: told, passed over, and it runs by its own settings.
    pod.write("settings.json", &text[..text.len() / 2]);
    fs::write(pod.state().join("controller.json"), "{\"assigned\": {").unwrap();
    let relay = sidecar(&server, &pod, &controller).start();
    assert_eq!(config(&relay)["sources"]["timeouts.idle"], "default");
    let log = relay.process().log();
    assert!(
        log.contains("settings.json is not understood")
            && log.contains("controller.json is not understood"),
        "{log}"
    );
    let hash =
        controller.change(|script| script.offer("api", json!({"timeouts": {"idle": "31s"}})));
    controller.await_call("the controller's to run", 0, |report| report.runs == hash);
});
