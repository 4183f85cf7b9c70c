//! Applications: Redis, PostgreSQL and nginx behind sidecars, as Deployments and StatefulSets, by Services of both kinds, with the clients that their
//! own projects measure them with.

use std::sync::Arc;
use std::time::Duration;

use ringside_e2e::apiserver::Namespace;
use ringside_e2e::cluster::Cluster;
use ringside_e2e::story::{Ringside, Story, await_within};
use ringside_tests::http;
use ringside_tests::metrics::Metrics;
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(120);

const REDIS: &str = "localhost/redis:e2e";
const POSTGRES: &str = "localhost/postgres:e2e";
const NGINX: &str = "localhost/nginx:e2e";

/// Of each the Debian packages that it is made of, whole.
const IMAGES: [(&str, &[&str]); 3] = [
    (
        REDIS,
        &["--package", "redis-server", "--package", "redis-tools"],
    ),
    (
        POSTGRES,
        &[
            "--package",
            "postgresql-15",
            "--package",
            "dash",
            "--package",
            "coreutils",
        ],
    ),
    (NGINX, &["--package", "nginx-light", "--package", "wrk"]),
];

/// It also listens at the pod's address, so that the same can be measured without the relay.
const REDIS_SERVER: [&str; 9] = [
    "redis-server",
    "--bind",
    "0.0.0.0",
    "--port",
    "6379",
    "--protected-mode",
    "no",
    "--save",
    "",
];

const POSTGRES_BIN: &str = "/usr/lib/postgresql/15/bin";

const NGINX_SETTINGS: &str = r#"pid /tmp/nginx.pid; error_log stderr; worker_processes 1; events { worker_connections 4096; }
http {
  access_log off; client_body_temp_path /tmp/b; proxy_temp_path /tmp/p; fastcgi_temp_path /tmp/f; uwsgi_temp_path /tmp/u; scgi_temp_path /tmp/s;
  server { listen 8080; location / { return 200 "hello\n"; } }
}"#;

#[test]
fn s08_applications() {
    let Some(story) = Story::begin(8, "Applications") else {
        return;
    };
    let cluster = story.cluster();
    Ringside::installed(cluster);
    story.step(
        "images of Debian packages, made where they are not there yet, and loaded into every node",
    );
    for (name, flags) in IMAGES {
        cluster.load_made(name, flags);
    }
    let shop = story.namespace("shop");
    let place = Place { cluster, shop };

    story.step("six applications, all at once");
    place.apply(&applications());
    story.timed(
        "Redis, PostgreSQL and nginx Ready, each as a Deployment and as a StatefulSet, ten pods",
        || place.await_ready(10),
    );

    story.step("Redis");
    let flags = ["-n", "20000", "-c", "50", "-t", "set,get", "--csv"];
    let redis = |name: &str, host: &str, port: &str| {
        let said = place.client(
            name,
            REDIS,
            &[&["redis-benchmark", "-h", host, "-p", port], &flags[..]].concat(),
        );
        // "GET","12345.67",...
        let line = said.lines().find(|line| line.starts_with("\"GET\""));
        let rate = line.and_then(|line| line.split('"').nth(3)?.parse::<f64>().ok());
        rate.unwrap_or_else(|| panic!("no rate of redis-benchmark: {said}"))
    };
    let relayed = redis("redis-service", "cache", "6379");
    let direct = redis("redis-direct", &place.address("cache"), "6379");
    story.shown("Redis, Deployment and Service, redis-benchmark with 50 clients: GET per second (without the relay)", compared(relayed, direct));
    let headless = redis("redis-headless", "cache-set-0.cache-set", "15079");
    story.shown(
        "Redis, StatefulSet and headless Service, by its pod's name: GET per second",
        format_args!("{headless:.0}"),
    );
    place.assert_relayed(&["cache", "cache-set"], 100.0);

    story.step("PostgreSQL");
    let postgres = |name: &str, host: &str, port: &str, fill: bool| {
        let at = format!("-h {host} -p {port} -U postgres");
        let fill = if fill {
            format!("pgbench -i -q -s 2 {at} postgres && ")
        } else {
            String::new()
        };
        let script =
            format!("export PATH=$PATH:{POSTGRES_BIN}; {fill}pgbench -n -c 8 -T 4 {at} postgres");
        let said = place.client(name, POSTGRES, &["sh", "-c", &script]);
        assert!(said.contains("number of failed transactions: 0 "), "{said}");
        let line = said.lines().find_map(|line| line.strip_prefix("tps = "));
        let rate = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
        rate.unwrap_or_else(|| panic!("no rate of pgbench: {said}"))
    };
    let relayed = postgres("postgres-service", "db", "5432", true);
    let direct = postgres("postgres-direct", &place.address("db"), "5432", false);
    story.shown("PostgreSQL, Deployment and Service, pgbench with 8 clients: transactions per second (without the relay)", compared(relayed, direct));
    let headless = postgres("postgres-headless", "db-set-0.db-set", "15432", true);
    story.shown(
        "PostgreSQL, StatefulSet and headless Service, the relay by its Unix socket: transactions per second",
        format_args!("{headless:.0}"),
    );
    place.assert_relayed(&["db", "db-set"], 9.0);

    story.step("nginx");
    let nginx = |name: &str, url: &str| {
        let said = place.client(
            name,
            NGINX,
            &["wrk", "-t", "1", "-c", "32", "-d", "4s", url],
        );
        assert!(
            !said.contains("Socket errors") && !said.contains("Non-2xx"),
            "{said}"
        );
        let line = said
            .lines()
            .find_map(|line| line.trim().strip_prefix("Requests/sec:"));
        let rate = line.and_then(|line| line.trim().parse::<f64>().ok());
        rate.unwrap_or_else(|| panic!("no rate of wrk: {said}"))
    };
    let relayed = nginx("nginx-service", "http://web:80/");
    let direct = nginx(
        "nginx-direct",
        &format!("http://{}:8080/", place.address("web")),
    );
    story.shown(
        "nginx, Deployment of three and Service, wrk with 32 connections: requests per second (one pod without the relay)",
        compared(relayed, direct),
    );
    let headless = nginx("nginx-headless", "http://web-set-1.web-set:15080/");
    story.shown("nginx, StatefulSet of three and headless Service, the second pod by its name: requests per second", format_args!("{headless:.0}"));
    place.assert_relayed(&["web"], 32.0);
    place.assert_relayed(&["web-set"], 32.0);

    story.step("what the sidecars say of all of it");
    let (closed, unusual) = place.closed();
    assert!(
        unusual.is_empty(),
        "connections that did not end as they should: {unusual:?}"
    );
    story.shown(
        "relayed connections, all ended as their clients ended them",
        format_args!("{closed:.0}"),
    );
}

