//! Which relays a pod's sidecar gets: what the annotation `ringside.dev/relay` says, else one for each port that the application
//! declares; and one for each port that is intercepted. It owns their names, their ports and how collisions end; nothing here is refused, only warned of.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use ringside_api::config::RELAYS_MAX;
use ringside_api::sentence::quoted;
use ringside_api::{Listen, ProxyProtocol, Relay, Target};

use super::injection::Injection;
use super::interception::{self, INTERCEPT_ANNOTATION};
use super::pod::Pod;
use super::skip::Skip;

/// What to relay: `NAME=LISTEN:TARGET`, several separated by commas. LISTEN is a port, or `localhost:` and a port.
pub const RELAY_ANNOTATION: &str = "ringside.dev/relay";

/// What LISTEN begins with where only who is in the pod may connect.
const LOCAL: &str = "localhost:";

/// The relays whose target is told who the client is, separated by commas.
pub const PROXY_PROTOCOL_ANNOTATION: &str = "ringside.dev/proxy-protocol";

/// The name of the admin port.
pub const ADMIN_PORT_NAME: &str = "ringside-admin";

/// Relays that a pod gets without an annotation, at most.
pub const DERIVED_RELAYS_MOST: usize = 8;

/// The longest name of a container's port, in bytes.
const PORT_NAME_BYTES_MAX: usize = 15;

/// The ports that need no privilege in every pod begin here.
const UNPRIVILEGED_PORT_FIRST: u16 = 1024;

/// The relays and the port of probes and metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ports {
    pub(super) relays: Vec<Relay>,
    pub(super) admin: u16,
}

/// A relay as it is asked for.
pub(super) struct Wanted {
    pub(super) name: String,
    /// `None`: any port.
    pub(super) listen: Option<u16>,
    /// Only for who is in the pod: a way out of it, by which nobody else gets at what it leads to.
    is_local: bool,
    target: Target,
}

/// Decides.
///
/// # Errors
/// There is nothing to relay.
pub(super) fn choose(
    pod: &Pod<'_>,
    injection: &Injection,
    warnings: &mut Vec<String>,
) -> Result<Ports, Skip> {
    let mut wanted = annotated(pod, warnings);
    let intercepted = interception::wanted(pod, injection, &wanted, warnings);
    if wanted.is_empty() {
        wanted = derived(pod, &intercepted, warnings);
    }
    for port in intercepted {
        wanted.extend(intercepting(port, &wanted));
    }
    if wanted.is_empty() {
        return Err(Skip::NothingToRelay);
    }
    let mut ports = place(wanted, pod.ports_in_use(), injection, warnings);
    tell_of_clients(pod, &mut ports.relays, warnings);
    Ok(ports)
}

/// What the annotation asks for; without what is wrong in it.
fn annotated(pod: &Pod<'_>, warnings: &mut Vec<String>) -> Vec<Wanted> {
    let mut wanted: Vec<Wanted> = Vec::new();
    let Some(written) = pod.annotation(RELAY_ANNOTATION) else {
        return wanted;
    };
    let names = pod.port_names();
    let mut left_out = |why: String| {
        warnings.push(format!("{RELAY_ANNOTATION}: {why}; it is left out"));
    };
    for item in written.split(',').map(str::trim) {
        match read(item) {
            Err(why) => left_out(why),
            Ok(relay) if wanted.iter().any(|other| other.name == relay.name) => {
                left_out(format!(
                    "{} names a second relay {}",
                    quoted(item),
                    relay.name
                ));
            }
            Ok(_) if wanted.len() == RELAYS_MAX => {
                left_out(format!("a sidecar has at most {RELAYS_MAX} relays"));
                break;
            }
            Ok(relay) => wanted.push(relay),
        }
    }
    // Kubernetes looks for a named port in the application's containers, then in sidecars in their order, and ours is the first.
    let of_application = pod.application_port_names();
    for Wanted { name, .. } in &wanted {
        if of_application.contains(name.as_str()) {
            warnings.push(format!(
                "relay {name}: the application names a port {name} too, and a Service's targetPort {name} leads there, past the relay: give the relay another name"
            ));
        } else if names.contains(name.as_str()) {
            warnings.push(format!(
                "relay {name}: another sidecar names a port {name} too, and a Service's targetPort {name} now leads to the relay: give the relay another name"
            ));
        }
    }
    if wanted.is_empty() {
        warnings.push(format!(
            "{RELAY_ANNOTATION} says nothing that can be used: the ports that the application declares are relayed"
        ));
    }
    wanted
}

