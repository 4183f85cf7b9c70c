//! Where a container may put the sidecar: any user, no capability, a read-only root, no environment, no standard streams,
//! an odd umask, and small limits. Each time it is started, carries traffic, and ends in order.

use std::fs;

use ringside_tests::await_that;
use ringside_tests::memory_group::MemoryGroup;
use ringside_tests::processes::{command, installed};
use ringside_tests::relay::{Kind, Relay, Setup};
use ringside_tests::skip::skip;
use ringside_tests::traffic::{Pattern, Server, Stream, echo};
use serde_json::json;

ringside_tests::instances! {
    everywhere: [],
    ringside: [
        any_user_without_a_capability,
        a_read_only_root,
        no_environment,
        no_standard_streams,
        an_umask_that_forbids_everything,
        little_locked_memory,
        few_descriptors,
        too_few_descriptors,
        little_memory,
    ],
}

const UP: Pattern = Pattern::new(13);

/// A user without an account, as clusters like to give; another for each test, since users share limits.
const USERS: u32 = 1_000_660_000;

/// What changes to user `number` and takes every capability and every way to get one. None where only root could.
fn as_user(test: &str, number: u32) -> Option<Vec<String>> {
    if !installed(test, &["setpriv"]) {
        return None;
    }
    let id = USERS + number;
    let words: Vec<String> = [
        "setpriv".to_owned(),
        format!("--reuid={id}"),
        format!("--regid={id}"),
        "--clear-groups".to_owned(),
        "--bounding-set=-all".to_owned(),
        "--inh-caps=-all".to_owned(),
        "--ambient-caps=-all".to_owned(),
        "--no-new-privs".to_owned(),
    ]
    .into();
    // Only a real root may, not one of a user namespace.
    let tried = command("setpriv").args(&words[1..]).arg("true").output();
    if !tried.is_ok_and(|output| output.status.success()) {
        skip(test, "only root may become another user");
        return None;
    }
    Some(words)
}

/// A shell that does `first` and becomes what it is given.
fn shell(first: &str) -> Vec<String> {
    let script = format!("{first} exec \"$@\"");
    ["/bin/sh", "-c", &script, "sh"].map(str::to_owned).into()
}

fn setup(kind: Kind, server: &Server, under: impl IntoIterator<Item = String>) -> Setup {
    Setup::new(kind)
        .to(server)
        .settings(json!({"timeouts": {"drainNotice": "0s", "connect": "10s"}}))
        .for_anyone()
        .under(under)
}

fn number(kind: Kind) -> u32 {
    u32::from(kind == Kind::Ring)
}

/// Messages, streams, many connections, a changed setting, and an end in order.
fn serves(mut relay: Relay, server: &Server, connections: usize) {
    let stream = relay.connect();
    stream.ping(UP, 0, 1000).unwrap();
    if let Err(error) = stream.exchange(UP, UP, 1000..16 << 20, 256 << 10) {
        let told = ["/statusz", "/metrics"].map(|path| {
            relay
                .admin("GET", path)
                .map_or(String::new(), |answer| answer.body)
        });
        panic!("{error:?}: {}", told.join("\n"));
    }
    drop(stream);
    // Its descriptors may be the last ones.
    relay.settle();
    let streams: Vec<Stream> = (0..connections).map(|_| relay.connect()).collect();
    for stream in &streams {
        stream.ping(UP, 0, 1000).unwrap();
    }
    drop(streams);
    relay.settle();
    let settings = json!({"timeouts": {"drainNotice": "0s", "idle": "33m"}});
    relay.reconfigure(|setup| setup.settings(settings));
    await_that("the new settings to be in effect", || {
        relay.admin("GET", "/config").unwrap().body.contains("33m")
    });
    relay.process().signal(libc::SIGTERM);
    assert_eq!(relay.process_mut().await_end().code(), Some(0));
    server.check();
}

/// A line of `/proc/PID/status`.
fn told_by_kernel(relay: &Relay, field: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{}/status", relay.process().pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    line.unwrap().trim_start_matches(':').trim().to_owned()
}

fn any_user_without_a_capability(kind: Kind) {
    let Some(user) = as_user("any_user_without_a_capability", number(kind)) else {
        return;
    };
    let server = Server::local(echo);
    let relay = setup(kind, &server, user).start();
    assert!(told_by_kernel(&relay, "Uid").starts_with(&(USERS + number(kind)).to_string()));
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(told_by_kernel(&relay, set), "0000000000000000", "{set}");
    }
    serves(relay, &server, 100);
}