fn compared(relayed: f64, direct: f64) -> String {
    format!("{relayed:.0} ({direct:.0}): {:.2}", relayed / direct)
}

/// All objects: `cache`, `db` and `web` are Deployments, `cache-set`, `db-set` and `web-set` StatefulSets with headless Services.
fn applications() -> Vec<Value> {
    let redis = json!({"image": REDIS, "command": REDIS_SERVER, "readinessProbe": probe(6379)});
    let start = |flags: &str| {
        let data = "/tmp/data";
        let script = format!(
            "export PATH=$PATH:{POSTGRES_BIN}; initdb -D {data} -A trust -U postgres --locale=C -E UTF8 >/dev/null && \
             echo 'host all all all trust' >>{data}/pg_hba.conf && exec postgres -D {data} -c fsync=off {flags}"
        );
        json!(["sh", "-c", script])
    };
    let mut by_tcp = json!({"image": POSTGRES, "readinessProbe": probe(5432), "securityContext": {"runAsUser": 999}});
    let mut by_socket = by_tcp.clone();
    by_tcp["command"] = start("-c listen_addresses='*' -c unix_socket_directories=/tmp");
    // Reached by nobody but through the relay.
    by_socket["command"] =
        start("-c listen_addresses='' -c unix_socket_directories=/run/postgresql");
    by_socket["readinessProbe"] = json!({
        "exec": {"command": [format!("{POSTGRES_BIN}/pg_isready"), "-h", "/run/postgresql"]}, "periodSeconds": 1, "timeoutSeconds": 10,
    });
    by_socket["volumeMounts"] = json!([{"name": "socket", "mountPath": "/run/postgresql"}]);
    let nginx = json!({
        "image": NGINX, "command": ["nginx", "-c", "/settings/nginx.conf", "-g", "daemon off;"],
        "securityContext": {"runAsUser": 1000}, "readinessProbe": probe(8080),
        "volumeMounts": [{"name": "settings", "mountPath": "/settings"}],
    });
    let socket = json!([{"name": "socket", "emptyDir": {}}]);
    let settings = json!([{"name": "settings", "configMap": {"name": "nginx"}}]);
    let none = json!([]);
    vec![
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "nginx"}, "data": {"nginx.conf": NGINX_SETTINGS}}),
        workload("Deployment", "cache", 1, "redis=15079:6379", &redis, &none),
        service("cache", 6379, "redis", false),
        workload(
            "StatefulSet",
            "cache-set",
            1,
            "redis=15079:6379",
            &redis,
            &none,
        ),
        service("cache-set", 15079, "redis", true),
        workload("Deployment", "db", 1, "db=15432:5432", &by_tcp, &none),
        service("db", 5432, "db", false),
        workload(
            "StatefulSet",
            "db-set",
            1,
            "db=15432:unix:/run/postgresql/.s.PGSQL.5432",
            &by_socket,
            &socket,
        ),
        service("db-set", 15432, "db", true),
        workload("Deployment", "web", 3, "web=15080:8080", &nginx, &settings),
        service("web", 80, "web", false),
        workload(
            "StatefulSet",
            "web-set",
            3,
            "web=15080:8080",
            &nginx,
            &settings,
        ),
        service("web-set", 15080, "web", true),
    ]
}

fn probe(port: u16) -> Value {
    json!({"tcpSocket": {"port": port}, "periodSeconds": 1, "failureThreshold": 60})
}

