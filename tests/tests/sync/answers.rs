//! Answers that are none: bounded in bytes and time, told, and of no consequence.

use std::fs;
use std::time::Duration;

use ringside_tests::controller::{Authority, Controller, Manner, Pod, Script};
use ringside_tests::namespaced;
use ringside_tests::relay::{Kind, Relay, Setup};
use serde_json::json;

use crate::traffic::{Clients, echoing, sidecar};

/// The resident memory of a process that is its own, in KiB.
fn resident_kib(relay: &Relay) -> u64 {
    memory_kib(relay, "RssAnon:")
}

fn memory_kib(relay: &Relay, field: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{}/status", relay.process().pid())).unwrap();
    let line = text.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn says(status: u16, body: &str) -> Manner {
    Manner::Says(status, vec![], body.to_owned())
}

namespaced!(nonsense_is_bounded_told_and_changes_nothing, {
    let (authority, server) = (Authority::new(), echoing());
    let controller = Controller::start(&authority, Script::default());
    let pod = Pod::new(authority.pem());
    let relay = sidecar(&server, &pod, &controller).start();
    let good =
        controller.change(|script| script.offer("api", json!({"timeouts": {"idle": "21s"}})));
    controller.await_call("the good one to run", 0, |report| report.runs == good);
    let clients = Clients::start(&relay, 2);
    let before = resident_kib(&relay);
    let deep = format!("{}{}", r#"{"offer":"#, "[".repeat(200_000));
    let large = format!(r#"{{"offer":{{"Keep":"{}"}}}}"#, "x".repeat(1 << 20));
    for manner in [
        says(200, ""),
        says(200, "<html>"),
        says(200, "{}"),
        says(200, r#"{"offer": {"Run": 7}}"#),
        says(200, &deep),
        says(200, &large),
        says(500, &large),
        says(204, ""),
        says(302, "elsewhere"),
        Manner::Endless,
    ] {
        let labels = [("outcome", "failed")];
        let failed = relay.metric("sync_calls_total", &labels);
        let from = controller.calls().len();
        controller.change(|script| script.manner = manner.clone());
        relay.await_metric("sync_calls_total", &labels, |now| now > failed);
        controller.change(|script| script.manner = Manner::Answers);
        controller.await_call("it to call again", from, |report| report.runs == good);
        clients.await_more(10);
    }
    let grown = resident_kib(&relay).saturating_sub(before);
    assert!(grown < 4 << 10, "it holds {grown} KiB more than before");
    assert_eq!(relay.status()["controller"]["runs"]["hash"], *good);
    assert!(relay.ready());
    clients.finish();
});

namespaced!(
    settings_that_this_version_does_not_know_are_refused_and_the_rest_is_believed,
    {
        let (authority, server) = (Authority::new(), echoing());
        let text = r#"{"offer": {"Run": {"hash": "newer", "policy": "api", "layers": {"policy": {"warp": {"speed": 9}}}}}, "permit": true}"#;
        let script = Script {
            manner: says(200, text),
            ..Script::default()
        };
        let controller = Controller::start(&authority, script);
        let pod = Pod::new(authority.pem());
        let relay = sidecar(&server, &pod, &controller).start();
        let call = controller.await_call("a refusal", 0, |report| report.refused.is_some());
        let refused = call.report.refused.unwrap();
        assert!(
            refused.hash == "newer" && refused.why.contains("warp"),
            "{refused:?}"
        );
        assert!(call.report.permit);
        // A controller that says the same again and again is not called in a storm.
        let calls = controller.calls().len();
        std::thread::sleep(Duration::from_secs(2));
        let more = controller.calls().len() - calls;
        assert!(more < 15, "{more} calls in two seconds");
        assert_eq!(relay.metric("settings_errors_total", &[]), 1.0);
    }
);

namespaced!(an_answer_that_never_comes_hinders_nothing, {
    let (authority, server) = (Authority::new(), echoing());
    for manner in [Manner::Silent, Manner::Slow] {
        let script = Script {
            manner,
            ..Script::default()
        };
        let controller = Controller::start(&authority, script);
        let pod = Pod::new(authority.pem());
        let mut relay = sidecar(&server, &pod, &controller).start();
        controller.await_call("a call", 0, |_| true);
        Clients::start(&relay, 2).finish();
        assert!(relay.ready());
        // Its end is told at once, by a call that takes the place of the one that is open.
        assert!(relay.admin("POST", "/drain").is_ok());
        controller.await_call("word that it drains", 0, |report| {
            report.state.draining && !report.state.ready && report.state.reason == "draining"
        });
        assert!(relay.process_mut().await_end().success());
    }
});

namespaced!(a_connection_to_a_controller_costs_little_memory, {
    let (authority, server) = (Authority::new(), echoing());
    let controller = Controller::start(&authority, Script::default());
    let pod = Pod::new(authority.pem());
    let alone = Setup::new(Kind::Auto).to(&server).start();
    let synced = sidecar(&server, &pod, &controller).start();
    let hash =
        controller.change(|script| script.offer("api", json!({"timeouts": {"idle": "21s"}})));
    controller.await_call("the policy to run", 0, |report| report.runs == hash);
    let show = |relay| (memory_kib(relay, "VmRSS:"), resident_kib(relay));
    let (alone, synced) = (show(&alone), show(&synced));
    println!(
        "resident KiB, and those that are its own: alone {alone:?}, with a controller {synced:?}"
    );
    assert!(
        synced.1 < alone.1 + 1024,
        "{synced:?} KiB with a controller, {alone:?} without"
    );
});
