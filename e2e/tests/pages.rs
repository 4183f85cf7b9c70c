//! The controller's page in a real browser: a fleet under pressure at a real API server, as a person sees it.

use std::sync::{Mutex, PoisonError};

use ringside_e2e::await_that;
use ringside_e2e::definitions::installed;
use ringside_e2e::fleet::{Fleet, Kind};
use ringside_e2e::running::Running;
use ringside_tests::browser::{Browser, axe};
use ringside_tests::skip::skip;
use serde_json::json;

/// Held by each test: two installations in one cluster would both write the status of every policy.
static ALONE: Mutex<()> = Mutex::new(());

#[test]
fn a_fleet_under_pressure_is_seen_and_the_worst_off_come_first() {
    const TEST: &str = "a_fleet_under_pressure_is_seen_and_the_worst_off_come_first";
    let Some(server) = installed(TEST) else {
        return;
    };
    let Some(browser) = Browser::start(TEST) else {
        return;
    };
    let axe = axe().inspect_err(|why| skip(&format!("{TEST} (axe-core)"), why));
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let here = Running::start(server);
    for (name, app, percent) in [("api", "api", 25), ("web", "web", 50)] {
        let policy = json!({
            "apiVersion": "ringside.dev/v1alpha1", "kind": "RelayPolicy", "metadata": {"name": name},
            "spec": {"podSelector": {"matchLabels": {"app": app}}, "readiness": {"unreadyAfter": "300ms", "recoverAfter": "1s",
                "maxUnreadyPercent": percent}},
        });
        let answer = here
            .shop
            .try_kubectl_with(&["apply", "-f", "-"], &policy.to_string());
        assert!(answer.status.success(), "{answer}");
    }
    let mut fleet = Fleet::new(server, &here.shop, &here.ca);
    fleet.add("api", &[Kind::Stubbed; 8], here.controller.tls);
    fleet.add("web", &[Kind::Stubbed; 4], here.controller.tls);
    await_that("the permits that the limits allow", || {
        fleet.permits("").len() == 4
    });

    browser.resize(1280, 1000);
    browser.open(&format!("http://{}/", here.controller.http));
    let shop = json!(here.shop.name());
    browser.await_true("all pods to be ready", &format!("last && last.pods.filter((pod) => pod.namespace === {shop} && pod.state === 'ready').length === 12"));
    fleet.press_some("api", true);
    browser.await_true("two to be away and six held", &format!(
        "last.policies.some((p) => p.namespace === {shop} && p.name === 'api' && p.away === 2 && p.held === 6)"
    ));
    browser.await_true(
        "conditions",
        "document.getElementById('policies').textContent.includes('Degraded: LeaveLimitReached')",
    );
    let first = browser.text("#pods tr td:nth-of-type(2)");
    assert!(["away", "held"].contains(&first.as_str()), "{first}");
    assert!(
        browser.text("#graphs").contains("2away6held"),
        "{}",
        browser.text("#graphs")
    );

    // Only what has all words is listed.
    browser.run("const filter = document.getElementById('filter'); filter.value = 'web ready'; filter.dispatchEvent(new Event('input'));");
    assert!(
        browser.text("#count").starts_with("4 shown, of "),
        "{}",
        browser.text("#count")
    );
    browser.run("const filter = document.getElementById('filter'); filter.value = ''; filter.dispatchEvent(new Event('input'));");

    for scheme in ["light", "dark"] {
        browser.prefer(&[("prefers-color-scheme", scheme)]);
        for width in [360, 1280] {
            browser.resize(width, 1000);
            assert!(
                !browser.scrolls_sideways(),
                "{scheme} at {width} px scrolls sideways"
            );
            if let Ok(axe) = &axe {
                assert_eq!(
                    browser.judge_accessibility(axe),
                    Vec::<String>::new(),
                    "{scheme} at {width} px"
                );
            }
            if let Some(folder) = std::env::var_os("RINGSIDE_PICTURES") {
                browser.picture(
                    &std::path::Path::new(&folder).join(format!("fleet-{scheme}-{width}.png")),
                );
            }
        }
    }
    let console = browser.console();
    let bad: Vec<_> = console
        .iter()
        .filter(|(level, text)| level == "SEVERE" || text.contains("Content Security"))
        .collect();
    assert!(bad.is_empty(), "{bad:?}");

    // The controller is started anew: the page says so, and goes on by itself where it is found again.
    fleet.press(false);
    browser.await_true("the end of it", &format!("last.policies.some((p) => p.namespace === {shop} && p.name === 'api' && p.away === 0 && p.held === 0)"));
    here.controller.process.signal(libc::SIGKILL);
    browser.await_true(
        "word of the loss",
        "!document.getElementById('lost').hidden",
    );
    assert!(browser.text("#why").starts_with("No answer since "));
    let _again = here.installation.start_in_place_of(&here.controller, "two");
    browser.await_true(
        "the page to go on",
        "document.getElementById('lost').hidden",
    );
    browser.await_true("all pods to be ready again", &format!("last.pods.filter((pod) => pod.namespace === {shop} && pod.state === 'ready').length === 12"));
}
