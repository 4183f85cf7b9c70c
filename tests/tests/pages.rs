//! The live page in a real browser, before a real relay with real traffic: it shows what is so, goes on when the relay is started anew,
//! and can be used by whoever cannot see, point, or bear what moves.

use std::ffi::OsString;
use std::time::Duration;

use ringside::backend::inject::{Errno, Syscalls};
use ringside_tests::browser::{Browser, axe, keys};
use ringside_tests::processes::free_port;
use ringside_tests::relay::{Kind, Relay, Setup};
use ringside_tests::skip::skip;
use ringside_tests::steady::Steady;
use ringside_tests::traffic::{Server, echo};
use ringside_tests::{await_that, http, namespace, namespaced};
use serde_json::{Value, json};

/// Its figures are there.
const SHOWN: &str = "document.querySelector('#relays td') && samples.length > 2";

fn url(relay: &Relay) -> String {
    format!("http://{}/", relay.admin_address())
}

/// What the console should not have said: errors and violations of the policy.
fn complaints(browser: &Browser) -> Vec<String> {
    let lines = browser.console().into_iter();
    let bad = lines.filter(|(level, text)| level == "SEVERE" || text.contains("Content Security"));
    bad.map(|(level, text)| format!("{level}: {text}"))
        .collect()
}

/// The last minutes as `/history` tells them.
fn history(relay: &Relay, query: &str) -> Value {
    let answer = http::get(relay.admin_address(), &format!("/history{query}")).unwrap();
    assert_eq!(answer.status, 200, "{answer:?}");
    serde_json::from_str(&answer.body).unwrap()
}

namespaced!(pressure_is_seen_as_it_comes_and_goes, {
    let Some(browser) = Browser::start("pressure_is_seen_as_it_comes_and_goes") else {
        return;
    };
    let server = Server::local(echo);
    let relay = Setup::new(Kind::Ring)
        .to(&server)
        .workers(2)
        .settings(json!({"readiness": {"unreadyAfter": "500ms", "recoverAfter": "1s"}, "batch": {"max": 128}}))
        .watched(Syscalls::Submissions)
        .start();
    let traffic = Steady::start(relay.address(), 6, 4000);
    await_that("some seconds to be remembered", || {
        history(&relay, "")["samples"]["atMillis"]
            .as_array()
            .unwrap()
            .len()
            > 4
    });
    browser.open(&url(&relay));
    // What was before the page was opened is on it.
    browser.await_true("the past", "samples.length > 4");
    browser.await_true(
        "throughput",
        "samples.at(-1).bytesToClient > 0 && samples.at(-1).connectionsOpen > 0",
    );
    assert_eq!(browser.text("#state"), "ready");
    let graphs = browser.text("#graphs");
    for part in [
        "Throughput",
        "to targets",
        "iB/s",
        "new a second",
        "Accept gateopen",
        "Readinessready",
    ] {
        assert!(graphs.contains(part), "no `{part}` in {graphs}");
    }
    assert!(browser.text("#backend").starts_with("ring: "));
    // A setting of the file is told from a default.
    let groups = browser.text("#groups");
    assert!(
        groups.contains("max128file") && groups.contains("min8default"),
        "{groups}"
    );

    relay
        .injector()
        .fail_for(Duration::from_secs(120), Errno::EAGAIN);
    browser.await_true(
        "pressure",
        "document.getElementById('state').textContent.startsWith('not ready: worker')",
    );
    browser.await_true(
        "a sample of it",
        "samples.some((s) => !s.ready && s.pushbackPercent > 0)",
    );
    browser.await_true(
        "the shade",
        "document.querySelector('.shade').getAttribute('d').startsWith('M')",
    );
    browser.await_true("the events", "['stall', 'gate', 'readiness'].every((kind) => [...events.values()].some((e) => e.kind === kind))");
    relay.injector().stop();
    browser.await_true(
        "the end of it",
        "document.getElementById('events').textContent.includes('ready again')",
    );
    let before = traffic.rounds();
    await_that("traffic to go on", || traffic.rounds() > before + 10);
    assert_eq!(complaints(&browser), Vec::<String>::new());
});

namespaced!(a_relay_that_is_started_anew_is_found_again, {
    let Some(browser) = Browser::start("a_relay_that_is_started_anew_is_found_again") else {
        return;
    };
    let server = Server::local(echo);
    let admin = format!("127.0.0.1:{}", free_port());
    let flags = ["--admin".to_owned(), admin].map(OsString::from);
    let setup = Setup::new(Kind::Ring).to(&server).flags(flags);
    let relay = setup.clone().start();
    browser.open(&url(&relay));
    browser.await_true("figures", SHOWN);
    let started = browser.run("return started;");
    drop(relay);
    browser.await_true(
        "word of the loss",
        "!document.getElementById('lost').hidden",
    );
    assert!(
        browser.text("#why").starts_with("No answer since "),
        "{}",
        browser.text("#why")
    );
    browser.run("window.before = samples.length;");
    let relay = setup.start();
    browser.await_true("its return", "document.getElementById('lost').hidden");
    browser.await_true(
        "its samples beside the old ones",
        "samples.length > before + 1",
    );
    assert_ne!(browser.run("return started;"), started);
    // That nobody answered is what the console told meanwhile; nothing else.
    let others = complaints(&browser);
    let others: Vec<_> = others
        .iter()
        .filter(|line| !line.contains("ERR_CONNECTION_REFUSED"))
        .collect();
    assert!(others.is_empty(), "{others:?}");
    // Paused, it asks nobody.
    browser.click("#pause");
    let asked = browser.run("return performance.getEntriesByType('resource').length;");
    browser.await_true(
        "a pause",
        "document.getElementById('pause').textContent === 'Go on'",
    );
    let later = history(&relay, "")["mark"].as_u64().unwrap() + 2;
    await_that("time to pass", || {
        history(&relay, "")["mark"].as_u64() >= Some(later)
    });
    let still = browser.run("return performance.getEntriesByType('resource').length;");
    assert!(
        still.as_u64() <= asked.as_u64().map(|asked| asked + 2),
        "{asked} {still}"
    );
});

