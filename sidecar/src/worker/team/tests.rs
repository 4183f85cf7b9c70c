//! What a team does to sockets, and what a worker whose backend broke goes on with.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ringside_api::Span;
use ringside_api::relay::Listen;

use super::start::{LASTING, RebuildPauses};
use super::*;
use crate::backend::epoll::Epoll;
use crate::backend::handshake::Answer;
use crate::flow::CloseReason;
use crate::target_check::reach::Verdict;
use crate::worker::Worker;

#[test]
fn backends_that_break_at_once_are_made_again_ever_more_slowly() {
    let mut pauses = RebuildPauses::new();
    let mut after = |lasted| pauses.after(lasted).as_millis();
    assert_eq!(after(LASTING), 0, "the first break of one that lasted");
    let growing: Vec<u128> = (0..9).map(|_| after(LASTING / 2)).collect();
    assert_eq!(growing, [10, 20, 40, 80, 160, 320, 640, 1000, 1000]);
    assert_eq!(after(LASTING), 0);
    assert_eq!(after(Duration::ZERO), 10);
}

fn any_port(ip: [u8; 4]) -> SocketAddr {
    SocketAddr::from((ip, 0))
}

#[test]
fn a_relay_that_was_removed_while_the_backend_broke_stays_removed() {
    let surroundings = Surroundings {
        index: 0,
        shared: Arc::new(Shared::new(0, 10_000)),
        stats: Arc::new(WorkerStats::default()),
        mailboxes: Arc::new([Mailbox::default()]),
        access_log: AccessLog::new().0,
    };
    let mailbox = &surroundings.mailboxes[0];
    let settings = Settings::default();
    let options = socket_options(&settings);
    let relays = ["goes", "stays"].map(|name| {
        let listeners =
            crate::backend::listen::listen(any_port([127, 0, 0, 1]), 1, 16, &options).unwrap();
        let relay = Arc::new(Relay {
            name: name.to_owned(),
            target: ArcSwap::from_pointee(String::new()),
            addresses: ArcSwap::from_pointee(Vec::new()),
            original_port: AtomicU16::new(0),
            proxy_protocol: AtomicBool::new(false),
            next_address: AtomicU32::new(0),
            stats: vec![Arc::new(RelayStats::default())],
        });
        let listener = Arc::new(listeners.sockets.into_iter().next().unwrap());
        mailbox.send(Command::Listen {
            relay: relay.clone(),
            listener,
            of_worker: 0,
            lent_by: None,
        });
        relay
    });
    let worker = || {
        let backend = Epoll::new(Instant::now(), 1 << 20).unwrap();
        Worker::new(backend, surroundings.clone(), &settings, 1)
    };
    let names = |worker: &mut Worker<Epoll>| -> Vec<String> {
        let commands = worker.listening().into_iter();
        commands
            .map(|command| match command {
                Command::Listen { relay, .. } => relay.name.clone(),
                other => panic!("{other:?} is no listener"),
            })
            .collect()
    };
    let mut breaks = worker();
    assert_eq!(names(&mut breaks), ["goes", "stays"]);
    mailbox.send(Command::Unlisten {
        relay: relays[0].clone(),
        of_worker: None,
    });
    mailbox.put_back(breaks.listening());
    breaks.lose_everything(CloseReason::BackendLost);
    assert_eq!(names(&mut worker()), ["stays"]);
}

/// A team of one worker, which ends with the test.
struct Running(Team);

impl Running {
    fn start(settings: Settings) -> Self {
        let options = TeamOptions {
            workers: 1,
            backend: BackendChoice::Epoll,
            settings,
            epoch: Instant::now(),
        };
        let shared = Arc::new(Shared::new(0, 10_000));
        Running(Team::start(&options, shared, &AccessLog::new().0).unwrap())
    }

    fn add(&self, name: &str, address: SocketAddr) -> RunningRelay {
        let wanted = ringside_api::Relay {
            name: name.to_owned(),
            listen: Listen(address),
            target: "127.0.0.1:9".parse().unwrap(),
            proxy_protocol: ProxyProtocol::None,
        };
        self.0.add(&wanted, Vec::new(), Checked::default()).unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.finish(Duration::ZERO);
        let _ = self.0.join();
    }
}

#[test]
fn changed_options_reach_the_sockets_accepted_from_now_on() {
    let mut settings = Settings::default();
    let team = Running::start(settings);
    let local = team.add("local", any_port([127, 0, 0, 1]));
    let open = team.add("open", any_port([0; 4]));
    let seconds = |span: Span| Some(Duration::from(span)).filter(|time| !time.is_zero());
    let before = seconds(settings.tcp.user_timeout);
    assert_eq!(local.listeners[0].options(), (true, false, None));
    assert_eq!(open.listeners[0].options(), (true, true, before));

    settings.tcp.no_delay = false;
    settings.tcp.keepalive = Span::ZERO;
    settings.tcp.user_timeout = Span::ZERO;
    team.0.apply(&settings);
    assert_eq!(local.listeners[0].options(), (false, false, None));
    assert_eq!(open.listeners[0].options(), (false, false, None));

    settings.tcp.no_delay = true;
    settings.tcp.keepalive = Span::from_secs(5);
    settings.tcp.user_timeout = Span::from_secs(7);
    team.0.apply(&settings);
    let after = seconds(settings.tcp.user_timeout);
    assert_eq!(local.listeners[0].options(), (true, false, None));
    assert_eq!(open.listeners[0].options(), (true, true, after));
}

#[test]
fn a_closed_relay_led_to_nowhere_is_no_longer_said_to_be_refused() {
    let team = Running::start(Settings::default());
    let address = any_port([127, 0, 0, 1]);
    let gone = vec![SockAddr::from(SocketAddr::from(([127, 0, 0, 1], 9)))];
    let added = team.add("web", address);
    let mut wanted = added.wanted.clone();
    team.0.give_addresses(&wanted.target, &gone);
    let outcome = team.0.hear(&added.relay, &gone, Some(Answer::Refused));
    assert_eq!(outcome.unwrap().changed, Some(Verdict::Refusing));
    assert!(!team.0.relays()[0].listens());

    wanted.target = "nobody.invalid:80".parse().unwrap();
    assert!(team.0.retarget(&wanted, Vec::new()));
    // An answer about where it led before is not heard.
    let late = team.0.hear(&added.relay, &gone, Some(Answer::Refused));
    assert!(late.is_none());
    let outcome = team.0.hear(&added.relay, &[], None).unwrap();
    assert!(matches!(outcome.listens, Some(Ok(true))), "{outcome:?}");
    let now = &team.0.relays()[0];
    assert_eq!(now.checked.reach.verdict(), Verdict::Unknown);
    assert!(now.listens());
}
