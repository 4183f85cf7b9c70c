//! The controller while its API server is slow, fails, loses answers or restarts: it recovers by itself, what changed meanwhile becomes
//! right in the end, and it never writes in a storm.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use hyper::{Method, StatusCode};
use kube::ResourceExt;
use ringside_e2e::PATIENCE;
use ringside_e2e::apiserver::{ApiServer, Namespace};
use ringside_e2e::caller::{self, Caller, report};
use ringside_e2e::definitions::install;
use ringside_e2e::identity;
use ringside_e2e::installation::{Controller, Installation};
use ringside_e2e::kubelet::Kubelet;
use ringside_e2e::proxy::{Fault, Proxy, Requests};
use serde_json::{Value, json};
use tokio_rustls::rustls::ClientConfig;

/// Waits for what trouble may delay: pauses grow to half a minute while it lasts.
#[track_caller]
fn in_the_end(what: &str, mut holds: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < PATIENCE, "never: {what}");
        thread::sleep(Duration::from_millis(50));
    }
}

/// A sidecar that runs what it is told, in a thread of its own.
struct Sidecar {
    /// `batch.max` as policies assign it.
    runs: Arc<Mutex<Value>>,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Sidecar {
    fn start(
        tls: Arc<ClientConfig>,
        address: SocketAddr,
        token: String,
        mut report: Value,
    ) -> Self {
        let (runs, is_over) = (Arc::<Mutex<Value>>::default(), Arc::<AtomicBool>::default());
        let (told, over) = (runs.clone(), is_over.clone());
        let thread = thread::spawn(move || {
            while !over.load(Relaxed) {
                let Ok(mut caller) = Caller::connect(address, &tls) else {
                    thread::sleep(Duration::from_millis(100));
                    continue;
                };
                while let Ok(answer) = caller.call(Some(&token), &report.to_string()) {
                    let said = answer.json();
                    if answer.status == 200 {
                        let assigned = &said["offer"]["Run"];
                        if !assigned.is_null() {
                            report["runs"] = assigned["hash"].clone();
                            *told.lock().unwrap() =
                                assigned["layers"]["policy"]["batch"]["max"].clone();
                        }
                        report["permit"] = said["permit"].clone();
                        report["seen"] = said["mark"].clone();
                    }
                    // It asks to be answered at once, so that it can be ended at any time.
                    thread::sleep(Duration::from_millis(100));
                    if over.load(Relaxed) {
                        return;
                    }
                }
            }
        });
        Self {
            runs,
            is_over,
            thread: Some(thread),
        }
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        self.is_over.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Story<'s> {
    server: &'s ApiServer,
    shop: &'s Namespace<'s>,
    proxy: &'s Proxy,
    controller: Controller,
    sidecar: Sidecar,
    max: u32,
}

impl Story<'_> {
    /// Changes the policy; its new `batch.max`.
    fn change(&mut self) {
        self.max += 1;
        self.shop.apply(&format!(
            "{{apiVersion: ringside.dev/v1alpha1, kind: RelayPolicy, metadata: {{name: web}}, spec: {{podSelector: {{}}, batch: {{max: {}}}}}}}",
            self.max
        ));
    }

    /// That pod and status are as the policy is now, and stay so.
    #[track_caller]
    fn becomes_right(&mut self, after: &str) {
        let begin = Instant::now();
        in_the_end(
            &format!("after {after}: the sidecar runs the policy"),
            || *self.sidecar.runs.lock().unwrap() == self.max,
        );
        let path = "-o=jsonpath={.metadata.generation} {.status.observedGeneration} {.status.pods.summary} {range .status.conditions[*]}{.type}={.status} {end}";
        in_the_end(&format!("after {after}: the status is right"), || {
            let said = self.shop.kubectl(&["get", "rlp", "web", path]);
            let words: Vec<&str> = said.split_whitespace().collect();
            let conditions: BTreeSet<&str> = words.iter().copied().collect();
            let all = ["1/1", "Accepted=True", "Programmed=True", "Ready=True"];
            words.len() > 2
                && words[0] == words[1]
                && all.iter().all(|one| conditions.contains(one))
        });
        assert_eq!(self.controller.process.ended(), None, "after {after}");
        println!("right {:?} after {after}", begin.elapsed());
    }

    /// Trouble while the policy changes; statuses are written seldom all the while.
    #[track_caller]
    fn trouble(
        &mut self,
        what: &str,
        begin: impl FnOnce(&Proxy, &ApiServer),
        lasts: impl Fn(&Proxy) -> bool,
    ) {
        let writes = Requests::all().method(Method::PATCH).path("/status");
        let (before, began) = (self.proxy.count(&writes), Instant::now());
        begin(self.proxy, self.server);
        self.change();
        in_the_end(&format!("{what} is met"), || !lasts(self.proxy));
        self.proxy.lift();
        self.becomes_right(what);
        let written = self.proxy.count(&writes) - before;
        // One each ten seconds, one for the new generation, and retries that come ever later.
        let most = began.elapsed().as_secs() as usize / 5 + 8;
        assert!(
            written <= most,
            "{written} writes of a status in {:?} of {what}",
            began.elapsed()
        );
    }
}

fn answer(status: u16) -> Fault {
    Fault::Answer(StatusCode::from_u16(status).expect("a status"))
}

#[test]
fn whatever_hurts_the_api_server_the_controller_recovers() {
    let test = "whatever_hurts_the_api_server_the_controller_recovers";
    let Some(server) = ApiServer::own(test) else {
        return;
    };
    install(&server);
    let (release, shop) = (Installation::new(&server), server.namespace("shop"));
    let proxy = Proxy::start(&server);
    let controller = release.start_by(&proxy.kubeconfig_with_token(release.token()), "one");
    controller.await_leading();
    controller.await_ready();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let (pod, token) = runtime.block_on(async {
        let client = server.client();
        let kubelet = Kubelet::new(client.clone(), shop.name(), "node");
        let pod = json!({
            "metadata": {"name": "web", "labels": {"ringside.dev/inject": "enabled"},
                "annotations": {"ringside.dev/injected": "test"}},
            "spec": {"serviceAccountName": "default", "containers": [{"name": "app", "image": "app"}]},
        });
        let pod = kubelet.create(pod).await.unwrap();
        kubelet.start("web").await.unwrap();
        let audience = identity::AUDIENCE;
        let token = identity::token(&client, shop.name(), "default", audience, Some(&pod)).await;
        (pod, token.unwrap())
    });
    let tls = caller::tls(&release.ca_pem());
    let report = report(shop.name(), "web", &pod.uid().unwrap(), "Stays");
    let sidecar = Sidecar::start(tls, controller.tls, token, report);
    let mut story = Story {
        server: &server,
        shop: &shop,
        proxy: &proxy,
        controller,
        sidecar,
        max: 100,
    };
    story.change();
    story.becomes_right("the start");

    let watches = || Requests::all().watches();
    let more = |requests: Requests, times: usize| {
        let before = proxy.count(&requests);
        move |proxy: &Proxy| proxy.count(&requests) < before + times
    };
    let status = || Requests::all().method(Method::PATCH).path("/status");
    let leases = || Requests::all().method(Method::PUT).path("/leases");

    let expired = more(watches(), 12);
    story.trouble(
        "watches that expire",
        |proxy, _| {
            proxy.fail(watches(), Fault::ExpireWatch);
            proxy.cut();
        },
        expired,
    );

    // One conflict is somebody else's write between a read and ours, and no reason to lead no more.
    let logged = |story: &Story<'_>| {
        let log = story.controller.process.log();
        log.matches("\"message\":\"leadership\"").count()
    };
    let before = logged(&story);
    let conflicts = more(leases(), 3);
    story.trouble(
        "a conflict on the Lease",
        |proxy, _| {
            proxy.fail_times(1, leases(), answer(409));
        },
        conflicts,
    );
    assert_eq!(logged(&story), before, "it has led all the while");

