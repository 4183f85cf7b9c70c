//! Nodes without IPv6: an injected sidecar, which is told to listen at `[::]`, listens there at 0.0.0.0.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;

use ringside::backend::inject::{self, Denial};
use ringside_tests::processes::Process;
use ringside_tests::relay::{Kind, Relay, Route, Setup};
use ringside_tests::setup::program;
use ringside_tests::traffic::{Pattern, Server, Stream, echo};
use ringside_tests::{await_some, namespaced};
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

namespaced!(the_controller_too_takes_all_addresses_of_ipv4, {
    let controller = Process::start("the controller", |folder| {
        // It listens before it asks an API server anything.
        let kubeconfig = folder.join("kubeconfig");
        let nobody = "{apiVersion: v1, kind: Config, current-context: c, contexts: [{name: c, context: {cluster: c, user: u}}], \
            clusters: [{name: c, cluster: {server: 'http://127.0.0.1:1'}}], users: [{name: u, user: {}}]}";
        fs::write(&kubeconfig, nobody).unwrap();
        let mut command = Command::new(program().with_file_name("ringside-controller"));
        command
            .env("KUBECONFIG", kubeconfig)
            .args([
                "run",
                "--listen",
                "[::]:0",
                "--http",
                "[::]:0",
                "--ports-file",
            ])
            .arg(folder.join("ports"));
        inject::deny(&mut command, Denial::Ipv6).unwrap();
        command
    });
    let ports: Value = await_some("the controller to listen", || {
        let text = fs::read_to_string(controller.folder().join("ports")).ok()?;
        serde_json::from_str(&text).ok()
    });
    for listener in ["tls", "http"] {
        let address = ports[listener].as_str().unwrap();
        assert!(address.starts_with("0.0.0.0:"), "{listener}: {address}");
    }
    assert_eq!(
        controller.log().matches(SAYS).count(),
        2,
        "for each listener"
    );
});

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
