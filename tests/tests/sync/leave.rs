//! Leaving for pressure is asked for: granted, denied, or by a permit where nobody answers.

use std::time::{Duration, Instant};

use ringside::backend::inject::{Errno, Syscalls};
use ringside_api::sync::{Leave, LeaveAnswer};
use ringside_tests::controller::{Authority, Controller, Manner, NAME, Pod, Script, Valid};
use ringside_tests::relay::{Kind, Relay, Setup};
use ringside_tests::traffic::{Pattern, Stream};
use ringside_tests::{await_that, namespaced};
use serde_json::json;

use crate::traffic::echoing;

/// A pod whose sidecar can be put under pressure.
struct Stage {
    authority: Authority,
    controller: Option<Controller>,
    port: u16,
    pod: Pod,
    setup: Setup,
    /// Declared last: it is what the relay leads to.
    _server: ringside_tests::traffic::Server,
}

impl Stage {
    fn new(script: Script) -> Self {
        let (authority, server) = (Authority::new(), echoing());
        let controller = Controller::start(&authority, script);
        let pod = Pod::new(authority.pem());
        let setup = Setup::new(Kind::Ring)
            .to(&server)
            .settings(json!({"readiness": {"unreadyAfter": "300ms", "recoverAfter": "1s"}}))
            .flags(pod.flags(controller.address()))
            .watched(Syscalls::Submissions);
        Self {
            port: controller.address().port(),
            authority,
            controller: Some(controller),
            pod,
            setup,
            _server: server,
        }
    }

    fn controller(&self) -> &Controller {
        self.controller.as_ref().expect("it is there")
    }

    fn start(&self) -> Relay {
        self.setup.clone().start()
    }

    fn restart_controller(&mut self, script: Script) {
        let identity = self.authority.identity(NAME, Valid::Now);
        self.controller = Some(Controller::start_as(identity, self.port, script));
    }
}

fn granted(for_millis: u64) -> Option<LeaveAnswer> {
    Some(LeaveAnswer::Granted { for_millis })
}

/// Refuses all submissions until it is told to stop, with a client that waits for its answer.
fn press(relay: &Relay) -> Stream {
    let stream = relay.connect();
    stream.ping(Pattern::new(3), 0, 100).unwrap();
    relay
        .injector()
        .fail_for(Duration::from_secs(120), Errno::EAGAIN);
    stream.send(Pattern::new(3), 100, 200, 100).unwrap();
    stream
}

fn relieve(relay: &Relay, stream: &Stream) {
    relay.injector().stop();
    stream.receive(Pattern::new(3), 100, 200).unwrap();
}

fn leaves(relay: &Relay, outcome: &str) -> f64 {
    relay.metric("leaves_total", &[("outcome", outcome)])
}

fn reason(relay: &Relay) -> String {
    relay.admin("GET", "/readyz").unwrap().body
}

