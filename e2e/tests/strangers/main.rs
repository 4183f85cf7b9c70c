//! Who is no pod's sidecar, at the real endpoint of a real controller: refused with a status and a sentence, bounded in memory and
//! connections, logged once, and nothing that a real sidecar notices.

mod lines;
mod story;

use std::io::Write;
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use kube::ResourceExt;
use ringside_e2e::PATIENCE;
use ringside_e2e::apiserver::signed_by_a_stranger;
use ringside_e2e::caller::request;
use ringside_e2e::definitions::installed;
use ringside_e2e::identity::{self, AUDIENCE};
use ringside_e2e::installation::Installation;
use ringside_e2e::kubelet::Kubelet;
use ringside_tests::await_that;
use ringside_tests::http;
use ringside_tests::skip::skip;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;

use story::{Sidecar, Story, runtime};

#[test]
fn whoever_is_no_pods_sidecar_is_refused_with_a_sentence() {
    let test = "whoever_is_no_pods_sidecar_is_refused_with_a_sentence";
    let Some(server) = installed(test) else {
        return;
    };
    let (release, shop) = (Installation::new(server), server.namespace("shop"));
    let other = server.namespace("other");
    let mut story = Story::begin(server, &release, &shop);
    let (neighbour, foreign) = (
        Sidecar::new(server, &shop, "neighbour"),
        Sidecar::new(server, &other, "honest"),
    );
    let (wrong_audience, unbound) = runtime().block_on(async {
        let client = server.client();
        let for_api = "https://kubernetes.default.svc";
        let pod = Some(&story.honest.pod);
        let wrong = identity::token(&client, shop.name(), "default", for_api, pod).await;
        let unbound = identity::token(&client, shop.name(), "default", AUDIENCE, None).await;
        (wrong.unwrap(), unbound.unwrap())
    });
    let (token, good) = (story.honest.token.clone(), story.honest.report.to_string());
    let as_pod = |namespace: &str, name: &str, uid: &str| {
        let mut report = story.honest.report.clone();
        report["pod"] = json!({"namespace": namespace, "name": name, "uid": uid});
        report.to_string()
    };
    let uid = story.honest.pod.uid().unwrap();
    let other_uid = neighbour.pod.uid().unwrap();
    let post = |token: Option<&str>, body: &str| request("POST", "/v1/sync", token, body);
    let deep = format!("{}{}", "[".repeat(5_000), "]".repeat(5_000));
    let stranger = signed_by_a_stranger(&token, |_| {});
    let issuer = signed_by_a_stranger(&token, |claims| {
        claims["iss"] = json!("https://example.org");
    });
    let mut cases = vec![
        (
            "no token",
            post(None, &good),
            401,
            "needs the header Authorization",
        ),
        (
            "garbage",
            post(Some("garbage"), &good),
            401,
            "no service account token",
        ),
        (
            "three parts",
            post(Some("a.b.c"), &good),
            401,
            "no service account token",
        ),
        (
            "a long one",
            post(Some(&"x".repeat(7_000)), &good),
            401,
            "more than 6144 bytes",
        ),
        (
            "another key",
            post(Some(&stranger), &good),
            401,
            "the token is not accepted",
        ),
        (
            "another issuer",
            post(Some(&issuer), &good),
            401,
            "the token is not accepted",
        ),
        (
            "another audience",
            post(Some(&wrong_audience), &good),
            401,
            "audience ringside.dev",
        ),
        (
            "bound to no pod",
            post(Some(&unbound), &good),
            401,
            "bound to no pod",
        ),
        (
            "a neighbour's token",
            post(Some(&neighbour.token), &good),
            403,
            "in the name of",
        ),
        (
            "of another namespace",
            post(Some(&foreign.token), &good),
            403,
            "in the name of",
        ),
        (
            "another name",
            post(Some(&token), &as_pod(shop.name(), "neighbour", &uid)),
            403,
            "in the name of",
        ),
        (
            "another UID",
            post(Some(&token), &as_pod(shop.name(), "honest", &other_uid)),
            403,
            "in the name of",
        ),
        (
            "another namespace",
            post(Some(&token), &as_pod(other.name(), "honest", &uid)),
            403,
            "in the name of",
        ),
        (
            "no JSON",
            post(Some(&token), "pod: web"),
            400,
            "cannot be read",
        ),
        (
            "half of it",
            post(Some(&token), &good[..good.len() / 2]),
            400,
            "cannot be read",
        ),
        ("deep", post(Some(&token), &deep), 400, "cannot be read"),
        ("nothing", post(Some(&token), ""), 400, "cannot be read"),
        (
            "a large body",
            post(Some(&token), &format!("\"{}\"", "x".repeat(17 << 10))),
            413,
            "16384 bytes",
        ),
        (
            "another method",
            request("PUT", "/v1/sync", Some(&token), &good),
            405,
            "only POST",
        ),
        (
            "another path",
            request("POST", "/v1/sink", Some(&token), &good),
            404,
            "nothing at /v1/sink",
        ),
        ("no review", request("POST", "/inject", None, "{}"), 400, ""),
        (
            "a large head",
            request("POST", &format!("/{}", "x".repeat(60_000)), None, ""),
            431,
            "",
        ),
    ];
    // Only what signs and says the same is believed: what follows is refused for its time alone.
    if let Some(same) = server.signed_anew(&token, |_| {}) {
        let caller = &mut story.connect();
        let answer = caller.call(Some(&same), &good).unwrap();
        assert_eq!(
            answer.status, 200,
            "a token that is signed anew: {answer:?}"
        );
    }
    let expired = server.signed_anew(&token, |claims| {
        for (claim, ago) in [("iat", 7_200), ("nbf", 7_200), ("exp", 3_600)] {
            let now = std::time::SystemTime::now();
            let now = now.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
            claims[claim] = json!(now - ago);
        }
    });
    if let Some(expired) = &expired {
        cases.push(("expired", post(Some(expired), &good), 401, "expired"));
    }
    for (what, request, status, sentence) in &cases {
        let mut caller = story.connect();
        // It may be refused before all is sent.
        let _ = caller.send(request.as_bytes());
        let answer = caller
            .answer()
            .unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(answer.status, *status, "{what}: {answer:?}");
        assert!(answer.body.contains(sentence), "{what}: {answer:?}");
        story.honest_is_served();
    }

    // One that never comes whole.
    let mut slow = story.connect();
    let begun = post(Some(&token), &good);
    slow.send(&begun.as_bytes()[..begun.len() - 5]).unwrap();
    let answer = slow.answer().unwrap();
    assert_eq!(answer.status, 408, "{answer:?}");
    assert!(answer.why().contains("did not come whole"), "{answer:?}");

    // A pod that is gone: what its token said is still known, and of no use.
    let known = story
        .connect()
        .call(Some(&neighbour.token), &neighbour.report.to_string());
    assert_eq!(known.unwrap().status, 200);
    runtime().block_on(async {
        let kubelet = Kubelet::new(server.client(), shop.name(), "node");
        kubelet.delete("neighbour").await.unwrap();
    });
    await_that("the pod that is gone to be refused", || {
        let mut caller = story.connect();
        let answer = caller.call(Some(&neighbour.token), &neighbour.report.to_string());
        let answer = answer.unwrap();
        answer.status == 503 && answer.why().contains("is not known")
    });
    let anew = server.signed_anew(&neighbour.token, |claims| claims["jti"] = json!("another"));
    if let Some(anew) = anew {
        let mut caller = story.connect();
        let answer = caller
            .call(Some(&anew), &neighbour.report.to_string())
            .unwrap();
        assert_eq!(answer.status, 401, "{answer:?}");
    }

    // Hundreds of the same are a line of the log each ten seconds, and no question to the API server.
    let reviews = |story: &Story| story.count("token_reviews_total");
    let before = reviews(&story);
    let line = "the token is not accepted: it is no service account token";
    let count = |story: &Story| story.controller.process.log().matches(line).count();
    let (begin, lines) = (Instant::now(), count(&story));
    let mut caller = story.connect();
    for attempt in 0..300 {
        let answer = caller
            .call(Some(&format!("garbage-{attempt}")), &good)
            .unwrap();
        assert_eq!(answer.status, 401);
    }
    let allowed = begin.elapsed().as_secs() as usize / 10 + 1;
    let told = count(&story) - lines;
    assert!(told <= allowed, "{told} lines in {:?}", begin.elapsed());
    assert_eq!(reviews(&story), before);
    story.honest_is_served();
    drop(story);
    release.asked_nothing_else();
}

