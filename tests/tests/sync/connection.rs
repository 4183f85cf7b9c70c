//! The connection to the controller: lost and found, to another replica, with another token.

use std::time::Duration;

use ringside_tests::controller::{Authority, Controller, Manner, NAME, Pod, Script, Valid};
use ringside_tests::relay::Relay;
use ringside_tests::{await_that, namespaced};
use serde_json::json;

use crate::traffic::{Clients, echoing, sidecar};

fn outcome(relay: &Relay, outcome: &str) -> f64 {
    relay.metric("sync_calls_total", &[("outcome", outcome)])
}

namespaced!(
    a_controller_that_is_gone_changes_nothing_and_is_found_again,
    {
        let (authority, server) = (Authority::new(), echoing());
        let mut script = Script::default();
        let hash = script.offer("api", json!({"timeouts": {"idle": "21s"}}));
        let controller = Controller::start(&authority, script);
        let pod = Pod::new(authority.pem());
        let relay = sidecar(&server, &pod, &controller).start();
        controller.await_call("the policy to run", 0, |report| report.runs == hash);
        let clients = Clients::start(&relay, 4);

        let port = controller.address().port();
        drop(controller);
        await_that("the loss to be seen", || {
            relay.metric("controller_connected", &[]) == 0.0
        });
        await_that("it to be tried again", || {
            outcome(&relay, "unreachable") >= 3.0
        });
        assert!(relay.ready(), "no controller is no reason to be unready");
        let error = relay.status()["controller"]["lastError"]["message"].clone();
        assert!(
            error.as_str().unwrap().contains("cannot be reached"),
            "{error}"
        );
        clients.await_more(100);
        // Each kind of error is told once.
        let log = relay.process().log();
        assert_eq!(log.matches("cannot be reached").count(), 1, "{log}");

        let identity = authority.identity(NAME, Valid::Now);
        let controller = Controller::start_as(identity, port, Script::default());
        let call = controller.await_call("a call", 0, |_| true);
        assert_eq!(call.report.runs, hash, "it goes on with what it ran");
        await_that("the connection to be seen", || {
            relay.metric("controller_connected", &[]) == 1.0
        });
        clients.finish();
        assert_eq!(relay.metric("readiness_flips_total", &[]), 0.0);
    }
);

namespaced!(a_follower_names_the_leader_and_the_leader_is_called, {
    let (authority, server) = (Authority::new(), echoing());
    let mut script = Script::default();
    let hash = script.offer("api", json!({"timeouts": {"idle": "21s"}}));
    let leader = Controller::start(&authority, script);
    let body = json!({"why": "another leads", "leader": leader.address().to_string()});
    let misdirected = Script {
        manner: Manner::Says(421, vec![], body.to_string()),
        ..Script::default()
    };
    let follower = Controller::start(&authority, misdirected);
    let pod = Pod::new(authority.pem());
    let relay = sidecar(&server, &pod, &follower).start();
    leader.await_call("the leader's policy to run", 0, |report| {
        report.runs == hash
    });
    assert_eq!(follower.calls().len(), 1);
    let address = relay.status()["controller"]["address"].clone();
    assert_eq!(address, leader.address().to_string());

    // The leader is gone, and the follower leads.
    follower.change(|script| script.manner = Manner::Answers);
    drop(leader);
    follower.await_call("a call", 1, |report| report.runs == hash);

    // Two that name each other are not called in a storm.
    let body = json!({"why": "another leads", "leader": follower.address().to_string()});
    let before = outcome(&relay, "redirected");
    follower.change(|script| script.manner = Manner::Says(421, vec![], body.to_string()));
    await_that("some redirections", || {
        outcome(&relay, "redirected") >= before + 3.0
    });
    std::thread::sleep(Duration::from_secs(1));
    assert!(outcome(&relay, "redirected") < before + 12.0);
});

namespaced!(a_token_is_read_anew_for_each_call, {
    let (authority, server) = (Authority::new(), echoing());
    let controller = Controller::start(&authority, Script::default());
    let pod = Pod::new(authority.pem());
    let _relay = sidecar(&server, &pod, &controller).start();
    let first = controller.await_call("a first call", 0, |_| true);
    assert_eq!(first.authorization, "Bearer first");
    pod.write("token", "second");
    let from = controller.calls().len();
    let hash =
        controller.change(|script| script.offer("api", json!({"timeouts": {"idle": "21s"}})));
    let next = controller.await_call("the next call", from, |report| report.runs == hash);
    assert_eq!(next.authorization, "Bearer second");
    assert_eq!(controller.connections(), 1, "on the same connection");
});

namespaced!(
    a_token_that_is_not_believed_is_shown_seldom_and_told_once,
    {
        let (authority, server) = (Authority::new(), echoing());
        let says = |status, headers| Script {
            manner: Manner::Says(
                status,
                headers,
                json!({"why": "this pod is unknown"}).to_string(),
            ),
            ..Script::default()
        };
        let controller = Controller::start(&authority, says(403, vec![]));
        let pod = Pod::new(authority.pem());
        let relay = sidecar(&server, &pod, &controller).start();
        relay.await_metric("sync_calls_total", &[("outcome", "refused")], |count| {
            count == 1.0
        });
        let log = relay.process().log();
        assert!(
            log.contains("does not take this pod's token: this pod is unknown"),
            "{log}"
        );
        std::thread::sleep(Duration::from_secs(1));
        assert_eq!(outcome(&relay, "refused"), 1.0);
        assert!(relay.ready());
        drop(relay);

        // Without a token it does not even connect, and says which file it misses.
        let connections = controller.connections();
        std::fs::remove_file(pod.files().join("token")).unwrap();
        let relay = sidecar(&server, &pod, &controller).start();
        relay.await_metric("sync_calls_total", &[("outcome", "refused")], |count| {
            count == 1.0
        });
        let error = relay.status()["controller"]["lastError"]["message"].to_string();
        assert!(error.contains("files/token cannot be shown"), "{error}");
        assert_eq!(controller.connections(), connections);
    }
);

namespaced!(a_request_to_wait_is_heeded, {
    let (authority, server) = (Authority::new(), echoing());
    let script = Script {
        manner: Manner::Says(503, vec![("retry-after", "2".to_owned())], String::new()),
        ..Script::default()
    };
    let controller = Controller::start(&authority, script);
    let pod = Pod::new(authority.pem());
    let relay = sidecar(&server, &pod, &controller).start();
    await_that("a second call", || controller.calls().len() >= 2);
    let calls = controller.calls();
    let gap = calls[1].at - calls[0].at;
    assert!(
        gap >= Duration::from_secs(2) && gap < Duration::from_secs(5),
        "{gap:?}"
    );
    controller.change(|script| script.manner = Manner::Answers);
    await_that("an answer", || {
        outcome(&relay, "superseded") + outcome(&relay, "busy") >= 2.0
    });
    controller.await_call("a call that is held", 2, |_| true);
});
