//! Settings that change under traffic: what changed holds, what ran goes on, and what is wrong is told and left.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::time::Duration;

use ringside_tests::await_that;
use ringside_tests::relay::{Kind, Relay, Route, Setup};
use ringside_tests::traffic::{Pattern, Server, Stream, echo};
use serde_json::json;

ringside_tests::instances! {
    everywhere: [],
    ringside: [
        a_changed_setting_holds_for_what_is_open,
        a_mounted_file_is_swapped,
        a_listener_comes_and_one_goes,
        a_bad_file_changes_nothing_and_is_told,
        many_reloads_under_traffic,
    ],
}

const UP: Pattern = Pattern::new(9);

fn lenient_echo() -> Server {
    Server::local(|stream, number| echo(stream, number).or(Ok(())))
}

/// What identifies the settings in effect.
fn settings_in_effect(relay: &Relay) -> Vec<BTreeMap<String, String>> {
    let metrics = relay.metrics();
    let mut labels: Vec<_> = metrics
        .matching("ringside_settings_info", &[])
        .map(|sample| sample.labels.clone())
        .collect();
    labels.sort();
    assert!(!labels.is_empty(), "there is no ringside_settings_info");
    labels
}

fn change_idle_time(mut relay: Relay) {
    let stream = relay.connect();
    stream.ping(UP, 0, 1000).unwrap();
    let before = settings_in_effect(&relay);
    relay.reconfigure(|setup| setup.settings(json!({"timeouts": {"idle": "1s"}})));
    await_that("the new settings to be in effect", || {
        settings_in_effect(&relay) != before
    });
    stream.ping(UP, 1000, 2000).unwrap();
    // The connection is older than the setting, and still obeys it.
    stream.set_patience(Duration::from_secs(8)).unwrap();
    stream.await_gone().unwrap();
    relay.expect_closed("idle_timeout", 1);
    assert_eq!(relay.metric("settings_errors_total", &[]), 0.0);
}

fn a_changed_setting_holds_for_what_is_open(kind: Kind) {
    let server = lenient_echo();
    change_idle_time(Setup::new(kind).to(&server).start());
}

fn a_mounted_file_is_swapped(kind: Kind) {
    let server = lenient_echo();
    change_idle_time(Setup::new(kind).to(&server).mounted().start());
}

fn a_listener_comes_and_one_goes(kind: Kind) {
    let (first, second) = (lenient_echo(), lenient_echo());
    let mut relay = Setup::new(kind).to(&first).start();
    let old_address = relay.address();
    let stream = relay.connect();
    stream.ping(UP, 0, 1000).unwrap();

    let more = Route::new("more", &second.target());
    relay.reconfigure(|setup| setup.route(more.clone()));
    await_that("the new listener", || {
        relay.status()["relays"]
            .as_array()
            .is_some_and(|relays| relays.len() == 2)
    });
    relay.look();
    let new_stream = relay.connect_to(relay.address_of("more"));
    new_stream.ping(UP, 0, 1000).unwrap();
    assert_eq!(
        relay.address_of("web"),
        old_address,
        "a listener that did not change keeps its port"
    );

    relay.reconfigure(|_| Setup::new(kind).route(more.clone()));
    await_that("the old listener to be gone", || {
        Stream::connect(old_address)
            .is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
    });
    stream.exchange(UP, UP, 1000..2 << 20, 64 << 10).unwrap();
    new_stream
        .exchange(UP, UP, 1000..2 << 20, 64 << 10)
        .unwrap();
    drop((stream, new_stream));
    relay.settle();
}

fn a_bad_file_changes_nothing_and_is_told(kind: Kind) {
    let server = lenient_echo();
    let mut relay = Setup::new(kind).to(&server).start();
    let stream = relay.connect();
    stream.ping(UP, 0, 1000).unwrap();
    let before = settings_in_effect(&relay);
    let good = relay.status()["relays"].clone();
    let mut errors = 0.0;
    let target = server.target();
    for (text, parts) in [
        ("relays: [", vec!["line"]),
        (
            "relays: []\nsettings:\n  timeouts:\n    idle: banana\n",
            vec!["timeouts.idle", "banana", "line 4"],
        ),
        (
            "relays: []\nsettings: {timeout: {idle: 1s}}\n",
            vec!["timeout", "timeouts"],
        ),
        ("", vec![]),
    ] {
        relay.write_config(text);
        relay.await_metric("settings_errors_total", &[], |count| count > errors);
        errors = relay.metric("settings_errors_total", &[]);
        let (status, log) = (relay.status().to_string(), relay.process().log());
        for part in parts {
            assert!(
                status.contains(part),
                "/statusz does not tell `{part}` of {text:?}: {status}"
            );
            assert!(
                log.contains(part),
                "the log does not tell `{part}` of {text:?}"
            );
        }
        assert_eq!(
            settings_in_effect(&relay),
            before,
            "{text:?} changed the settings"
        );
        assert_eq!(
            relay.status()["relays"],
            good,
            "{text:?} changed the relays"
        );
    }
    stream.ping(UP, 1000, 2000).unwrap();
    relay.connect().ping(UP, 0, 1000).unwrap();

    // And a good file after all of them is taken.
    relay.reconfigure(|setup| setup.settings(json!({"timeouts": {"idle": "40s"}})));
    await_that("the new settings to be in effect", || {
        settings_in_effect(&relay) != before
    });
    stream.ping(UP, 2000, 3000).unwrap();
    assert_eq!(target, server.target());
}

fn many_reloads_under_traffic(kind: Kind) {
    let server = lenient_echo();
    let mut relay = Setup::new(kind).to(&server).workers(2).start();
    let address = relay.address();
    std::thread::scope(|scope| {
        let traffic: Vec<_> = (0..4)
            .map(|seed| {
                scope.spawn(move || {
                    let stream = Stream::connect(address).unwrap();
                    let pattern = Pattern::new(seed);
                    let result = stream.exchange(pattern, pattern, 0..48 << 20, 64 << 10);
                    result.unwrap_or_else(|trouble| panic!("client {seed}: {trouble}"));
                })
            })
            .collect();
        let mut round = 0_u32;
        while traffic.iter().any(|thread| !thread.is_finished()) || round < 5 {
            let before = settings_in_effect(&relay);
            round += 1;
            let settings = json!({"buffers": {"perDirection": format!("{}Ki", 64 + round % 3 * 64)},
                "timeouts": {"idle": format!("{}s", 100 + round)}});
            relay.reconfigure(|setup| setup.settings(settings));
            await_that("the new settings to be in effect", || {
                settings_in_effect(&relay) != before
            });
        }
    });
    relay.expect_closed("finished", 4);
    relay.settle();
}
