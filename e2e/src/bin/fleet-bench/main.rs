//! `make bench-fleet`: Deployments of thousands of pods at a real API server, made by Kubernetes' controller manager and scheduler, injected by
//! the webhook, run by KWOK; each with a sidecar's own client ([`ringside_e2e::fleet::stub`]) at a real controller. Install, change, pushback
//! of the whole fleet, restart of the controller: times, and what each program takes.
//!
//! It owns the order of the measurements and the table.

mod deployments;
mod pushback;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use ringside_e2e::apiserver::{ApiServer, Namespace};
use ringside_e2e::await_that;
use ringside_e2e::definitions::install;
use ringside_e2e::figures::{Table, number, quantile, raise_descriptors};
use ringside_e2e::fleet::crowd::Crowd;
use ringside_e2e::installation::{Controller, Installation};
use ringside_e2e::usage::{Usage, children};
use ringside_e2e::workloads::Workloads;
use ringside_tests::http;
use ringside_tests::metrics::Metrics;
use tokio::runtime::Builder;

use deployments::{Place, app, deployment, list, policy, service};
use pushback::{Limit, Watch};

/// Nodes that KWOK plays.
const NODES: usize = 50;

/// How many of a policy's pods may be unready, in percent.
const MAX_UNREADY_PERCENT: usize = 30;

/// Deployments whose making is compared with that of as many which ask for no relay.
const COMPARED: usize = 10;

/// Changes whose way into sidecars is timed, of each kind.
const CHANGES: usize = 5;

fn main() {
    let (pods, policies) = (number("PODS", 5_000), number("POLICIES", 50));
    assert!(
        (COMPARED + 1..=100).contains(&policies)
            && pods.is_multiple_of(policies)
            && pods >= policies,
        "PODS must be a multiple of POLICIES, and POLICIES {} to 100",
        COMPARED + 1
    );
    raise_descriptors(2 * pods as u64 + 2_048);
    let Some(server) = ApiServer::own("fleet-bench") else {
        std::process::exit(1);
    };
    install(&server);
    let workloads = Workloads::start(&server, NODES).unwrap_or_else(|error| {
        eprintln!("{error}");
        std::process::exit(1);
    });
    let runtime = Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let bench = Bench {
        server: &server,
        shop: server.namespace("fleet"),
        policies,
        each: pods / policies,
        table: Table::default(),
    };
    let table = runtime.block_on(bench.run());
    drop(workloads);
    table.print(&format!("{pods} pods, {policies} policies"));
}

struct Bench<'s> {
    server: &'s ApiServer,
    shop: Namespace<'s>,
    policies: usize,
    /// Pods of a policy.
    each: usize,
    table: Table,
}

