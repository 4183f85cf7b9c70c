//! `make dashboard-picture`: docs/dashboard.svg, drawn of the dashboard's own queries, asked of a real Prometheus that has watched real
//! sidecars and their controller through five minutes with pushback.
//!
//! It owns what happens in these minutes. How it is drawn is `ringside_monitoring::picture`'s.

use std::path::PathBuf;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ringside_e2e::definitions::installed;
use ringside_e2e::watched::{SIDECARS, Watched};
use ringside_monitoring::panels::{Look, Panel, ROWS};
use ringside_monitoring::picture::{Line, draw};
use ringside_tests::processes;
use ringside_tests::prometheus::{PROGRAMS, Prometheus, Series};

/// Rows of the dashboard that are drawn.
const DRAWN: usize = 4;

/// How far apart points are.
const STEP_SECONDS: f64 = 5.0;

/// A range of as many scrapes as Grafana would take.
const RATE_INTERVAL: &str = "10s";

/// The parts of the story, and what is under pushback meanwhile. It ends while that lasts, for the numbers to tell of it.
const STORY: [(Duration, &[&str]); 4] = [
    (Duration::from_secs(60), &[]),
    (Duration::from_secs(80), &["web-0"]),
    (Duration::from_secs(60), &[]),
    (Duration::from_secs(100), &["web-0", "web-1"]),
];

fn main() {
    let name = "dashboard-picture";
    let server = processes::installed(name, &PROGRAMS)
        .then(|| installed(name))
        .flatten();
    let Some(server) = server else {
        std::process::exit(1)
    };
    let mut watched = Watched::start(server);
    for (part, (time, pressed)) in STORY.iter().enumerate() {
        watched.fleet.press(false);
        for pod in *pressed {
            watched.fleet.press_some(pod, true);
        }
        if part == 2 {
            watched.apply_policy(64);
        }
        println!("{time:?} with pushback of {pressed:?}");
        thread::sleep(*time);
    }
    let end = now();
    let begin = end
        - STORY
            .iter()
            .map(|(time, _)| time.as_secs_f64())
            .sum::<f64>();
    let prometheus = &watched.prometheus;
    let version = processes::output("prometheus", ["--version"]);
    let version = version.split_whitespace().nth(2).unwrap_or_default();
    let caption = format!(
        "Drawn from the dashboard's own queries: {SIDECARS} real sidecars and a controller, five minutes, the kernel's EAGAIN injected into one \
         pod (1:00) and then into two (3:20). Prometheus {version}."
    );
    let answers = |panel: &Panel| lines(prometheus, panel, begin, end);
    let svg = draw(
        "Ringside's dashboard",
        &caption,
        &ROWS[..DRAWN],
        end - begin,
        answers,
    );
    let path = PathBuf::from(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../docs/dashboard.svg"
    ));
    std::fs::write(&path, &svg).expect("the picture can be written");
    println!("docs/dashboard.svg has {} bytes", svg.len());
}

fn now() -> f64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.expect("a clock after 1970").as_secs_f64().floor()
}

fn lines(prometheus: &Prometheus, panel: &Panel, begin: f64, end: f64) -> Vec<Line> {
    let mut lines = Vec::new();
    for query in panel.queries {
        let expression = query.asked(".*", ".*", RATE_INTERVAL);
        let answered = if matches!(panel.look, Look::Number { .. }) {
            prometheus.ask(&expression)
        } else {
            prometheus.ask_range(&expression, (begin, end), STEP_SECONDS)
        };
        let series = answered.unwrap_or_else(|error| panic!("{}: {error}", panel.title));
        lines.extend(series.into_iter().map(|series| Line {
            name: name(query.legend, &series),
            points: points(&series, begin),
        }));
    }
    lines
}

/// The legend with its labels, as Grafana writes it.
fn name(legend: &str, series: &Series) -> String {
    let mut name = legend.to_owned();
    for (label, value) in &series.labels {
        // Ports of this machine say nothing beside a pod's name.
        let value = if label == "instance" { "" } else { value };
        name = name.replace(&format!("{{{{{label}}}}}"), value);
    }
    name.trim().to_owned()
}

fn points(series: &Series, begin: f64) -> Vec<(f64, f64)> {
    let finite = series.points.iter().filter(|point| point.1.is_finite());
    finite.map(|(at, value)| (at - begin, *value)).collect()
}