/// Connections of the test below. The controller takes 12,000 at once, and lets the silent go after five seconds.
const HANDSHAKEN: usize = 4_000;
const SILENT: usize = 6_500;
const FURTHER: usize = 3_000;

/// Far above what is needed (about 100 MiB), and far below what would hurt a node.
const RESIDENT_BYTES_MOST: u64 = 512 << 20;

/// So many of what `make` makes, by so many threads.
fn by_many<T: Send>(threads: usize, count: usize, make: impl Fn() -> T + Sync) -> Vec<T> {
    let left = AtomicUsize::new(count);
    let one = || left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1));
    std::thread::scope(|scope| {
        let work = || {
            let mut made = Vec::new();
            while one().is_ok() {
                made.push(make());
            }
            made
        };
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let made = threads.into_iter().map(|thread| thread.join().unwrap());
        made.flatten().collect()
    })
}

#[test]
fn ten_thousand_connections_that_ask_nothing_keep_no_sidecar_out() {
    let test = "ten_thousand_connections_that_ask_nothing_keep_no_sidecar_out";
    let Some(server) = installed(test) else {
        return;
    };
    let granted = getrlimit(Resource::Nofile);
    let wanted = (HANDSHAKEN + SILENT + FURTHER + 500) as u64;
    if granted.maximum.is_some_and(|most| most < wanted) {
        skip(
            test,
            &format!("a process may not have {wanted} files open here"),
        );
        return;
    }
    // Of this process, which ends with its tests.
    let raised = Rlimit {
        current: granted.maximum,
        maximum: granted.maximum,
    };
    setrlimit(Resource::Nofile, raised).unwrap();
    let (release, shop) = (Installation::new(server), server.namespace("shop"));
    let mut story = Story::begin(server, &release, &shop);
    let count = |story: &Story, name: &str| story.count(name);

    // A call that is held open all the while.
    let mut held_by = Sidecar::new(server, &shop, "held");
    let mut held = story.connect();
    let first = held_by.call(&mut held).json();
    held_by.report["runs"] = first["offer"]["Run"]["hash"].clone();
    held_by.report["permit"] = first["permit"].clone();
    held_by.report["seen"] = first["mark"].clone();
    held_by.report["atOnce"] = json!(false);
    let call = request(
        "POST",
        "/v1/sync",
        Some(&held_by.token),
        &held_by.report.to_string(),
    );
    held.send(call.as_bytes()).unwrap();

    // Those that shake hands and ask once, for nothing that is there.
    let begin = Instant::now();
    let handshaken = by_many(4, HANDSHAKEN, || {
        let mut caller = story.connect();
        caller
            .send(request("GET", "/", None, "").as_bytes())
            .unwrap();
        assert_eq!(caller.answer().unwrap().status, 404);
        caller
    });
    println!("{HANDSHAKEN} have shaken hands after {:?}", begin.elapsed());
    story.honest_is_served();
    // Those that say nothing at all. Whoever finds the kernel's queue full tries again after a second: hence many at a time.
    let silent = |count: usize| {
        by_many(256, count, || {
            TcpStream::connect(story.controller.tls).expect("a connection")
        })
    };
    let begin = Instant::now();
    let mut many = silent(SILENT);
    let all = (HANDSHAKEN + SILENT) as f64;
    await_that("all to be accepted", || {
        count(&story, "connections_total") >= all
    });
    let at_once = count(&story, "connections_open");
    println!(
        "{at_once} connections were open {:?} after the first silent one",
        begin.elapsed()
    );
    // A newcomer among them, who has to wait for none of them.
    let mut newcomer = story.connect();
    assert_eq!(story.honest.call(&mut newcomer).status, 200);
    // More than may be open: those that ask nothing give way.
    many.extend(silent(FURTHER));
    let mut newcomer = story.connect();
    assert_eq!(story.honest.call(&mut newcomer).status, 200);
    println!(
        "{} were sent away, {} refused; at most {} MiB resident",
        count(&story, "connections_sent_away_total"),
        count(&story, "connections_refused_total"),
        story.most_resident_bytes() >> 20
    );
    assert_eq!(count(&story, "connections_refused_total"), 0.0);
    story.honest_is_served();
    let answer = held.answer().expect("an answer to the call that was held");
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(count(&story, "connections_total") >= (HANDSHAKEN + SILENT + FURTHER) as f64);
    assert!(story.most_resident_bytes() < RESIDENT_BYTES_MOST);

    // The silent are let go by themselves, and a flood of them is a line or two of the log.
    for stream in &mut many {
        let _ = stream.set_read_timeout(Some(PATIENCE));
        let _ = stream.write_all(b"");
    }
    let begin = Instant::now();
    while count(&story, "connections_open") > (HANDSHAKEN + 10) as f64 {
        assert!(begin.elapsed() < PATIENCE, "silent connections stay");
        std::thread::sleep(Duration::from_millis(50));
    }
    let lines = story.controller.process.log().lines().count();
    assert!(lines < 200, "{lines} lines in the log");
    story.honest_is_served();
    drop((many, handshaken));
}

