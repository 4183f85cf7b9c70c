//! `make bench-control`: one controller with thousands of sidecars, against a real API server: memory, CPU, how fast a change is live, how a
//! restart goes, how fast pods are injected, how often statuses are written, how long policies take from cold.
//!
//! It owns the order of the measurements and the table. The sidecars are the sidecar's own client ([`ringside_e2e::fleet::stub`]),
//! thousands of them in this process, each with its own pod, token and TLS connection; only what a relay would tell of itself is made up.

mod injections;
mod pods;

use std::time::{Duration, Instant};

use ringside_e2e::apiserver::ApiServer;
use ringside_e2e::definitions::install;
use ringside_e2e::figures::{Table, number, quantile, raise_descriptors};
use ringside_e2e::fleet::crowd::Crowd;
use ringside_e2e::installation::{Controller, Installation};
use ringside_e2e::usage::Usage;
use ringside_tests::processes::free_port;
use tokio::runtime::Builder;

/// Namespaces; each has a policy, and its share of the pods.
const NAMESPACES: usize = 10;

/// Changes of a policy whose way into all sidecars is timed.
const CHANGES: usize = 5;

fn main() {
    let sidecars = number("SIDECARS", 10_000);
    let idle = Duration::from_secs(number("IDLE_SECONDS", 60) as u64);
    let Some(server) = ApiServer::own("control-bench") else {
        std::process::exit(1);
    };
    install(&server);
    let runtime = Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let table = runtime.block_on(measure(&server, sidecars, idle));
    table.print(&format!("{sidecars} sidecars, one controller"));
}

