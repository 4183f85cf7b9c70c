//! The comparison: the same work through each relay in turn, in several rounds, on one core each, in a network of its own.
//!
//! Owns the order of the runs and what is done about one that fails: it is noted, shown, and makes the whole end with an
//! error, but does not stop the others.

mod disturbance;
mod network;
mod run;
mod subject;
mod table;
mod work;

use std::fs;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use serde_json::json;

use crate::process::Processes;
use network::OwnNetwork;
use run::Bench;
use subject::{Programs, Running, Subject};
use table::{Results, Sample};
use work::Work;

const APPLICATION_PATIENCE: Duration = Duration::from_secs(5);

/// What to compare, and how thoroughly.
#[derive(Debug, Args)]
pub(crate) struct Comparison {
    /// Relays, in this order [default: all whose programs are there].
    #[arg(long, value_enum, value_delimiter = ',')]
    subjects: Vec<Subject>,
    /// Workloads: pingN, bulkN, bulk-reverseN, churnN (N connections), mixed, idle, rss, ready.
    #[arg(long, value_delimiter = ',', default_value = work::ALL)]
    workloads: Vec<Work>,
    /// Rounds: each runs every workload through every relay once.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=1000))]
    repetitions: u16,
    /// Seconds that workloads of time are measured for.
    #[arg(long, default_value = "1", value_parser = crate::seconds)]
    seconds: Duration,
    /// Seconds before that which are not measured.
    #[arg(long, default_value = "0.3", value_parser = crate::seconds)]
    warm_up: Duration,
    /// Gigabytes (10^9 bytes) that a run of bulk moves.
    #[arg(long, default_value = "2", value_parser = crate::gigabytes)]
    gigabytes: f64,
    /// Run again, once, and keep the calmer of the two, when others (processes, or the hypervisor) took more than this
    /// share of the two CPUs.
    #[arg(long, default_value_t = 10, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(0..=100))]
    disturbed_above: u8,
    /// The CPU that the relay runs on.
    #[arg(long, default_value_t = 1)]
    relay_cpu: usize,
    /// The CPU that client and application run on.
    #[arg(long, default_value_t = 0)]
    load_cpu: usize,
    /// Write the tables to this file, too.
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
    /// Write each run as a line of JSON to this file.
    #[arg(long, value_name = "FILE")]
    raw: Option<PathBuf>,
    #[command(flatten)]
    programs: Programs,
}

impl Comparison {
    /// Runs everything, prints the tables, and fails if any run did.
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        let (subjects, left_out) = self.choose_subjects()?;
        let mut network = OwnNetwork::enter()?;
        let folder = tempfile::Builder::new()
            .prefix("ringside-bench-")
            .tempdir()?;
        let application = loopback(network.port());
        let called_directly = loopback(network.port());
        let behind = self.start_application(application, folder.path(), self.load_cpu)?;
        let directly = self.start_application(called_directly, folder.path(), self.relay_cpu)?;
        let mut bench = Bench {
            options: self,
            network,
            folder: folder.path(),
            application,
            called_directly,
            applications: Processes::of(
                &[behind.processes.pids(), directly.processes.pids()].concat(),
            ),
        };