    let conflicts = more(status(), 2);
    story.trouble(
        "conflicts on status and Lease",
        |proxy, _| {
            proxy.fail(status(), answer(409));
            proxy.fail(leases(), answer(409));
        },
        conflicts,
    );

    let slow = more(leases(), 3);
    story.trouble(
        "slow answers",
        |proxy, _| {
            let fault = Fault::Delay(Duration::from_millis(1_200));
            proxy.fail(Requests::all(), fault);
        },
        slow,
    );

    for code in [500, 503, 429] {
        let failed = more(Requests::all(), 15);
        story.trouble(
            &format!("answers of {code}"),
            |proxy, _| {
                proxy.fail(Requests::all(), answer(code));
                proxy.cut();
            },
            failed,
        );
    }

    let cut = more(Requests::all(), 15);
    story.trouble(
        "connections that are cut",
        |proxy, _| {
            proxy.fail(Requests::all(), Fault::Cut);
            proxy.cut();
        },
        cut,
    );

    let lost = more(status(), 2);
    story.trouble(
        "answers that are lost",
        |proxy, _| {
            proxy.fail(Requests::all().no_watches(), Fault::LoseAnswer);
        },
        lost,
    );

    // None of this is the API server's own refusal. One that has just started knows no roles for a moment.
    release.asked_nothing_else();
    story.trouble(
        "a restart of the API server",
        |_, server| server.restart(),
        |_| false,
    );

    let lines = story.controller.process.log().lines().count();
    println!("{lines} lines in the log");
    assert!(lines < 500, "{lines} lines in the log");
}
