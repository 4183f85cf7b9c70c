//! What a relay would use: its ports, tried by binding them, and its controller, tried by a handshake.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use ringside_api::BackendChoice;

use super::Finding;
use crate::admin::ask;
use crate::settings::controller::{self, Controller};

/// How long a relay that runs here may take to say so.
const PATIENCE: Duration = Duration::from_secs(2);

/// What a relay would be started with, as far as it can be tried before.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// The backend that it asks for.
    pub backend: BackendChoice,
    /// The admin listener, if there is to be one.
    pub admin: Option<SocketAddr>,
    /// Relays by name, and where they would listen.
    pub relays: Vec<(String, SocketAddr)>,
    /// The controller, if one is named.
    pub controller: Option<Controller>,
}

/// One finding for each port.
pub(super) fn listeners(plan: &Plan) -> Vec<Finding> {
    let runs_here = plan.admin.is_some_and(runs_at);
    let admin = plan
        .admin
        .iter()
        .map(|at| ("the admin listener".to_owned(), *at));
    let relays = plan.relays.iter();
    let relays = relays.map(|(name, at)| (format!("relay {name}"), *at));
    admin
        .chain(relays)
        .map(|(whose, at)| judge(&whose, at, try_to_listen(at), runs_here))
        .collect()
}

/// `[::]` is 0.0.0.0 where there is no IPv6, as for a relay.
fn try_to_listen(address: SocketAddr) -> io::Result<()> {
    match TcpListener::bind(address) {
        Err(error)
            if error.raw_os_error() == Some(libc::EAFNOSUPPORT)
                && address.ip() == std::net::Ipv6Addr::UNSPECIFIED =>
        {
            TcpListener::bind((std::net::Ipv4Addr::UNSPECIFIED, address.port())).map(drop)
        }
        tried => tried.map(drop),
    }
}

/// Whether a relay answers at this admin listener of this machine.
fn runs_at(mut admin: SocketAddr) -> bool {
    if admin.ip().is_unspecified() {
        admin.set_ip([127, 0, 0, 1].into());
    }
    admin.port() > 0
        && ask::get(&admin.to_string(), "/statusz", PATIENCE)
            .is_ok_and(|(status, body)| status == 200 && body.contains("\"readinessFlips\""))
}

fn judge(whose: &str, at: SocketAddr, tried: io::Result<()>, runs_here: bool) -> Finding {
    const SUBJECT: &str = "listening";
    let Err(error) = tried else {
        return Finding::ok(SUBJECT, format!("{whose} can listen on {at}"));
    };
    let found = format!("{whose} cannot listen on {at}: {error}");
    let remedy = match error.kind() {
        ErrorKind::AddrInUse if runs_here => {
            return Finding::ok(SUBJECT, format!("{at} is held by the relay that runs here"));
        }
        ErrorKind::AddrInUse => format!(
            "choose another port, or end who holds it (ss -ltnp 'sport = :{}')",
            at.port()
        ),
        ErrorKind::PermissionDenied => {
            "choose a port from 1024 on, or lower net.ipv4.ip_unprivileged_port_start for this network namespace".to_owned()
        }
        ErrorKind::AddrNotAvailable => {
            "choose an address of this machine, or 0.0.0.0 for all of them".to_owned()
        }
        _ => "choose another address".to_owned(),
    };
    Finding::problem(SUBJECT, found, remedy)
}

/// Whether the controller that is named answers and is the one that it should be.
pub(super) fn controller(plan: &Plan) -> Finding {
    const SUBJECT: &str = "controller";
    let Some(controller) = &plan.controller else {
        return Finding::ok(SUBJECT, "none is named: the relay runs by its own settings");
    };
    match controller::reach(controller) {
        Ok(peer) => Finding::ok(
            SUBJECT,
            format!("{} answers at {peer}, and is trusted", controller.address),
        ),
        // The relay runs without it, by the settings that it has.
        Err(why) => Finding::note(
            SUBJECT,
            why,
            "see that the controller runs (kubectl get pods -n ringside), that no NetworkPolicy stands between, and that the pod was injected \
             by this controller; until then the relay goes on by the settings that it has",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    fn plan(admin: SocketAddr) -> Plan {
        Plan {
            admin: Some(admin),
            ..Plan::default()
        }
    }

    #[test]
    fn a_port_that_is_held_is_a_problem_and_a_free_one_is_not() {
        let holder = TcpListener::bind("127.0.0.1:0").unwrap();
        let held = holder.local_addr().unwrap();
        // Nobody answers there: what holds it is no relay.
        holder.set_nonblocking(true).unwrap();
        let found = judge("relay web", held, try_to_listen(held), false);
        assert_eq!(found.level, Level::Problem, "{found:?}");
        assert!(found.remedy.unwrap().contains(&held.port().to_string()));
        let own = judge("relay web", held, try_to_listen(held), true);
        assert_eq!(own.level, Level::Ok);
        let free = listeners(&plan("127.0.0.1:0".parse().unwrap()));
        assert_eq!((free.len(), free[0].level), (1, Level::Ok), "{free:?}");
    }

    #[test]
    fn each_refusal_has_its_cure() {
        let at: SocketAddr = "127.0.0.1:80".parse().unwrap();
        for (kind, part) in [
            (ErrorKind::PermissionDenied, "1024"),
            (ErrorKind::AddrNotAvailable, "0.0.0.0"),
            (ErrorKind::Other, "another address"),
        ] {
            let found = judge("relay web", at, Err(kind.into()), false);
            assert_eq!(found.level, Level::Problem);
            assert!(found.remedy.unwrap().contains(part));
        }
        // An address of nobody here.
        let foreign = "192.0.2.1:0".parse().unwrap();
        let found = judge("relay web", foreign, try_to_listen(foreign), false);
        assert!(found.remedy.unwrap().contains("address of this machine"));
    }

    #[test]
    fn a_controller_that_is_not_there_is_a_note() {
        let none = controller(&Plan::default());
        assert_eq!(none.level, Level::Ok);
        let folder = tempfile::tempdir().unwrap();
        let named = Plan {
            controller: Some(Controller {
                address: "https://controller:8443".parse().unwrap(),
                connect_to: Some("127.0.0.1:1".parse().unwrap()),
                pod: ringside_api::sync::PodIdentity {
                    name: "web-1".to_owned(),
                    namespace: "shop".to_owned(),
                    uid: "u".to_owned(),
                },
                pod_files: folder.path().to_owned(),
                state: None,
            }),
            ..Plan::default()
        };
        let untrusted = controller(&named);
        assert_eq!(untrusted.level, Level::Note);
        assert!(untrusted.found.contains("ca.pem"), "{untrusted:?}");
        assert!(untrusted.remedy.unwrap().contains("NetworkPolicy"));
    }
}