fn workload(
    kind: &str,
    name: &str,
    replicas: u32,
    relay: &str,
    container: &Value,
    volumes: &Value,
) -> Value {
    let mut container = container.clone();
    container["name"] = json!("app");
    container["imagePullPolicy"] = json!("Never");
    let mut workload = json!({
        "apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name},
        "spec": {
            "replicas": replicas, "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {
                    "labels": {"app": name, "of": "story", "ringside.dev/inject": "enabled"},
                    "annotations": {"ringside.dev/relay": relay, "ringside.dev/workers": "1"},
                },
                "spec": {"terminationGracePeriodSeconds": 2, "containers": [container], "volumes": volumes},
            },
        },
    });
    if kind == "StatefulSet" {
        workload["spec"]["serviceName"] = json!(name);
        workload["spec"]["podManagementPolicy"] = json!("Parallel");
    }
    workload
}

/// A headless Service only gives names to pods: who comes by them comes to the relay's own port.
fn service(name: &str, port: u16, target: &str, headless: bool) -> Value {
    let mut service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
        "spec": {"selector": {"app": name}, "ports": [{"port": port, "targetPort": target}]},
    });
    if headless {
        service["spec"]["clusterIP"] = json!("None");
    }
    service
}

struct Place {
    cluster: &'static Cluster,
    shop: Arc<Namespace<'static>>,
}

impl Place {
    fn apply(&self, objects: &[Value]) {
        let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
        self.shop.apply(&list.to_string());
    }

    fn pods(&self, selector: &str) -> Vec<Value> {
        let selector = format!("--selector={selector}");
        let pods = self
            .shop
            .kubectl(&["get", "pods", &selector, "--output=json"]);
        let pods: Value = serde_json::from_str(&pods).expect("kubectl prints JSON");
        pods["items"].as_array().cloned().unwrap_or_default()
    }

    fn await_ready(&self, count: usize) {
        await_within(PATIENCE, "all applications to be Ready", || {
            let pods = self.pods("of=story");
            let ready = pods
                .iter()
                .filter(|pod| ringside_e2e::story::is_ready(pod))
                .count();
            (ready == count).then_some(())
        });
    }

    /// The address of one pod of an application, past every Service.
    fn address(&self, app: &str) -> String {
        let pods = self.pods(&format!("app={app}"));
        pods[0]["status"]["podIP"]
            .as_str()
            .expect("an address")
            .to_owned()
    }

    /// Runs a client in a pod of its own to its end, which must be good; returns what it said.
    fn client(&self, name: &str, image: &str, command: &[&str]) -> String {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
            "spec": {"restartPolicy": "Never", "containers": [
                {"name": "client", "image": image, "imagePullPolicy": "Never", "command": command, "securityContext": {"runAsUser": 1000}},
            ]},
        });
        self.shop.apply(&pod.to_string());
        let phase = await_within(PATIENCE, &format!("{name} to end"), || {
            let phase =
                self.shop
                    .kubectl(&["get", "pod", name, "--output=jsonpath={.status.phase}"]);
            ["Succeeded", "Failed"]
                .contains(&phase.as_str())
                .then_some(phase)
        });
        let said = self.shop.kubectl(&["logs", name]);
        assert_eq!(phase, "Succeeded", "{name}: {said}");
        said
    }

    fn metrics(&self, selector: &str) -> Vec<Metrics> {
        let pods = self.pods(selector);
        let scrape = |pod: &Value| {
            let address = format!(
                "{}:15490",
                pod["status"]["podIP"].as_str().unwrap_or_default()
            );
            let address = address.parse().expect("a pod's address");
            let answer = self.cluster.inside(|| http::get(address, "/metrics"));
            Metrics::parse(&answer.expect("a sidecar's metrics").body)
        };
        pods.iter().map(scrape).collect()
    }

    /// That so many connections at least went through the relays of these applications, both ways.
    fn assert_relayed(&self, apps: &[&str], connections: f64) {
        for app in apps {
            let metrics = self.metrics(&format!("app={app}"));
            let sum = |name: &str, labels: &[(&str, &str)]| {
                metrics.iter().map(|one| one.sum(name, labels)).sum::<f64>()
            };
            let opened = sum("ringside_connections_opened_total", &[]);
            assert!(
                opened >= connections,
                "{app}: {opened} connections were relayed, not {connections}"
            );
            for direction in ["to_upstream", "to_client"] {
                let bytes = sum("ringside_relayed_bytes_total", &[("direction", direction)]);
                assert!(bytes > 0.0, "{app}: nothing was relayed {direction}");
            }
        }
    }

    /// Connections that are closed, and those of them for a reason that nobody wants.
    fn closed(&self) -> (f64, Vec<String>) {
        let (mut all, mut unusual) = (0.0, Vec::new());
        for metrics in self.metrics("of=story") {
            for sample in metrics.matching("ringside_connections_closed_total", &[]) {
                all += sample.value;
                let reason = sample.labels.get("reason").map_or("", String::as_str);
                if sample.value > 0.0
                    && !["finished", "client_reset", "upstream_reset"].contains(&reason)
                {
                    unusual.push(format!("{} {reason}", sample.value));
                }
            }
        }
        (all, unusual)
    }
}