        let mut raw = match &self.raw {
            Some(path) => Some(
                fs::File::create(path)
                    .with_context(|| format!("cannot write {}", path.display()))?,
            ),
            None => None,
        };
        let begin = Instant::now();
        let mut results = Results::new(&self.workloads, &subjects);
        let mut failures = Vec::new();
        for repetition in 0..usize::from(self.repetitions) {
            for (index, &work) in self.workloads.iter().enumerate() {
                // Each round begins with another one: what a relay leaves behind does not always meet the same next.
                for place in 0..subjects.len() {
                    let subject = subjects[(place + repetition) % subjects.len()];
                    if subject == Subject::Direct && !work.runs_direct() {
                        continue;
                    }
                    match bench.run(subject, work) {
                        Ok(sample) => {
                            progress(repetition, subject, work, &sample);
                            if let Some(file) = &mut raw {
                                let line = json!({
                                    "repetition": repetition, "subject": subject.name(), "workload": work.to_string(),
                                    "figure": sample.figure, "others_percent": sample.others_percent, "report": sample.report,
                                });
                                writeln!(file, "{line}").context("cannot write the runs")?;
                            }
                            results.add(index, subject, repetition, sample);
                        }
                        Err(error) => {
                            let failure = format!(
                                "round {}, {}, {work}: {error:#}",
                                repetition + 1,
                                subject.name()
                            );
                            eprintln!("FAILED {failure}");
                            failures.push(failure);
                        }
                    }
                }
            }
        }
        let text = self.text(&results, &subjects, &left_out, &failures, begin.elapsed());
        println!("{text}");
        if let Some(path) = &self.markdown {
            fs::write(path, &text).with_context(|| format!("cannot write {}", path.display()))?;
        }
        if !failures.is_empty() {
            bail!("{} runs failed; they are listed above", failures.len());
        }
        Ok(())
    }

    /// Those asked for, which must all be there; or else those that are there, and why the others are not.
    fn choose_subjects(&self) -> anyhow::Result<(Vec<Subject>, Vec<String>)> {
        if let Some((subject, reason)) = self
            .subjects
            .iter()
            .find_map(|subject| Some((subject, self.programs.missing(*subject)?)))
        {
            bail!(
                "{} cannot be compared: {reason}; install or build it, or name its program",
                subject.name()
            );
        }
        if !self.subjects.is_empty() {
            return Ok((self.subjects.clone(), Vec::new()));
        }
        let (missing, there): (Vec<Subject>, Vec<Subject>) = Subject::value_variants()
            .iter()
            .partition(|subject| self.programs.missing(**subject).is_some());
        let reasons = missing
            .into_iter()
            .map(|subject| {
                format!(
                    "{}: {}",
                    subject.name(),
                    self.programs.missing(subject).unwrap_or_default()
                )
            })
            .collect();
        Ok((there, reasons))
    }

    fn start_application(
        &self,
        at: SocketAddr,
        folder: &Path,
        cpu: usize,
    ) -> anyhow::Result<Running> {
        let mut command =
            Command::new(std::env::current_exe().context("cannot find this program's own file")?);
        command.args(["serve", "--listen", &at.to_string()]);
        let mut serving = Running::spawn(
            command,
            &folder.join(format!("application-{}", at.port())),
            cpu,
            self.load_cpu,
        )?;
        serving
            .await_byte_through(at, Instant::now() + APPLICATION_PATIENCE)
            .context("the application behind the relays did not start")?;
        Ok(serving)
    }

    fn text(
        &self,
        results: &Results,
        subjects: &[Subject],
        left_out: &[String],
        failures: &[String],
        took: Duration,
    ) -> String {
        let mut versions: Vec<String> = subjects
            .iter()
            .filter_map(|subject| self.programs.version(*subject))
            .collect();
        versions.dedup();
        let mut text = format!(
            "What the relay costs: median of {} rounds (lowest-highest); **x** is the ratio to HAProxy in the same \
             round, as median (lowest-highest). CPU is the relay's alone.\n\n{}\n\
             What came through: rate, p50/p99 of a round trip or connection, and how busy the relay's CPU was. \
             Wall-clock figures: not stable on a shared machine.\n\n{}\n\
             Relay on CPU {} (for `direct`: the application), client and application on CPU {} ({}), kernel {}, congestion control {}, in a network \
             namespace of its own; {}. Others took {} of the two CPUs. Took {} s.\n",
            self.repetitions,
            results.costs(),
            results.throughput(),
            self.relay_cpu,
            self.load_cpu,
            cpu_model(),
            fs::read_to_string("/proc/sys/kernel/osrelease")
                .unwrap_or_default()
                .trim(),
            OwnNetwork::congestion_control(),
            versions.join("; "),
            results.disturbance(),
            took.as_secs(),
        );
        for reason in left_out {
            text.push_str(&format!("\nLeft out: {reason}.\n"));
        }
        for failure in failures {
            text.push_str(&format!("\nFailed: {failure}\n"));
        }
        text
    }
}

fn loopback(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

fn progress(repetition: usize, subject: Subject, work: Work, sample: &Sample) {
    let figure = sample
        .figure
        .map_or_else(|| "-".to_owned(), |figure| format!("{figure:.3}"));
    let others = sample.others_percent.map_or_else(String::new, |percent| {
        format!(" (others took {percent:.0} %)")
    });
    eprintln!(
        "round {}: {:<16} {work}: {figure}{others}",
        repetition + 1,
        subject.name()
    );
}

fn cpu_model() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = text
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split(':').nth(1));
    model.map_or_else(|| "unknown model".into(), |model| model.trim().to_owned())
}
