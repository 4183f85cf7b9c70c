//! A real Prometheus: it scrapes what a test names, each second, with the rules that it is given, and is asked by its own API. Ended
//! when dropped, with all that it stored. And promtool, which judges rules and metrics.
//!
//! It owns the configuration and the API's words. Nothing here decides what should be found.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::processes::{Process, command};
use crate::{await_some, http};

/// The programs, all of the Debian package `prometheus`.
pub const PROGRAMS: [&str; 2] = ["prometheus", "promtool"];

/// How long something may take that Prometheus works out of several scrapes. It is awaited, so that only a failure takes as long.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// How often it scrapes and evaluates.
pub const INTERVAL: &str = "1s";

/// Something to scrape.
#[derive(Clone, Debug)]
pub struct Target {
    /// The value of its label `job`.
    pub job: &'static str,
    /// Where its `/metrics` are.
    pub address: SocketAddr,
    /// More labels, such as a pod's.
    pub labels: BTreeMap<String, String>,
}

/// One series of an answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// Its labels, its name among them as `__name__`.
    pub labels: BTreeMap<String, String>,
    /// Unix seconds and values; one of a query of a moment.
    pub points: Vec<(f64, f64)>,
}

/// A running Prometheus.
#[derive(Debug)]
pub struct Prometheus {
    process: Process,
    address: SocketAddr,
}

impl Prometheus {
    /// Starts it; `rules` is the text of a rule file.
    ///
    /// # Panics
    /// If it does not start.
    #[track_caller]
    pub fn start(targets: &[Target], rules: &str) -> Self {
        let process = Process::start("prometheus", |folder| {
            let path = |name: &str| folder.join(name).display().to_string();
            fs::write(path("rules.yaml"), rules).expect("a file of rules");
            fs::write(path("prometheus.yaml"), configuration(targets))
                .expect("a configuration file");
            let mut prometheus = command("prometheus");
            prometheus
                .arg(format!("--config.file={}", path("prometheus.yaml")))
                .arg(format!("--storage.tsdb.path={}", path("data")))
                .args(["--web.listen-address=127.0.0.1:0", "--log.level=info"]);
            prometheus
        });
        // It tells the port that the kernel chose in its log alone.
        let address = await_some("Prometheus to listen", || {
            let log = process.log();
            let line = log
                .lines()
                .find(|line| line.contains("msg=\"Listening on\""))?;
            let (_, address) = line.split_once("address=")?;
            address.split_whitespace().next()?.parse().ok()
        });
        let prometheus = Self { process, address };
        prometheus.await_that("Prometheus to be ready", || {
            http::get(prometheus.address, "/-/ready").is_ok_and(|answer| answer.status == 200)
        });
        prometheus
    }

    /// Its process.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// What `expression` is at this moment.
    ///
    /// # Errors
    /// Prometheus' own sentence.
    pub fn ask(&self, expression: &str) -> Result<Vec<Series>, String> {
        let data = self.call(&format!("/api/v1/query?query={}", encoded(expression)))?;
        Ok(series(&data))
    }

    /// What it was from one moment to another (Unix seconds), at every `step` seconds.
    ///
    /// # Errors
    /// Prometheus' own sentence.
    pub fn ask_range(
        &self,
        expression: &str,
        span: (f64, f64),
        step: f64,
    ) -> Result<Vec<Series>, String> {
        let (from, to) = span;
        let query = encoded(expression);
        let data = self.call(&format!(
            "/api/v1/query_range?query={query}&start={from}&end={to}&step={step}"
        ))?;
        Ok(series(&data))
    }

    /// The alerts of this name that are pending or firing, as its API tells them.
    ///
    /// # Panics
    /// If it does not answer.
    #[track_caller]
    pub fn alerts(&self, name: &str) -> Vec<Value> {
        let data = self
            .call("/api/v1/alerts")
            .unwrap_or_else(|error| panic!("{error}"));
        let alerts = data["alerts"].as_array().cloned().unwrap_or_default();
        let named = alerts
            .into_iter()
            .filter(|alert| alert["labels"]["alertname"] == name);
        named.collect()
    }