/// One item, `NAME=LISTEN:TARGET`.
fn read(item: &str) -> Result<Wanted, String> {
    const ALLOWED: &str = "write NAME=LISTEN:TARGET, such as web=15080:8080, db=15432:unix:/run/db.sock or out=localhost:5432:db:5432";
    let parts = item.split_once('=').and_then(|(name, ways)| {
        let outward = ways.trim().strip_prefix(LOCAL);
        let (listen, target) = outward.unwrap_or(ways).split_once(':')?;
        Some((name, ways, outward.is_some(), listen, target))
    });
    let Some((name, ways, is_local, listen, target)) = parts else {
        return Err(format!("{} is no relay: {ALLOWED}", quoted(item)));
    };
    let (name, listen, target) = (name.trim(), listen.trim(), target.trim());
    if !is_port_name(name) {
        return Err(format!(
            "{} is no name for a port: write 1 to {PORT_NAME_BYTES_MAX} lower-case letters, digits and single hyphens, a letter among them",
            quoted(name)
        ));
    }
    if name == ADMIN_PORT_NAME {
        return Err(format!(
            "{ADMIN_PORT_NAME} is the name of the sidecar's admin port"
        ));
    }
    let Some(listen) = port(listen) else {
        return Err(format!(
            "{} of {} is no port to listen on: write a number from 1 to 65535",
            quoted(listen),
            quoted(ways)
        ));
    };
    let is_digits = !target.is_empty() && target.bytes().all(|byte| byte.is_ascii_digit());
    // Digits alone are a port of the pod itself.
    let target = match port(target) {
        Some(port) => Target::Address(SocketAddr::from(([127, 0, 0, 1], port))),
        None if is_digits => {
            return Err(format!(
                "{} of {} is no port to relay to: write a number from 1 to 65535",
                quoted(target),
                quoted(ways)
            ));
        }
        None => target.parse().map_err(|error| {
            format!("{error}; a port alone, such as 8080, is one of the pod itself")
        })?,
    };
    // It would need rules of the kernel, and a container that may set them: nobody gets one who did not ask for it by its name.
    if let Target::Original { port } = target {
        return Err(format!(
            "{} leads to what the kernel redirects, which {INTERCEPT_ANNOTATION}: \"{port}\" asks for, with its own relay: write that, or a port",
            quoted(ways)
        ));
    }
    Ok(Wanted {
        name: name.to_owned(),
        listen: Some(listen),
        is_local,
        target,
    })
}

/// A port in plain digits.
pub(super) fn port(digits: &str) -> Option<u16> {
    let is_plain = digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|number| *number > 0 && is_plain)
}

/// As Kubernetes has it for a port's name (IANA_SVC_NAME).
fn is_port_name(name: &str) -> bool {
    (1..=PORT_NAME_BYTES_MAX).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        && name.bytes().any(|byte| byte.is_ascii_lowercase())
        && !name.starts_with('-')
        && !name.ends_with('-')
        && !name.contains("--")
}

/// A relay for each TCP port that the application declares, under a name that follows from the port and is none of its own.
/// One that is intercepted needs no other way to it.
fn derived(pod: &Pod<'_>, intercepted: &[u16], warnings: &mut Vec<String>) -> Vec<Wanted> {
    let mut ports = pod.tcp_ports();
    ports.retain(|port| !intercepted.contains(port));
    if ports.len() > DERIVED_RELAYS_MOST {
        let rest = &ports[DERIVED_RELAYS_MOST..];
        warnings.push(format!(
            "the application declares {} TCP ports, and without the annotation {RELAY_ANNOTATION} only the first {DERIVED_RELAYS_MOST} are relayed: not {}",
            ports.len(),
            rest.iter().map(u16::to_string).collect::<Vec<_>>().join(", ")
        ));
    }
    let taken = pod.port_names();
    let wanted = |number: u16| {
        let first = format!("ringside-{number}");
        let others = (2_u32..).map(|turn| format!("relay{turn}-{number}"));
        let name = std::iter::once(first)
            .chain(others)
            .find(|name| !taken.contains(name.as_str()))?;
        Some(Wanted {
            name,
            listen: None,
            is_local: false,
            target: Target::Address(SocketAddr::from(([127, 0, 0, 1], number))),
        })
    };
    let first = ports.into_iter().take(DERIVED_RELAYS_MOST);
    first.filter_map(wanted).collect()
}