#[test]
fn connections_to_the_port_of_probes_that_ask_nothing_take_nothing() {
    let test = "connections_to_the_port_of_probes_that_ask_nothing_take_nothing";
    let Some(server) = installed(test) else {
        return;
    };
    let (release, shop) = (Installation::new(server), server.namespace("shop"));
    let mut story = Story::begin(server, &release, &shop);
    let process = &story.controller.process;
    let before = process.descriptors();
    let silent: Vec<_> = (0..500)
        .map(|_| TcpStream::connect(story.controller.http).expect("a connection"))
        .collect();
    // The newest is answered, whoever came before.
    let alive = http::get(story.controller.http, "/livez").expect("an answer");
    assert_eq!(alive.status, 200);
    let grown = process.descriptors() - before;
    assert!(grown < 100, "{grown} descriptors for {}", silent.len());
    story.honest_is_served();
}

#[test]
fn a_replica_without_a_certificate_is_not_ready_and_says_why() {
    let Some(server) = installed("a_replica_without_a_certificate_is_not_ready_and_says_why")
    else {
        return;
    };
    let release = Installation::new(server);
    let flags = ["--linger-seconds=0", "--external-certificates"];
    let controller = release.start_flagged("one", &flags);
    let why = "there is no certificate to answer with yet: ";
    await_that("it to say that it has no certificate", || {
        http::get(controller.http, "/readyz")
            .is_ok_and(|answer| answer.status == 503 && answer.body.contains(why))
    });
    let answer = http::get(controller.http, "/readyz").expect("an answer");
    assert!(answer.body.contains("Secret"), "{answer:?}");
}