impl Bench<'_> {
    fn row(&mut self, what: &'static str, asked: &'static str, measured: String) {
        self.table.row(what, asked, measured);
    }

    fn apps(&self) -> impl Iterator<Item = String> + use<> {
        (0..self.policies).map(app)
    }

    fn change_policies(&self, names: impl Iterator<Item = String>, batch: usize) -> String {
        list(names.map(|name| policy(&name, batch, MAX_UNREADY_PERCENT)))
    }

    async fn run(mut self) -> Table {
        let begun: BTreeMap<String, Usage> = usage();
        let place = Place {
            client: self.server.client(),
            namespace: self.shop.name().to_owned(),
        };
        let installation = Installation::new(self.server);
        let mut controller = installation.start("one");
        controller.await_leading();
        let webhooks = installation.install_webhooks(self.shop.name(), controller.tls);

        self.install(&place).await;
        let crowd = self.connect(&place, &controller).await;
        self.change(&place, &crowd).await;
        controller = self
            .pushback(&place, &crowd, &installation, controller)
            .await;
        self.restart(&place, &crowd, &installation, &mut controller)
            .await;

        let mut programs = Vec::new();
        for (name, now) in usage() {
            let cpu = begun.get(&name).map_or_else(
                || "since its last start".to_owned(),
                |before| format!("{:.0} s", now.cpu_seconds_since(before)),
            );
            programs.push(format!(
                "{name} {:.0} ({:.0} at most; {cpu})",
                now.resident_mib, now.resident_most_mib
            ));
        }
        self.row(
            "resident memory at the end, MiB (and CPU in all)",
            "-",
            programs.join("; "),
        );
        installation.asked_nothing_else();
        drop(webhooks);
        self.table
    }

    /// The Deployments, and how much longer they take with a webhook that injects.
    async fn install(&mut self, place: &Place) {
        let compared = COMPARED * self.each;
        let plain: Vec<String> = (0..COMPARED)
            .map(|index| format!("plain{index}-"))
            .collect();
        let begin = Instant::now();
        self.shop.apply(&list(
            plain.iter().map(|name| deployment(name, self.each, false)),
        ));
        place.await_ready(compared).await;
        let without = begin.elapsed();
        self.shop
            .kubectl(&["delete", "deployments", "--all", "--wait=false"]);
        place.await_no_pods().await;

        self.shop.apply(&self.change_policies(self.apps(), 64));
        self.shop
            .apply(&list(self.apps().map(|name| service(&name))));
        let begin = Instant::now();
        let first = self.apps().take(COMPARED);
        self.shop
            .apply(&list(first.map(|name| deployment(&name, self.each, true))));
        place.await_ready(compared).await;
        let with = begin.elapsed();
        let rest = self.apps().skip(COMPARED);
        self.shop
            .apply(&list(rest.map(|name| deployment(&name, self.each, true))));
        place.await_ready(self.policies * self.each).await;
        let all = begin.elapsed();
        let pods = self.policies * self.each;
        self.row(
            "Deployments made until all pods are injected and Ready",
            "-",
            format!(
                "{:.1} s, {:.0} pods a second",
                all.as_secs_f64(),
                pods as f64 / all.as_secs_f64()
            ),
        );
        self.row(
            "the same, against Deployments without a relay",
            "-",
            format!(
                "{:.2} times ({compared} pods: {:.1} s, without {:.1} s)",
                with.as_secs_f64() / without.as_secs_f64(),
                with.as_secs_f64(),
                without.as_secs_f64()
            ),
        );
        let webhook = self.webhook();
        self.row("the webhook, as the API server saw it", "-", webhook);
    }

    /// How long the API server waited for reviews, by its own histogram.
    fn webhook(&self) -> String {
        let metrics = Metrics::parse(&self.server.kubectl(&["get", "--raw", "/metrics"]));
        let name = "apiserver_admission_webhook_admission_duration_seconds";
        let labels = [("type", "admit"), ("operation", "CREATE")];
        let count = metrics.sum(&format!("{name}_count"), &labels);
        let mean = metrics.sum(&format!("{name}_sum"), &labels) / count;
        let mut buckets: BTreeMap<String, f64> = BTreeMap::new();
        for sample in metrics.matching(&format!("{name}_bucket"), &labels) {
            *buckets.entry(sample.labels["le"].clone()).or_default() += sample.value;
        }
        let mut buckets: Vec<(f64, f64)> = buckets
            .into_iter()
            .filter_map(|(le, count)| Some((le.parse().ok()?, count)))
            .collect();
        buckets.sort_by(|one, other| one.0.total_cmp(&other.0));
        let within = |share: f64| {
            buckets
                .iter()
                .find(|(_, found)| *found >= share * count)
                .map_or(f64::INFINITY, |(le, _)| *le)
        };
        format!(
            "{count:.0} reviews, {:.1} ms on average; 50 % within {:.0} ms, 99 % within {:.0} ms (bounds of its histogram)",
            mean * 1e3,
            within(0.5) * 1e3,
            within(0.99) * 1e3
        )
    }

    async fn connect(&mut self, place: &Place, controller: &Controller) -> Crowd {
        // With failurePolicy Ignore a pod whose review has no answer within five seconds runs without a relay, as an Event tells.
        let begin = Instant::now();
        let mut without = 0;
        loop {
            let (found, injected) = place.delete_uninjected().await;
            if injected == self.policies * self.each {
                break;
            }
            without += found;
            tokio::time::sleep(Duration::from_secs(1)).await;
            place.await_ready(self.policies * self.each).await;
        }
        self.row(
            "pods whose review was not answered in time: made anew",
            "none, where there is CPU for all",
            format!("{without}, {:.1} s", begin.elapsed().as_secs_f64()),
        );
        let pods = place.pods().await;
        assert_eq!(
            pods.len(),
            self.policies * self.each,
            "all pods were injected"
        );
        let empty = Usage::of(controller.process.pid());
        let begin = Instant::now();
        let crowd = Crowd::start(controller.tls, pods);
        crowd.all_connected_since(begin).await;
        let connected = begin.elapsed();
        crowd.all_run_something().await;
        place
            .await_programmed(self.policies, self.each as u32)
            .await;
        self.row(
            "all sidecars start at once: connected, and every policy's status says that all run it",
            "-",
            format!(
                "{:.1} s ({}), {:.1} s; the controller before that {:.0} MiB",
                connected.as_secs_f64(),
                crowd.storm(begin),
                begin.elapsed().as_secs_f64(),
                empty.resident_mib
            ),
        );
        crowd
    }

    async fn change(&mut self, place: &Place, crowd: &Crowd) {
        let mut live = [Vec::new(), Vec::new(), Vec::new()];
        let mut told = Vec::new();
        for change in 0..CHANGES {
            let index = change * self.policies / CHANGES;
            let one = self.change_policies([app(index)].into_iter(), 100 + change);
            live[0].extend(
                crowd
                    .changed(&app(index), || drop(self.shop.apply(&one)))
                    .await,
            );

            let all = self.change_policies(self.apps(), 200 + change);
            let begin = Instant::now();
            live[1].extend(crowd.changed("", || drop(self.shop.apply(&all))).await);
            place
                .await_programmed(self.policies, self.each as u32)
                .await;
            told.push(begin.elapsed().as_secs_f64());

            let min = 2 + change;
            let cluster = format!(
                "{{apiVersion: ringside.dev/v1alpha1, kind: ClusterRelayPolicy, metadata: {{name: default}}, spec: {{batch: {{min: {min}}}}}}}"
            );
            live[2].extend(
                crowd
                    .changed("", || drop(self.server.apply(&cluster)))
                    .await,
            );
        }
        let mut said = |index: usize| {
            let all: &mut Vec<f64> = &mut live[index];
            format!(
                "p50 {:.2} s, p99 {:.2} s, last {:.2} s ({CHANGES} changes)",
                quantile(all, 0.5),
                quantile(all, 0.99),
                quantile(all, 1.0)
            )
        };
        let said = [said(0), said(1), said(2)];
        let [one, all, cluster] = said;
        self.row("a change of one policy live in its pods", "p99 1 s", one);
        self.row(
            "a change of every policy, in one kubectl apply, live in all pods",
            "p99 2 s",
            all,
        );
        let told = format!(
            "{:.1} s after kubectl began, at most {:.1} s",
            quantile(&mut told, 0.5),
            quantile(&mut told, 1.0)
        );
        self.row("its status says so, of every policy", "-", told);
        self.row(
            "a change of the ClusterRelayPolicy live in all pods",
            "p99 2 s",
            cluster,
        );
    }

    /// All sidecars under pressure: with a controller, then with none, which comes back meanwhile.
    async fn pushback(
        &mut self,
        place: &Place,
        crowd: &Crowd,
        installation: &Installation<'_>,
        mut controller: Controller,
    ) -> Controller {
        let limit = Limit {
            policies: self.policies,
            each: (self.each * MAX_UNREADY_PERCENT).div_ceil(100),
        };
        let watch = Watch::start(place, crowd, limit);
        let since = watch.now();
        crowd.press(true);
        let left = watch.at_limit().await;
        let told = left + watch.endpoints(limit.each).await;
        tokio::time::sleep(Duration::from_secs(10)).await;
        let most = watch.most_away(since);
        crowd.press(false);
        let back = watch.all_back().await;
        let back_told = back + watch.endpoints(0).await;
        place
            .await_programmed(self.policies, self.each as u32)
            .await;
        self.row(
            "all pods under pushback at once: as many leave as may",
            "never more",
            format!(
                "{} of {} within {:.1} s, out of the EndpointSlices within {:.1} s; of a policy's {} at most {most} at once ({})",
                limit.each * self.policies,
                self.each * self.policies,
                left.as_secs_f64(),
                told.as_secs_f64(),
                self.each,
                watch.closeness()
            ),
        );
        self.row(
            "pushback ends: all are back",
            "-",
            format!(
                "{:.1} s, in the EndpointSlices {:.1} s",
                back.as_secs_f64(),
                back_told.as_secs_f64()
            ),
        );

        let since = watch.now();
        end(&mut controller, libc::SIGKILL);
        crowd.press(true);
        let left = watch.at_limit().await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        let begin = Instant::now();
        let controller = installation.start_at(controller.tls.port(), "one");
        await_ready(&controller);
        crowd.all_connected_since(begin).await;
        tokio::time::sleep(Duration::from_secs(10)).await;
        let most = watch.most_away(since);
        crowd.press(false);
        watch.all_back().await;
        watch.endpoints(0).await;
        place
            .await_programmed(self.policies, self.each as u32)
            .await;
        self.row(
            "the same while the controller is killed, and comes back",
            "never more",
            format!(
                "{} away by their permits within {:.1} s; of a policy's {} at most {most} at once, the return included",
                limit.each * self.policies,
                left.as_secs_f64(),
                self.each
            ),
        );
        controller
    }

    async fn restart(
        &mut self,
        place: &Place,
        crowd: &Crowd,
        installation: &Installation<'_>,
        controller: &mut Controller,
    ) {
        let mut restarts = Vec::new();
        for (how, signal) in [("asked to end", libc::SIGTERM), ("killed", libc::SIGKILL)] {
            let before = crowd.outcomes();
            end(controller, signal);
            let begin = Instant::now();
            *controller = installation.start_at(controller.tls.port(), "one");
            await_ready(controller);
            let reads = begin.elapsed().as_secs_f64();
            crowd.all_connected_since(begin).await;
            let all = begin.elapsed().as_secs_f64();
            place
                .await_programmed(self.policies, self.each as u32)
                .await;
            restarts.push(format!(
                "{how}: {all:.1} s, {reads:.1} of them to read the cluster, {}, statuses right after {:.1} s, of the calls {}",
                crowd.storm(begin),
                begin.elapsed().as_secs_f64(),
                crowd.failed_since(&before)
            ));
        }
        self.row(
            "all back after a restart of the controller",
            "within 30 s, no storm",
            restarts.join("; "),
        );
    }
}

/// As patiently as a fleet that all comes back at once may want it.
fn await_ready(controller: &Controller) {
    await_that("the controller to be ready", || {
        http::get(controller.http, "/readyz").is_ok_and(|answer| answer.status == 200)
    });
}

fn end(controller: &mut Controller, signal: i32) {
    controller.process.signal(signal);
    controller.process.await_end();
}

/// What each program of this bench has used, this one included.
fn usage() -> BTreeMap<String, Usage> {
    let own = (
        "this bench with all sidecars".to_owned(),
        std::process::id(),
    );
    let all = children().into_iter().chain([own]);
    let lasting = all.filter(|(name, _)| !["sh", "kubectl"].contains(&name.as_str()));
    lasting.map(|(name, pid)| (name, Usage::of(pid))).collect()
}
