use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};

use super::*;

/// Somebody who leads to `targets` and hands on what is told.
struct Follower {
    targets: Vec<Target>,
    told: Mutex<Sender<(Target, Vec<SockAddr>)>>,
}

impl Followers for Follower {
    fn targets(&self) -> Vec<Target> {
        self.targets.clone()
    }

    fn give(&self, target: &Target, addresses: &[SockAddr]) {
        let _ = self
            .told
            .lock()
            .unwrap()
            .send((target.clone(), addresses.to_vec()));
    }
}

fn follower(targets: &[&str]) -> (Arc<Follower>, Receiver<(Target, Vec<SockAddr>)>) {
    let (told, hears) = channel();
    let targets = targets
        .iter()
        .map(|target| target.parse().unwrap())
        .collect();
    let told = Mutex::new(told);
    (Arc::new(Follower { targets, told }), hears)
}

const LONG: Duration = Duration::from_secs(20);
const SOON: Duration = Duration::from_millis(5);

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

#[test]
fn fixed_targets_are_known_at_once_and_names_of_both_families() {
    let (follower, _hears) = follower(&[]);
    let both = |_: &str, port| {
        Ok(vec![
            SocketAddr::new("::1".parse().unwrap(), port),
            SocketAddr::new("127.0.0.1".parse().unwrap(), port),
            SocketAddr::new("::1".parse().unwrap(), port),
        ])
    };
    let resolver = Resolver::start_with(Box::new(both), follower, LONG).unwrap();
    let targets: Vec<Target> = ["10.0.0.1:80", "unix:/run/app.sock", "app:90"]
        .iter()
        .map(|target| target.parse().unwrap())
        .collect();
    let found = resolver.addresses(&targets.iter().collect::<Vec<_>>(), LONG);
    assert_eq!(found[0], [address("10.0.0.1:80").into()]);
    assert_eq!(
        found[1][0].as_pathname(),
        Some(std::path::Path::new("/run/app.sock"))
    );
    assert_eq!(
        found[2],
        [
            address("[::1]:90").into(),
            SockAddr::from(address("127.0.0.1:90"))
        ]
    );
}

#[test]
fn the_last_good_answer_stays_while_look_ups_fail_and_goes_with_the_next() {
    let (follower, hears) = follower(&["app:80"]);
    let asked = AtomicUsize::new(0);
    let look_up = move |_: &str, port| match asked.fetch_add(1, Ordering::SeqCst) {
        0 => Ok(vec![SocketAddr::new("10.0.0.1".parse().unwrap(), port)]),
        1 | 2 => Err(io::Error::other("the name server is down")),
        3 => Ok(Vec::new()),
        _ => Ok(vec![SocketAddr::new("10.0.0.2".parse().unwrap(), port)]),
    };
    let resolver = Resolver::start_with(Box::new(look_up), follower, SOON).unwrap();
    let mut given = Vec::new();
    while given.last() != Some(&address("10.0.0.2:80")) {
        let (target, addresses) = hears.recv_timeout(LONG).unwrap();
        assert_eq!(target.to_string(), "app:80");
        given.push(addresses[0].as_socket().unwrap());
    }
    let first = address("10.0.0.1:80");
    assert_eq!(given[..4], [first, first, first, first], "kept three times");
    assert_eq!(resolver.lookups().1, 3);
    assert_eq!(
        resolver.name(&"app:80".parse().unwrap()).unwrap().error,
        None
    );
}

#[test]
fn a_name_server_that_does_not_answer_holds_up_no_other_name_and_nobody_longer_than_the_limit() {
    let (follower, _hears) = follower(&[]);
    let (release, released) = channel::<()>();
    let released = Mutex::new(released);
    let look_up = move |host: &str, port| {
        if host == "dead" {
            let _ = released.lock().unwrap().recv();
        }
        Ok(vec![SocketAddr::new("10.0.0.1".parse().unwrap(), port)])
    };
    let resolver = Resolver::start_with(Box::new(look_up), follower, LONG).unwrap();
    let (dead, app): (Target, Target) = ("dead:80".parse().unwrap(), "app:80".parse().unwrap());
    let before = Instant::now();
    let found = resolver.addresses(&[&dead, &app], Duration::from_millis(50));
    assert!(before.elapsed() >= Duration::from_millis(50));
    assert_eq!((found[0].len(), found[1].len()), (0, 1));
    drop(release);
    assert_eq!(resolver.addresses(&[&dead], LONG)[0].len(), 1);
}

#[test]
fn one_look_up_of_a_name_at_a_time() {
    let (follower, _hears) = follower(&["app:80"]);
    let busy = AtomicBool::new(false);
    let overlapped = Arc::new(AtomicBool::new(false));
    let saw = overlapped.clone();
    let look_up = move |_: &str, port| {
        if busy.swap(true, Ordering::SeqCst) {
            saw.store(true, Ordering::SeqCst);
        }
        std::thread::sleep(Duration::from_millis(20));
        busy.store(false, Ordering::SeqCst);
        Ok(vec![SocketAddr::new("10.0.0.1".parse().unwrap(), port)])
    };
    let resolver = Resolver::start_with(Box::new(look_up), follower, SOON).unwrap();
    let target: Target = "app:80".parse().unwrap();
    while resolver.lookups().0 < 4 {
        assert_eq!(resolver.addresses(&[&target], LONG)[0].len(), 1);
        std::thread::yield_now();
    }
    assert!(!overlapped.load(Ordering::SeqCst));
}
