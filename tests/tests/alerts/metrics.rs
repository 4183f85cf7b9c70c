//! The sidecar's metrics as promtool judges them, and what rules take for granted of their labels.

use std::path::Path;

use ringside::backend::inject::{Denial, Errno};
use ringside_monitoring::rules::Rules;
use ringside_tests::namespaced;
use ringside_tests::processes::installed;
use ringside_tests::prometheus::{PROGRAMS, promtool};
use ringside_tests::relay::{Kind, Setup};
use ringside_tests::traffic::{Pattern, Server, echo};

namespaced!(promtool_finds_nothing_in_a_scrape_of_a_sidecar, {
    if !installed(
        "metrics::promtool_finds_nothing_in_a_scrape_of_a_sidecar",
        &PROGRAMS,
    ) {
        return;
    }
    for kind in [Kind::Ring, Kind::Epoll, Kind::TokioUring] {
        let server = Server::local(echo);
        let relay = Setup::new(kind).to(&server).workers(2).start();
        relay.connect().ping(Pattern::new(1), 0, 1000).unwrap();
        let text = relay.admin("GET", "/metrics").unwrap().body;
        let (is_good, said) = promtool(["check", "metrics"], Path::new("/"), &text).unwrap();
        assert!(is_good && said.is_empty(), "{kind:?}: {said}");
    }
});

/// Rules tell a fallback by the words for what is none.
#[test]
fn only_a_fallback_is_told_as_one() {
    ringside_tests::namespace::run("alerts::metrics::only_a_fallback_is_told_as_one", || {
        let server = Server::local(echo);
        let reason = |setup: Setup| {
            let relay = setup.to(&server).start();
            let metrics = relay.metrics();
            let info = metrics.matching("ringside_backend_info", &[("backend", "epoll")]);
            let reasons: Vec<String> = info.map(|one| one.labels["reason"].clone()).collect();
            assert_eq!(reasons.len(), 1);
            reasons[0].clone()
        };
        assert_eq!(reason(Setup::new(Kind::Epoll)), "asked for");
        let denied = Setup::new(Kind::Auto).denied(Denial::Setup(Errno::EPERM));
        assert!(reason(denied).starts_with("no ring: "));
    });
    let rules = Rules::shipped();
    let told =
        |rule: &ringside_monitoring::rules::Alert| rule.expr.contains(r#"reason!="asked for""#);
    assert_eq!(rules.alerts().filter(|rule| told(rule)).count(), 1);
}