    /// Rules that were not evaluated without an error, with the error; all of them, before they were evaluated at all.
    ///
    /// # Panics
    /// If it does not answer.
    #[track_caller]
    pub fn rules_not_well(&self) -> Vec<String> {
        let data = self
            .call("/api/v1/rules")
            .unwrap_or_else(|error| panic!("{error}"));
        let groups = data["groups"].as_array().into_iter().flatten();
        let rules = groups.flat_map(|group| group["rules"].as_array().into_iter().flatten());
        rules
            .filter(|rule| rule["health"] != "ok")
            .map(|rule| format!("{}: {}", rule["name"], rule["lastError"]))
            .collect()
    }

    /// Waits until the newest scrape of each of so many targets went well.
    #[track_caller]
    pub fn await_scrapes(&self, targets: usize) {
        self.await_that("all targets to be scraped", || {
            let up = self.ask("sum(up)").unwrap_or_default();
            up.first().map(|series| series.points[0].1) == Some(targets as f64)
        });
    }

    /// Waits until `holds`, at most [`PATIENCE`].
    ///
    /// # Panics
    /// If it does not, with `what`.
    #[track_caller]
    pub fn await_that(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let begin = Instant::now();
        while !holds() {
            let waited = begin.elapsed();
            assert!(waited < PATIENCE, "waited {waited:?} in vain for {what}");
            thread::sleep(Duration::from_millis(100));
        }
    }

    fn call(&self, path: &str) -> Result<Value, String> {
        let answer = http::get(self.address, path).map_err(|error| error.to_string())?;
        let mut answer: Value = serde_json::from_str(&answer.body)
            .map_err(|error| format!("{error}: {}", answer.body))?;
        match answer["error"].as_str() {
            Some(error) => Err(error.to_owned()),
            None => Ok(answer["data"].take()),
        }
    }
}

/// Runs promtool with `input`; what it said and whether it found nothing wrong.
///
/// # Errors
/// It cannot be run.
pub fn promtool<S: AsRef<std::ffi::OsStr>>(
    arguments: impl IntoIterator<Item = S>,
    folder: &Path,
    input: &str,
) -> io::Result<(bool, String)> {
    let mut child = command("promtool")
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut stdin = child.stdin.take().expect("its input is piped");
    let text = input.to_owned();
    // Beside the reading, so that neither waits for the other for ever.
    let writing = thread::spawn(move || stdin.write_all(text.as_bytes()));
    let output = child.wait_with_output()?;
    let written = writing.join().expect("writing does not panic");
    let said = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    Ok((output.status.success() && written.is_ok(), said))
}

fn configuration(targets: &[Target]) -> String {
    let jobs: Vec<Value> = targets
        .iter()
        .enumerate()
        .map(|(index, target)| {
            json!({
                // The name becomes the label, and two of them may not be the same.
                "job_name": format!("{}-{index}", target.job),
                "static_configs": [{"targets": [target.address.to_string()], "labels": target.labels}],
                "relabel_configs": [{"target_label": "job", "replacement": target.job}],
            })
        })
        .collect();
    let configuration = json!({
        "global": {"scrape_interval": INTERVAL, "scrape_timeout": INTERVAL, "evaluation_interval": INTERVAL},
        "rule_files": ["rules.yaml"],
        "scrape_configs": jobs,
    });
    // JSON is YAML.
    configuration.to_string()
}

fn series(data: &Value) -> Vec<Series> {
    let point = |pair: &Value| {
        let value = pair[1].as_str().and_then(|text| text.parse().ok());
        Some((pair[0].as_f64()?, value?))
    };
    let one = |found: &Value| {
        let labels = found["metric"].as_object()?.iter();
        let labels =
            labels.map(|(key, value)| (key.clone(), value.as_str().unwrap_or_default().to_owned()));
        let points = match found["values"].as_array() {
            Some(values) => values.iter().filter_map(point).collect(),
            None => point(&found["value"]).into_iter().collect(),
        };
        Some(Series {
            labels: labels.collect(),
            points,
        })
    };
    let all = data["result"].as_array();
    all.into_iter().flatten().filter_map(one).collect()
}

/// For a query's part of an address.
fn encoded(text: &str) -> String {
    let letter = |byte: u8| {
        if byte.is_ascii_alphanumeric() {
            char::from(byte).to_string()
        } else {
            format!("%{byte:02X}")
        }
    };
    text.bytes().map(letter).collect()
}