/// The relay of an intercepted port: its connections go where they were to go.
fn intercepting(port: u16, others: &[Wanted]) -> Option<Wanted> {
    let first = format!("intercept-{port}");
    let next = (2_u32..).map(|turn| format!("intercept{turn}-{port}"));
    let name = std::iter::once(first)
        .chain(next)
        .find(|name| !others.iter().any(|other| other.name == *name))?;
    Some(Wanted {
        name,
        listen: None,
        is_local: false,
        target: Target::Original { port },
    })
}

/// Gives each relay a port that nobody else has. Those that are asked for come first, then the admin port, then the others.
fn place(
    wanted: Vec<Wanted>,
    of_application: BTreeSet<u16>,
    injection: &Injection,
    warnings: &mut Vec<String>,
) -> Ports {
    let mut taken = of_application.clone();
    // What a relay leads to in the pod is listened on already, declared or not; a port of another host's is free here.
    taken.extend(wanted.iter().filter_map(|relay| port_of_pod(&relay.target)));
    let mut listens: Vec<Option<u16>> = Vec::with_capacity(wanted.len());
    for relay in &wanted {
        listens.push(relay.listen.filter(|port| taken.insert(*port)));
    }
    let admin = next_free(injection.admin_port, &mut taken).unwrap_or(injection.admin_port);
    if admin != injection.admin_port {
        warnings.push(format!(
            "port {} is taken in this pod: probes and metrics are served on {admin}",
            injection.admin_port
        ));
    }
    let mut relays = Vec::with_capacity(wanted.len());
    for (relay, listen) in wanted.into_iter().zip(listens) {
        let Wanted { name, .. } = &relay;
        let Some(port) = listen.or_else(|| next_free(injection.first_listen_port, &mut taken))
        else {
            warnings.push(format!(
                "relay {name}: no port is free for it; it is left out"
            ));
            continue;
        };
        let moved = relay.listen.filter(|asked| *asked != port);
        if let Some(asked) = moved.filter(|asked| port_of_pod(&relay.target) == Some(*asked))
            && !of_application.contains(&asked)
        {
            warnings.push(format!(
                "relay {name}: it points to itself, port {asked} of the pod, and listens on {port} instead: name the port on which the application listens as TARGET, or choose another one to listen on"
            ));
        } else if let Some(asked) = moved {
            warnings.push(format!(
                "relay {name}: port {asked} is taken in this pod, and it listens on {port}: name it by {name} in Services, or choose another port"
            ));
        }
        if port < UNPRIVILEGED_PORT_FIRST {
            warnings.push(format!(
                "relay {name}: port {port} may need a privilege that the sidecar has not: choose one from {UNPRIVILEGED_PORT_FIRST} on"
            ));
        }
        relays.push(Relay {
            name: relay.name,
            listen: Listen(if relay.is_local {
                SocketAddr::from((Ipv4Addr::LOCALHOST, port))
            } else {
                SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))
            }),
            target: relay.target,
            proxy_protocol: ProxyProtocol::None,
        });
    }
    Ports { relays, admin }
}

/// The port of the pod itself that a target is, as far as its address tells.
fn port_of_pod(target: &Target) -> Option<u16> {
    match target {
        Target::Address(address) => {
            let ip = address.ip().to_canonical();
            (ip.is_loopback() || ip.is_unspecified()).then(|| address.port())
        }
        Target::Host { host, port } => host.eq_ignore_ascii_case("localhost").then_some(*port),
        Target::Original { port } => Some(*port),
        Target::Unix(_) => None,
    }
}

/// The next port from `first` on that nobody has; from then on it is taken.
fn next_free(first: u16, taken: &mut BTreeSet<u16>) -> Option<u16> {
    let unprivileged = UNPRIVILEGED_PORT_FIRST..=u16::MAX;
    (first.max(1)..=u16::MAX)
        .chain(unprivileged)
        .find(|port| taken.insert(*port))
}

fn tell_of_clients(pod: &Pod<'_>, relays: &mut [Relay], warnings: &mut Vec<String>) {
    let Some(written) = pod.annotation(PROXY_PROTOCOL_ANNOTATION) else {
        return;
    };
    for name in written.split(',').map(str::trim) {
        match relays.iter_mut().find(|relay| relay.name == name) {
            Some(relay) => relay.proxy_protocol = ProxyProtocol::V2,
            None => {
                let known: Vec<&str> = relays.iter().map(|relay| relay.name.as_str()).collect();
                warnings.push(format!(
                    "{PROXY_PROTOCOL_ANNOTATION}: {} is no relay of this pod, which has {}; no header is sent for it",
                    quoted(name),
                    known.join(", ")
                ));
            }
        }
    }
}
