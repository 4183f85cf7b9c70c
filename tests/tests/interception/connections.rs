//! Connections that are redirected: that they arrive where they were to go, whole, and that nothing else is touched.

use std::io::Read;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};

use ringside_tests::await_that;
use ringside_tests::instances;
use ringside_tests::outside::Outside;
use ringside_tests::processes::output;
use ringside_tests::relay::{Kind, Route, Setup};
use ringside_tests::traffic::{Pattern, Server, Stream, Trouble, echo};

use crate::{PORT, REDIRECT, RELAY_PORT, can_redirect, opened, redirect, relaying};

instances! {
    everywhere: [],
    ringside: [
        clients_reach_the_application_at_its_own_port,
        the_address_that_was_meant_is_the_one_that_is_reached,
        what_the_pod_sends_to_itself_is_left_alone,
        what_the_pod_passes_on_to_others_is_left_alone,
        a_proxy_header_tells_the_client_and_the_address_that_it_meant,
        open_connections_outlive_new_rules,
    ],
}

const PATTERN: Pattern = Pattern::new(8080);

fn echoes(stream: &Stream, bytes: u64) {
    let exchanged = stream.exchange(PATTERN, PATTERN, 0..bytes, 16 << 10);
    exchanged.unwrap_or_else(|trouble| panic!("{trouble}"));
}

/// An application at all addresses of the pod, of both families.
fn application() -> Server {
    Server::tcp(&format!("[::]:{PORT}"), echo)
}

fn clients_reach_the_application_at_its_own_port(kind: Kind) {
    if !can_redirect("clients_reach_the_application_at_its_own_port") {
        return;
    }
    let outside = Outside::join(1);
    let application = application();
    let relay = relaying(kind).workers(2).start();
    redirect(REDIRECT);
    for address in outside.pod() {
        for bytes in [1, 100_000, 3_000_000] {
            let client = outside.connect((address, PORT).into()).unwrap();
            echoes(&client, bytes);
            client.finish().unwrap();
            client.receive_end(bytes).unwrap();
        }
    }
    assert_eq!(opened(&relay), 6.0);
    relay.expect_closed("finished", 6);
    relay.settle();
    application.settle();
}

/// The kernel redirects to an interface's first address: only who asks where a connection was to go finds the second.
fn the_address_that_was_meant_is_the_one_that_is_reached(kind: Kind) {
    if !can_redirect("the_address_that_was_meant_is_the_one_that_is_reached") {
        return;
    }
    let outside = Outside::join(1);
    for second in ["10.77.1.3/24", "fd77:0:0:1::3/64"] {
        output("ip", ["addr", "add", second, "dev", "eth1", "nodad"]);
    }
    let relay = relaying(kind).start();
    redirect(REDIRECT);
    for second in ["10.77.1.3", "fd77:0:0:1::3"] {
        let address = SocketAddr::new(second.parse().unwrap(), PORT);
        let application = Server::tcp(&address.to_string(), echo);
        await_listening(&outside, address);
        let client = outside.connect(address).unwrap();
        echoes(&client, 10_000);
        // At the first address nobody listens, and nobody is reached there.
        let first = outside
            .pod()
            .into_iter()
            .find(|ip| ip.is_ipv4() == address.is_ipv4());
        let other = outside.connect((first.unwrap(), PORT).into());
        Stream::expect_turned_away(other);
        drop(client);
        relay.settle();
        application.settle();
    }
    relay.expect_closed("connect_refused", 2);
}

/// Waits until the relay has seen that the application is there, and listens.
fn await_listening(outside: &Outside, address: SocketAddr) {
    await_that("the relay to listen", || outside.connect(address).is_ok());
}

fn what_the_pod_sends_to_itself_is_left_alone(kind: Kind) {
    if !can_redirect("what_the_pod_sends_to_itself_is_left_alone") {
        return;
    }
    let outside = Outside::join(1);
    let application = application();
    let relay = relaying(kind).start();
    redirect(REDIRECT);
    let own = outside.pod().into_iter();
    let all = own.chain(["127.0.0.1", "::1"].map(|loopback| loopback.parse().unwrap()));
    for address in all.collect::<Vec<IpAddr>>() {
        echoes(&Stream::connect((address, PORT).into()).unwrap(), 1000);
    }
    assert_eq!(application.accepted(), 4);
    assert_eq!(opened(&relay), 0.0);
    application.settle();
}