fn a_read_only_root(kind: Kind) {
    // Everything that is mounted, save the folder that the test itself reads the port from.
    const READ_ONLY: &str = "
        for last; do :; done
        folder=${last%/*}
        mount --make-rprivate / && mount --bind \"$folder\" \"$folder\" || exit 1
        while read -r _ _ _ _ point _; do
            [ \"$point\" = \"$folder\" ] || mount -o remount,bind,ro \"$point\" 2>/dev/null
        done </proc/self/mountinfo
    ";
    let name = "a_read_only_root";
    let Some(user) = as_user(name, 10 + number(kind)) else {
        return;
    };
    let tried = command("unshare").args(["--mount", "true"]).output();
    if !tried.is_ok_and(|output| output.status.success()) {
        return skip(name, "no mount namespace here");
    }
    let mut under = vec!["unshare".to_owned(), "--mount".to_owned()];
    under.extend(shell(READ_ONLY));
    under.extend(user);
    let server = Server::local(echo);
    let relay = setup(kind, &server, under).start();
    let mounts = format!("/proc/{}/mountinfo", relay.process().pid());
    let mounts = fs::read_to_string(mounts).unwrap();
    let of = |point: &str| {
        mounts
            .lines()
            .rfind(|line| line.split(' ').nth(4) == Some(point))
    };
    let root = of("/").unwrap().split(' ').nth(5).unwrap();
    assert!(root.split(',').any(|option| option == "ro"), "{root}");
    serves(relay, &server, 20);
}

fn no_environment(kind: Kind) {
    let server = Server::local(echo);
    let relay = setup(kind, &server, ["env", "-i"].map(str::to_owned)).start();
    let environment = fs::read(format!("/proc/{}/environ", relay.process().pid())).unwrap();
    assert!(
        environment.is_empty(),
        "{}",
        String::from_utf8_lossy(&environment)
    );
    serves(relay, &server, 20);
}

fn no_standard_streams(kind: Kind) {
    for closed in ["<&-", "<&- >&-", "<&- >&- 2>&-"] {
        let server = Server::local(echo);
        let relay = setup(kind, &server, shell(&format!("exec {closed};"))).start();
        serves(relay, &server, 20);
    }
}

fn an_umask_that_forbids_everything(kind: Kind) {
    let Some(user) = as_user("an_umask_that_forbids_everything", 20 + number(kind)) else {
        return;
    };
    let server = Server::local(echo);
    let under = shell("umask 0777;").into_iter().chain(user);
    let relay = setup(kind, &server, under).start();
    assert_eq!(told_by_kernel(&relay, "Umask"), "0777");
    serves(relay, &server, 20);
}

fn little_locked_memory(kind: Kind) {
    let Some(user) = as_user("little_locked_memory", 30 + number(kind)) else {
        return;
    };
    // What the ring needs may be counted (Linux 6.14) or not; it must be there with a smaller ring, or epoll instead.
    let kind = if kind == Kind::Ring { Kind::Auto } else { kind };
    let server = Server::local(echo);
    let under = shell("ulimit -l 64;").into_iter().chain(user);
    let relay = setup(kind, &server, under).start();
    let limits = fs::read_to_string(format!("/proc/{}/limits", relay.process().pid())).unwrap();
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max locked memory"));
    assert!(line.unwrap().contains("65536"), "{line:?}");
    let metrics = relay.metrics();
    for info in metrics.matching("ringside_backend_info", &[]) {
        let (backend, reason) = (&info.labels["backend"], &info.labels["reason"]);
        assert!(
            backend == "ring" || kind != Kind::Auto || reason.contains("locked-memory"),
            "{backend}: {reason}"
        );
    }
    serves(relay, &server, 100);
}

fn few_descriptors(kind: Kind) {
    let server = Server::local(echo);
    let idle = setup(kind, &server, []).start();
    let without_a_connection = idle.process().descriptors() as u32;
    drop(idle);
    // A connection takes two. What is left is enough for no pipe, for one, and for both that a stream needs.
    let tight = (3..=7).map(|more| (without_a_connection + more, 1));
    for (limit, connections) in tight.chain([(64, 8)]) {
        println!("a limit of {limit} descriptors");
        let server = Server::local(echo);
        let relay = setup(kind, &server, []).descriptors(limit).start();
        serves(relay, &server, connections);
    }
}

fn too_few_descriptors(kind: Kind) {
    let server = Server::local(echo);
    let (status, said) = setup(kind, &server, []).descriptors(16).start_in_vain();
    assert_eq!(status.code(), Some(1), "{said}");
    // How many descriptors it was started with differs, and so does the step that meets the limit; each tells.
    let told = [
        "descriptor limit of 16",
        "the descriptor limit is reached",
        "no file descriptor is left",
    ];
    let is_told = told.iter().any(|sentence| said.contains(sentence));
    assert!(is_told, "the limit is not told: {said}");
    assert!(said.contains("ulimit -n"), "nothing to try is told: {said}");
    assert!(!said.contains("panicked"), "{said}");
}

fn little_memory(kind: Kind) {
    const LIMIT_BYTES: u64 = 32 << 20;
    let group = match MemoryGroup::new(LIMIT_BYTES) {
        Ok(group) => group,
        Err(error) => return skip("little_memory", &format!("no memory cgroup: {error}")),
    };
    let server = Server::local(echo);
    let enter = format!("echo $$ >{} || exit 1;", group.entrance().display());
    let relay = setup(kind, &server, shell(&enter)).start();
    // Streams side by side, each with bytes under way.
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                let stream = relay.connect();
                stream.exchange(UP, UP, 0..8 << 20, 256 << 10).unwrap();
            });
        }
    });
    serves(relay, &server, 300);
    let peak = group.peak_bytes();
    assert!(peak.is_none_or(|bytes| bytes <= LIMIT_BYTES), "{peak:?}");
}

// As many workers as a large node has CPUs would take a small pod's memory before the first connection.
ringside_tests::namespaced!(fewer_workers_than_cpus_where_memory_is_small, {
    const LIMIT_BYTES: u64 = 48 << 20;
    const TEST: &str = "fewer_workers_than_cpus_where_memory_is_small";
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    if cpus == 1 {
        return skip(
            TEST,
            "there is one CPU, and fewer workers than one cannot be",
        );
    }
    let group = match MemoryGroup::new(LIMIT_BYTES) {
        Ok(group) => group,
        Err(error) => return skip(TEST, &format!("no memory cgroup: {error}")),
    };
    let server = Server::local(echo);
    let enter = format!("echo $$ >{} || exit 1;", group.entrance().display());
    let relay = setup(Kind::Ring, &server, shell(&enter))
        .flags(["--workers".into(), "auto".into()])
        .start();
    let log = relay.process().log();
    assert!(
        log.contains("the memory limit has no room for more"),
        "{log}"
    );
    assert_eq!(
        relay
            .metrics()
            .matching("ringside_operations_budget", &[])
            .count(),
        1
    );
    serves(relay, &server, 10);
});
