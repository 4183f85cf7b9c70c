//! Connections that are not relayed: to an application that is not there, to the relay's own port, in a circle, or while there is
//! no relay.

use ringside_tests::await_that;
use ringside_tests::instances;
use ringside_tests::outside::Outside;
use ringside_tests::processes::output;
use ringside_tests::relay::Kind;
use ringside_tests::traffic::{Pattern, Server, Stream, echo};
use serde_json::json;

use crate::{PORT, REDIRECT, RELAY_PORT, can_redirect, intercept, opened, redirect, relaying};

instances! {
    everywhere: [],
    ringside: [
        the_port_is_as_honest_as_the_application,
        an_application_on_the_loopback_alone_stays_there,
        who_comes_to_the_relays_own_port_is_refused,
        what_is_redirected_from_another_port_is_refused,
        others_rules_that_lead_in_a_circle_end_at_once,
        without_the_relay_the_port_refuses_until_the_rules_are_gone,
    ],
}

const PATTERN: Pattern = Pattern::new(15080);

fn is_refused(outside: &Outside, port: u16) -> bool {
    let connected = outside.connect((outside.pod()[0], port).into());
    connected.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
}

/// What a kubelet's probe of the application's port sees.
fn the_port_is_as_honest_as_the_application(kind: Kind) {
    if !can_redirect("the_port_is_as_honest_as_the_application") {
        return;
    }
    let outside = Outside::join(1);
    let relay = relaying(kind).start();
    redirect(REDIRECT);
    // A check that was answered too late leaves it open at first, and those that come after close it.
    await_that("the port to be closed", || is_refused(&outside, PORT));
    let application = Server::tcp(&format!("0.0.0.0:{PORT}"), echo);
    await_that("the port to open", || !is_refused(&outside, PORT));
    let client = outside.connect((outside.pod()[0], PORT).into()).unwrap();
    client.ping(PATTERN, 0, 1000).unwrap();
    drop(client);
    relay.settle();
    drop(application);
    await_that("the port to close", || is_refused(&outside, PORT));
}

/// It cannot be reached from outside without the relay, and whoever binds to the loopback counts on that.
fn an_application_on_the_loopback_alone_stays_there(kind: Kind) {
    if !can_redirect("an_application_on_the_loopback_alone_stays_there") {
        return;
    }
    let outside = Outside::join(1);
    let application = Server::tcp(&format!("127.0.0.1:{PORT}"), echo);
    assert!(is_refused(&outside, PORT), "without any rules");
    let relay = relaying(kind).start();
    redirect(REDIRECT);
    await_that("the port to be closed", || is_refused(&outside, PORT));
    drop(relay);
    let relay = relaying(kind)
        .settings(json!({"targetCheck": {"mode": "Off"}}))
        .start();
    Stream::expect_turned_away(outside.connect((outside.pod()[0], PORT).into()));
    relay.expect_closed("connect_refused", 1);
    assert_eq!(application.accepted(), 0);
    application.settle();
}

fn who_comes_to_the_relays_own_port_is_refused(kind: Kind) {
    if !can_redirect("who_comes_to_the_relays_own_port_is_refused") {
        return;
    }
    let outside = Outside::join(1);
    let application = Server::tcp(&format!("[::]:{PORT}"), echo);
    let relay = relaying(kind).start();
    // Before there are rules the kernel tracks nothing; with them it does.
    for rules in 0..2_u32 {
        for address in outside.pod() {
            Stream::expect_turned_away(outside.connect((address, RELAY_PORT).into()));
        }
        for loopback in ["127.0.0.1", "::1"] {
            let address = (loopback.parse::<std::net::IpAddr>().unwrap(), RELAY_PORT);
            Stream::expect_turned_away(Stream::connect(address.into()));
        }
        relay.expect_closed("not_redirected", 4 * (rules + 1));
        redirect(REDIRECT);
    }
    assert_eq!(application.accepted(), 0);
    relay.settle();
    application.settle();
}

fn what_is_redirected_from_another_port_is_refused(kind: Kind) {
    if !can_redirect("what_is_redirected_from_another_port_is_refused") {
        return;
    }
    let outside = Outside::join(1);
    let application = Server::tcp(&format!("[::]:{PORT}"), echo);
    let other = Server::tcp("[::]:9090", echo);
    let relay = relaying(kind).start();
    redirect("8080:15080,9090:15080");
    Stream::expect_turned_away(outside.connect((outside.pod()[0], 9090).into()));
    relay.expect_closed("not_redirected", 1);
    assert_eq!(other.accepted() + application.accepted(), 0);
    relay.settle();
}

/// Rules that redirect what the pod itself sends take the relay's own connections, too.
fn others_rules_that_lead_in_a_circle_end_at_once(kind: Kind) {
    if !can_redirect("others_rules_that_lead_in_a_circle_end_at_once") {
        return;
    }
    let outside = Outside::join(1);
    let application = Server::tcp(&format!("[::]:{PORT}"), echo);
    let relay = relaying(kind)
        .settings(json!({"targetCheck": {"mode": "Off"}}))
        .start();
    redirect(REDIRECT);
    let nft = |rule: &str| output("nft", rule.split(' '));
    nft("add table inet others");
    nft("add chain inet others output { type nat hook output priority -100 ; }");
    nft("add rule inet others output tcp dport 8080 redirect to :15080");
    for address in outside.pod() {
        Stream::expect_turned_away(outside.connect((address, PORT).into()));
    }
    relay.expect_closed("redirect_loop", 2);
    relay.settle();
    // One from outside and one of the relay's own for each, and no more.
    assert_eq!(opened(&relay), 4.0);
    assert_eq!(application.accepted(), 0);
    nft("delete table inet others");
}

fn without_the_relay_the_port_refuses_until_the_rules_are_gone(kind: Kind) {
    if !can_redirect("without_the_relay_the_port_refuses_until_the_rules_are_gone") {
        return;
    }
    let outside = Outside::join(1);
    let application = Server::tcp(&format!("0.0.0.0:{PORT}"), echo);
    let pings = || {
        let client = outside.connect((outside.pod()[0], PORT).into()).unwrap();
        client.ping(PATTERN, 0, 1000).unwrap();
    };
    let relay = relaying(kind).start();
    redirect(REDIRECT);
    pings();
    drop(relay);
    // The kernel takes a ring's listener down a moment after the process.
    await_that("the relay to be gone", || is_refused(&outside, PORT));
    // The rules are the network's, and one that is started again finds them.
    let relay = relaying(kind).start();
    pings();
    assert_eq!(opened(&relay), 1.0);
    drop(relay);
    assert!(intercept(&["--remove"]).0);
    pings();
    application.settle();
}