fn what_the_pod_passes_on_to_others_is_left_alone(kind: Kind) {
    if !can_redirect("what_the_pod_passes_on_to_others_is_left_alone") {
        return;
    }
    // The test's network is a router between two others.
    let (near, far) = (Outside::join(1), Outside::join(2));
    std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
    let way = |from: &Outside, to: &Outside| {
        let route = format!(
            "route add {}/32 via {} dev eth{}",
            to.own()[0],
            from.pod()[0],
            if from.pod() == near.pod() { 1 } else { 2 }
        );
        from.run(move || output("ip", route.split_whitespace()));
    };
    way(&near, &far);
    way(&far, &near);
    let there = far.own()[0];
    let application = far.run(move || Server::tcp(&format!("{there}:{PORT}"), echo));
    let relay = relaying(kind).settings(unchecked()).start();
    redirect(REDIRECT);
    echoes(&near.connect((there, PORT).into()).unwrap(), 1000);
    assert_eq!(application.accepted(), 1);
    assert_eq!(opened(&relay), 0.0);
    application.settle();
    // Its end connects to itself to wake up, which works there alone.
    far.run(move || drop(application));
}

/// Relays listen whatever their targets do.
fn unchecked() -> serde_json::Value {
    serde_json::json!({"targetCheck": {"mode": "Off"}})
}

fn a_proxy_header_tells_the_client_and_the_address_that_it_meant(kind: Kind) {
    if !can_redirect("a_proxy_header_tells_the_client_and_the_address_that_it_meant") {
        return;
    }
    let outside = Outside::join(1);
    let headers = Arc::new(Mutex::new(Vec::new()));
    let seen = headers.clone();
    let application = Server::tcp(&format!("[::]:{PORT}"), move |stream, _| {
        let read = |bytes: usize| {
            let mut buffer = vec![0; bytes];
            let mut io = stream;
            io.read_exact(&mut buffer).map_err(|source| Trouble::Io {
                doing: "receiving",
                after: 0,
                source,
            })?;
            Ok::<_, Trouble>(buffer)
        };
        let mut header = read(16)?;
        let rest = u16::from_be_bytes([header[14], header[15]]);
        header.extend(read(usize::from(rest))?);
        seen.lock().unwrap().push(header);
        echo(stream, 0)
    });
    let listen = format!("[::]:{RELAY_PORT}");
    let route = Route::new("own", &format!("*:{PORT}")).listening(&listen);
    let relay = Setup::new(kind).route(route.with_proxy_header()).start();
    redirect(REDIRECT);
    for pod in outside.pod() {
        let client = outside.connect((pod, PORT).into()).unwrap();
        echoes(&client, 1000);
        let mut expected = Vec::new();
        let own = client.address().unwrap();
        for ip in [own.ip(), pod] {
            match ip {
                IpAddr::V4(v4) => expected.extend(v4.octets()),
                IpAddr::V6(v6) => expected.extend(v6.octets()),
            }
        }
        expected.extend(own.port().to_be_bytes());
        expected.extend(PORT.to_be_bytes());
        let header = headers.lock().unwrap().pop().unwrap();
        assert_eq!(header[16..], expected, "{header:?}");
    }
    relay.settle();
    application.settle();
}

fn open_connections_outlive_new_rules(kind: Kind) {
    if !can_redirect("open_connections_outlive_new_rules") {
        return;
    }
    let outside = Outside::join(1);
    let application = application();
    let relay = relaying(kind).start();
    redirect(REDIRECT);
    let client = outside.connect((outside.pod()[0], PORT).into()).unwrap();
    client.ping(PATTERN, 0, 1000).unwrap();
    redirect("8080:15080,9090:15081");
    client.ping(PATTERN, 1000, 2000).unwrap();
    redirect(REDIRECT);
    client.ping(PATTERN, 2000, 3000).unwrap();
    assert_eq!(opened(&relay), 1.0);
    drop(client);
    relay.settle();
    application.settle();
}
