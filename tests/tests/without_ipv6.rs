//! Nodes without IPv6: an injected sidecar, which is told to listen at `[::]`, listens there at 0.0.0.0.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};

use ringside::backend::inject::Denial;
use ringside_tests::namespaced;
use ringside_tests::relay::{Kind, Relay, Route, Setup};
use ringside_tests::traffic::{Pattern, Server, Stream, echo};
use serde_json::Value;

const SAYS: &str = "there is no IPv6 here";

/// A relay and an admin listener at `[::]`, as an injected sidecar has them.
fn injected(server: &Server) -> Setup {
    Setup::new(Kind::Epoll)
        .route(Route::new("web", &server.target()).listening("[::]:0"))
        .route(Route::new("more", &server.target()).listening("[::]:0"))
        .flags(["--admin".into(), "[::]:0".into()])
}

/// Where it says that it listens.
fn addresses(relay: &Relay) -> Vec<SocketAddr> {
    let status = relay.status();
    let relays = status["relays"].as_array().unwrap().iter();
    let texts = relays.map(|relay: &Value| relay["listen"][0].as_str().unwrap());
    texts.map(|text| text.parse().unwrap()).collect()
}

/// Both its relays and its probes answer by IPv4.
fn assert_serves(relay: &Relay) {
    for address in addresses(relay) {
        let stream = Stream::connect((Ipv4Addr::LOCALHOST, address.port()).into()).unwrap();
        stream.ping(Pattern::new(1), 0, 100).unwrap();
    }
    assert!(relay.ready());
}

namespaced!(
    without_ipv6_in_the_kernel_all_addresses_of_ipv4_take_its_place,
    {
        let server = Server::tcp("127.0.0.1:0", echo);
        let relay = injected(&server).denied(Denial::Ipv6).start();
        assert!(addresses(&relay).iter().all(SocketAddr::is_ipv4));
        assert_serves(&relay);
        let admin = fs::read_to_string(relay.process().folder().join("admin-port")).unwrap();
        assert!(admin.starts_with("0.0.0.0:"), "{admin}");
        let log = relay.process().log();
        assert_eq!(log.matches(SAYS).count(), 1, "{log}");
    }
);

namespaced!(an_address_that_somebody_wants_is_not_another_one, {
    let server = Server::tcp("127.0.0.1:0", echo);
    let (status, log) = Setup::new(Kind::Epoll)
        .route(Route::new("web", &server.target()).listening("[::1]:0"))
        .denied(Denial::Ipv6)
        .start_in_vain();
    assert!(!status.success());
    assert!(log.contains("cannot listen on [::1]"), "{log}");
    assert!(!log.contains(SAYS), "{log}");
});

namespaced!(with_ipv6_switched_off_by_sysctl_it_is_served_by_ipv4, {
    // In this test's own namespace. Not there: the kernel has none at all, which the tests above are about.
    for (name, value) in [
        ("conf/all/disable_ipv6", "1"),
        ("conf/lo/disable_ipv6", "1"),
    ] {
        let path = format!("/proc/sys/net/ipv6/{name}");
        if fs::exists(&path).unwrap() {
            fs::write(path, value).unwrap();
        }
    }
    // Whatever this says: `[::]` is both families.
    let only = "/proc/sys/net/ipv6/bindv6only";
    if fs::exists(only).unwrap() {
        fs::write(only, "1").unwrap();
    }
    let server = Server::tcp("127.0.0.1:0", echo);
    let relay = injected(&server).start();
    assert_serves(&relay);
});