namespaced!(
    a_grant_lets_it_leave_is_renewed_and_ends_with_the_pressure,
    {
        let stage = Stage::new(Script {
            leave: granted(2000),
            ..Script::default()
        });
        let relay = stage.start();
        let stream = press(&relay);
        let asked = stage.controller().await_call("the question", 0, |report| {
            report.state.leave == Leave::Wants && report.at_once
        });
        assert!(
            asked.report.state.ready && asked.report.state.pushback_percent >= 50,
            "{asked:?}"
        );
        assert!(asked.report.state.pushed_back_for_millis.is_some());
        await_that("it to be away", || !relay.ready());
        assert!(reason(&relay).contains("the controller lets it leave"));
        stage
            .controller()
            .await_call("word that it is away", 0, |report| {
                report.state.leave == Leave::Away && !report.state.ready
            });
        // Longer than one grant: it asks for more before it ends, and is away all the time.
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_secs(5) {
            assert!(!relay.ready(), "it came back: {}", reason(&relay));
            std::thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(
            (
                leaves(&relay, "granted"),
                relay.status()["controller"]["leave"].as_str()
            ),
            (1.0, Some("away"))
        );
        relieve(&relay, &stream);
        let from = stage.controller().calls().len();
        await_that("it to be back", || relay.ready());
        stage
            .controller()
            .await_call("word that it is back", from, |report| {
                report.state.leave == Leave::Stays && report.state.ready
            });
        // Each change overtook a call that was held, on the same connection.
        let overtaken = relay.metric("sync_calls_total", &[("outcome", "superseded")]);
        let connections = stage.controller().connections();
        assert!(
            overtaken >= 3.0 && connections == 1,
            "{overtaken}, {connections}"
        );
    }
);

namespaced!(a_denial_keeps_it_and_a_later_grant_lets_it_go, {
    let stage = Stage::new(Script {
        permit: true,
        ..Script::default()
    });
    let relay = stage.start();
    relay.await_metric("leave_permit", &[], |permit| permit == 1.0);
    let stream = press(&relay);
    relay.await_metric("leaves_total", &[("outcome", "denied")], |count| {
        count == 1.0
    });
    // The permit is for when nobody answers: well beyond its patience the pod is still there, and says why.
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(3) {
        assert!(
            relay.ready(),
            "it left though it was denied: {}",
            reason(&relay)
        );
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(reason(&relay).contains("the controller denies it: the test says no"));
    assert_eq!(relay.metric("ready", &[]), 1.0);
    stage
        .controller()
        .change(|script| script.leave = granted(3000));
    await_that("it to be away", || !relay.ready());
    // Taken back while it is away.
    stage
        .controller()
        .change(|script| script.leave = Some(LeaveAnswer::Denied("too many".to_owned())));
    await_that("it to be back", || relay.ready());
    assert!(reason(&relay).contains("too many"));
    relieve(&relay, &stream);
});

namespaced!(without_an_answer_and_without_a_permit_it_stays, {
    let stage = Stage::new(Script {
        leave: None,
        ..Script::default()
    });
    let relay = stage.start();
    let stream = press(&relay);
    relay.await_metric("leaves_total", &[("outcome", "unanswered")], |count| {
        count == 1.0
    });
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(2) {
        assert!(relay.ready(), "it left without leave");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(
        reason(&relay).contains("has given it no permit"),
        "{}",
        reason(&relay)
    );
    relieve(&relay, &stream);
});

namespaced!(one_that_never_met_its_controller_stays, {
    let mut stage = Stage::new(Script::default());
    stage.controller = None;
    let relay = stage.start();
    let stream = press(&relay);
    relay.await_metric("leaves_total", &[("outcome", "unanswered")], |count| {
        count == 1.0
    });
    assert!(relay.ready());
    relieve(&relay, &stream);
});

namespaced!(
    a_permit_lets_it_leave_where_nobody_answers_also_after_a_restart,
    {
        let mut stage = Stage::new(Script {
            permit: true,
            ..Script::default()
        });
        let relay = stage.start();
        stage
            .controller()
            .await_call("word of the permit", 0, |report| report.permit);
        drop(relay);
        stage.controller = None;

        let relay = stage.start();
        assert_eq!(relay.metric("leave_permit", &[]), 1.0);
        let stream = press(&relay);
        await_that("it to want to leave", || {
            reason(&relay).contains("it would leave")
        });
        let wanted = Instant::now();
        await_that("it to be away", || !relay.ready());
        let waited = wanted.elapsed();
        assert!(
            waited > Duration::from_millis(700),
            "it waited for an answer for {waited:?} only"
        );
        assert!(reason(&relay).contains("by its permit"));
        assert_eq!(leaves(&relay, "permitted"), 1.0);

        // A controller comes that takes the permit back: the pod is back, and says at once that it holds none.
        stage.restart_controller(Script::default());
        let call = stage
            .controller()
            .await_call("a pod that is away", 0, |_| true);
        assert!(
            call.report.permit && call.report.state.leave == Leave::Away,
            "{call:?}"
        );
        let done = stage
            .controller()
            .await_call("the permit to be given back", 1, |report| !report.permit);
        assert!(done.at - call.at < Duration::from_secs(1));
        await_that("it to be back", || relay.ready());
        assert_eq!(relay.metric("leave_permit", &[]), 0.0);
        relieve(&relay, &stream);
        drop(relay);
        let kept = std::fs::read_to_string(stage.pod.state().join("controller.json")).unwrap();
        assert!(kept.contains("\"permit\":false"), "{kept}");
    }
);

namespaced!(a_grant_that_is_not_renewed_ends_unless_there_is_a_permit, {
    for permit in [false, true] {
        let mut stage = Stage::new(Script {
            leave: granted(2000),
            permit,
            ..Script::default()
        });
        let relay = stage.start();
        stage
            .controller()
            .await_call("the permit as it should be", 0, |report| {
                report.permit == permit
            });
        let stream = press(&relay);
        await_that("it to be away", || !relay.ready());
        stage
            .controller()
            .change(|script| script.manner = Manner::Silent);
        stage.controller = None;
        if permit {
            await_that("the permit to take over", || {
                reason(&relay).contains("by its permit")
            });
            assert_eq!(
                relay.metric("readiness_flips_total", &[]),
                1.0,
                "it was back in between"
            );
        } else {
            let lost = Instant::now();
            await_that("it to be back", || relay.ready());
            assert!(
                lost.elapsed() < Duration::from_secs(3),
                "{:?}",
                lost.elapsed()
            );
        }
        relieve(&relay, &stream);
    }
});

namespaced!(without_a_controller_it_leaves_by_its_own_rule, {
    let stage = Stage::new(Script::default());
    let relay = stage.setup.flags([]).start();
    let stream = press(&relay);
    await_that("it to be away", || !relay.ready());
    assert_eq!(leaves(&relay, "own"), 1.0);
    assert!(!relay.metrics().has("ringside_controller_connected"));
    assert!(relay.status()["controller"].is_null());
    relieve(&relay, &stream);
});