async fn measure(server: &ApiServer, sidecars: usize, idle: Duration) -> Table {
    raise_descriptors(sidecars as u64 + 2_048);
    let mut table = Table::default();
    let mut row = |what, asked, measured| table.row(what, asked, measured);
    let namespaces: Vec<_> = (0..NAMESPACES)
        .map(|index| server.namespace(&format!("fleet-{index}")))
        .collect();
    let installation = Installation::new(server);
    for namespace in &namespaces {
        namespace.apply(&policy("web", "web", 64));
    }
    let begin = Instant::now();
    let mut pods = pods::make(server, &namespaces, sidecars).await;
    println!(
        "{sidecars} pods with tokens were made in {:.0} s",
        begin.elapsed().as_secs_f64()
    );

    let controller = started(&installation, free_port());
    let empty = usage(&controller);
    let ca = installation.ca_pem();
    for pod in &mut pods {
        pod.ca.clone_from(&ca);
    }
    let begin = Instant::now();
    let fleet = Crowd::start(controller.tls, pods);
    fleet.all_connected_since(begin).await;
    let all = begin.elapsed().as_secs_f64();
    row(
        "all connected for the first time",
        "-",
        format!("{all:.1} s; {}", fleet.storm(begin)),
    );
    fleet.all_run_something().await;

    // Long enough for what the beginning left behind to be over.
    tokio::time::sleep(Duration::from_secs(45)).await;
    let before = usage(&controller);
    tokio::time::sleep(idle).await;
    let after = usage(&controller);
    let core = after.cpu_since(&before);
    row(
        "CPU when nothing changes",
        "at most .2 of a core",
        format!("{core:.3} of a core, over {} s", idle.as_secs()),
    );
    row(
        "resident memory",
        "at most 256 MiB",
        format!(
            "{:.0} MiB, at most {:.0} MiB so far; {:.0} MiB with the pods known and no sidecar",
            after.resident_mib, after.resident_most_mib, empty.resident_mib
        ),
    );

    let mut changes = Vec::new();
    for change in 0..CHANGES {
        let policy = format!(
            "{{apiVersion: ringside.dev/v1alpha1, kind: ClusterRelayPolicy, metadata: {{name: default}}, spec: {{batch: {{max: {}}}}}}}",
            128 + change
        );
        let apply = || drop(server.apply(&policy));
        changes.extend(fleet.changed("", apply).await);
    }
    row(
        "a change of the ClusterRelayPolicy live in all",
        "p99 at most 2 s",
        format!(
            "p50 {:.2} s, p99 {:.2} s, last {:.2} s ({CHANGES} changes)",
            quantile(&mut changes, 0.5),
            quantile(&mut changes, 0.99),
            quantile(&mut changes, 1.0)
        ),
    );

    let (mut took, missed) = {
        let namespace = namespaces[0].name();
        let duration = Duration::from_secs(20);
        injections::at(controller.tls, &ca, namespace, 100, duration)
    };
    row(
        "injections at 100/s, beside the fleet",
        "p99 at most 5 ms",
        format!(
            "p50 {:.2} ms, p99 {:.2} ms, slowest {:.1} ms; {} answered, {missed} not",
            quantile(&mut took, 0.5) * 1e3,
            quantile(&mut took, 0.99) * 1e3,
            quantile(&mut took, 1.0) * 1e3,
            took.len()
        ),
    );

    let before = metric(&controller, "ringside_controller_status_writes_total");
    let cpu = usage(&controller);
    let flaps = fleet.flap(Duration::from_secs(120)).await;
    let written = metric(&controller, "ringside_controller_status_writes_total") - before;
    let each = written / (NAMESPACES + 1) as f64 / 2.0;
    row(
        "statuses written while sidecars come and go",
        "at most 6 a minute and policy",
        format!(
            "{each:.1} a minute and policy, at {:.0} changes a second; {:.2} of a core",
            flaps as f64 / 120.0,
            usage(&controller).cpu_since(&cpu)
        ),
    );
    let settled = usage(&controller);
    row(
        "resident memory after all of that",
        "at most 256 MiB",
        format!(
            "{:.0} MiB, at most {:.0} MiB",
            settled.resident_mib, settled.resident_most_mib
        ),
    );

    let (mut controller, mut restarts) = (controller, Vec::new());
    for (how, signal) in [("asked to end", libc::SIGTERM), ("killed", libc::SIGKILL)] {
        let reviews = "ringside_controller_token_reviews_total";
        let before = fleet.outcomes();
        end(&mut controller, signal);
        let begin = Instant::now();
        controller = started(&installation, controller.tls.port());
        let reads = begin.elapsed().as_secs_f64();
        fleet.all_connected_since(begin).await;
        let all = begin.elapsed().as_secs_f64();
        restarts.push(format!(
            "{how}: {all:.1} s, {reads:.1} of them to read the cluster; {}; of the calls {}; {:.0} TokenReviews",
            fleet.storm(begin),
            fleet.failed_since(&before),
            metric(&controller, reviews)
        ));
    }
    row(
        "all back after a restart",
        "within 30 s, no storm",
        restarts.join("; "),
    );
    row(
        "resident memory after the restart",
        "at most 256 MiB",
        format!("at most {:.0} MiB", usage(&controller).resident_most_mib),
    );

    end(&mut controller, libc::SIGTERM);
    let each = 1_000 / NAMESPACES;
    for namespace in &namespaces {
        let all: Vec<_> = (0..each)
            .map(|index| policy(&format!("p{index}"), &format!("app{index}"), 32))
            .collect();
        namespace.apply(&all.join("\n---\n"));
    }
    let begin = Instant::now();
    let controller = started(&installation, controller.tls.port());
    let took = pods::policies_have_status(server, NAMESPACES * (each + 1), begin).await;
    row(
        "1,000 policies from cold",
        "at most 10 s",
        format!(
            "{:.1} s, beside a fleet that comes back",
            took.as_secs_f64()
        ),
    );
    drop(controller);
    table
}

/// A replica that has read the cluster.
fn started(installation: &Installation<'_>, port: u16) -> Controller {
    let controller = installation.start_at(port, "bench");
    controller.await_ready();
    controller
}

fn end(controller: &mut Controller, signal: i32) {
    controller.process.signal(signal);
    controller.process.await_end();
}

fn usage(controller: &Controller) -> Usage {
    Usage::of(controller.process.pid())
}

fn metric(controller: &Controller, name: &str) -> f64 {
    let metrics = controller.metrics().expect("the controller's metrics");
    metrics.sum(name, &[])
}

fn policy(name: &str, app: &str, batch: u32) -> String {
    format!(
        "{{apiVersion: ringside.dev/v1alpha1, kind: RelayPolicy, metadata: {{name: {name}}}, spec: \
         {{podSelector: {{matchLabels: {{app: {app}}}}}, batch: {{min: {batch}}}}}}}"
    )
}