#[test]
fn everybody_can_use_it() {
    const TEST: &str = concat!(module_path!(), "::everybody_can_use_it");
    // From the network that the test's namespace does not have.
    let axe = axe().inspect_err(|why| skip("everybody_can_use_it (axe-core)", why));
    namespace::run(TEST, move || used_by_everybody(axe.ok().as_deref()));
}

fn used_by_everybody(axe: Option<&str>) {
    let Some(browser) = Browser::start("everybody_can_use_it") else {
        return;
    };
    let server = Server::local(echo);
    let relay = Setup::new(Kind::Ring).to(&server).workers(2).start();
    let _traffic = Steady::start(relay.address(), 3, 1000);
    browser.open(&url(&relay));
    browser.await_true("figures", SHOWN);

    for scheme in ["light", "dark"] {
        browser.prefer(&[("prefers-color-scheme", scheme)]);
        for width in [360, 1180] {
            browser.resize(width, 900);
            assert!(
                !browser.scrolls_sideways(),
                "{scheme} at {width} px scrolls sideways"
            );
            if let Some(axe) = axe {
                assert_eq!(
                    browser.judge_accessibility(axe),
                    Vec::<String>::new(),
                    "{scheme} at {width} px"
                );
            }
        }
    }
    // The graphs are told in words.
    let told = browser.run("return [...document.querySelectorAll('svg[role=img]')].map((svg) => svg.getAttribute('aria-label'));");
    for label in told.as_array().unwrap() {
        let label = label.as_str().unwrap();
        assert!(
            label.contains("now") && label.contains("in the last 5 minutes"),
            "{label}"
        );
    }

    // By key alone: each stop of Tab is seen, and none is missing.
    browser.resize(360, 900);
    browser.run("document.activeElement.blur(); scrollTo(0, 0);");
    let mut stops = Vec::new();
    loop {
        browser.press(&[keys::TAB]);
        let stop = browser.run(
            "const at = document.activeElement; return [at.id || at.getAttribute('aria-labelledby') || at.getAttribute('href') || at.tagName, \
             parseFloat(getComputedStyle(at).outlineWidth) >= 2 && getComputedStyle(at).outlineStyle !== 'none'];",
        );
        if stop[0] == "BODY" {
            break;
        }
        assert_eq!(stop[1], true, "focus is not seen at {stop}");
        stops.push(stop[0].as_str().unwrap().to_owned());
    }
    for wanted in [
        "#main",
        "pause",
        "back",
        "relays-head",
        "workers-head",
        "events",
        "/statusz",
        "/config",
    ] {
        assert!(
            stops.iter().any(|stop| stop == wanted),
            "Tab never came to {wanted}: {stops:?}"
        );
    }
    browser.run("document.querySelector('[aria-labelledby=workers-head][tabindex]').focus();");
    browser.press(&[keys::RIGHT, keys::RIGHT, keys::RIGHT]);
    browser.await_true(
        "the table to scroll",
        "document.activeElement.scrollLeft > 0",
    );
    browser.run("document.getElementById('back').focus();");
    browser.press(&[keys::LEFT, keys::LEFT]);
    browser.await_true(
        "the past to be shown",
        "document.getElementById('back-at').textContent.startsWith('2 s ago, ')",
    );
    assert_eq!(complaints(&browser), Vec::<String>::new());

    let transition =
        "return getComputedStyle(document.getElementById('pause')).transitionDuration;";
    assert_ne!(browser.run(transition), "0s");
    browser.prefer(&[("prefers-reduced-motion", "reduce")]);
    assert_eq!(browser.run(transition), "0s");

    // The policy holds: what is not the page's own does not run.
    browser.run(
        "const add = (tag, text) => document.head.append(Object.assign(document.createElement(tag), {textContent: text}));\
         add('script', 'window.strange = 1;'); add('style', 'body { display: none }');",
    );
    assert_eq!(
        browser.run("return [typeof window.strange, getComputedStyle(document.body).display];"),
        json!(["undefined", "block"])
    );
    assert!(complaints(&browser).len() >= 2);
}

namespaced!(the_history_is_given_in_parts_and_nonsense_is_refused, {
    let server = Server::local(echo);
    let relay = Setup::new(Kind::Epoll).to(&server).start();
    await_that("a sample", || {
        history(&relay, "")["samples"]["atMillis"][0].is_u64()
    });
    let all = history(&relay, "");
    let sentences = all["events"].to_string();
    assert!(
        sentences.contains("ready: relays listen") && sentences.contains("on epoll"),
        "{sentences}"
    );
    let none = history(&relay, &format!("?after={}", all["mark"]));
    assert_eq!(none["events"], json!([]));
    assert_eq!(history(&relay, "?after=99999999")["events"], all["events"]);
    let refused = http::get(relay.admin_address(), "/history?before=1").unwrap();
    assert!(
        refused.status == 400 && refused.body.contains("?after=MARK"),
        "{refused:?}"
    );

    // What happens to settings is told.
    relay.write_config("relays: []\nsettings: {backof: {}}\n");
    await_that("a refusal to be told", || {
        history(&relay, "")["events"]
            .to_string()
            .contains("did you mean `backoff`?")
    });
    relay.admin("POST", "/drain").unwrap();
    await_that("the drain to be told", || {
        http::get(relay.admin_address(), "/history")
            .is_ok_and(|answer| answer.body.contains("draining, asked by POST /drain"))
    });
});
